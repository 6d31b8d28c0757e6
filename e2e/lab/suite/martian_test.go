package suite

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// martian is who sends packets for the loopback address, and through what.
type martian struct {
	name   string
	from   packets.Place
	frame  packets.Frame
	honest netip.Addr // of the node, reached through the same link
}

// TestMatrixMartians sends packets for 127.0.0.1 and ::1 to a node's MAC, from its
// neighbours: what listens on a node's loopback address is the node's alone
// (CVE-2020-8558). The same frames for the node's own address arrive.
func TestMatrixMartians(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	apply(t, podManifest("a", host)+podManifest("b", "ovn-worker2"))
	pods, node := ready(t), machines(t)[host]
	serve(t, pods["a"].Place, port)
	for _, f := range families(t) {
		t.Run(string(f), func(t *testing.T) {
			loopback := netip.MustParseAddr("127.0.0.1")
			if f == packets.IPv6 {
				loopback = netip.IPv6Loopback()
			}
			n, a, client := node.In(f), pods["a"].In(f), outside(t).In(f)
			inner, outer := listen(t, n.Place, loopback), listen(t, n.Place, netip.Addr{})
			br, mgmt := linkMAC(t, n.Place, "br-ex"), linkMAC(t, n.Place, "ovn-k8s-mp0")
			for _, m := range []martian{
				{"a neighbour of the node", client, packets.Frame{Src: linkMAC(t, client, "eth0"), Dst: br}, n.Addr},
				{"a pod, to the management port", a.Place, packets.Frame{Src: a.MAC, Dst: mgmt}, n.Mgmt},
				{"a pod, to its router", a.Place, packets.Frame{Src: a.MAC, Dst: routerMAC(t, pods["b"].In(f), a)}, n.Mgmt},
			} {
				t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) { m.send(t, loopback, inner, outer) })
			}
			if f == packets.IPv4 {
				t.Run("route_localnet-would-let-them-in", func(t *testing.T) { letIn(t, client, n.Place) })
			}
		})
	}
	for _, m := range machines(t) {
		for _, line := range strings.Fields(inside(t, m.Place, "sh", "-c", "grep . /proc/sys/net/ipv4/conf/*/route_localnet")) {
			if !strings.HasSuffix(line, ":0") {
				t.Errorf("%s: %s: loopback addresses can be reached from outside", m.Name, line)
			}
		}
	}
}

// send sends twenty frames for the loopback address and then an honest one, which
// arrives after them: that one must be heard, and none of the others.
func (m martian) send(t *testing.T, loopback netip.Addr, inner, outer *net.UDPConn) {
	forged := m.frame.UDP(netip.AddrPortFrom(m.from.Addr, 4000), portOf(loopback, inner), forgedMark)
	honest := m.frame.UDP(netip.AddrPortFrom(m.from.Addr, 4000), portOf(m.honest, outer), []byte("honest"))
	for _, f := range []struct {
		frame []byte
		times int
	}{{forged, 20}, {honest, 1}} {
		if err := packets.Send(m.from, "eth0", f.frame, f.times); err != nil {
			t.Fatal(err)
		}
	}
	if heard(t, outer, patient) == 0 {
		t.Errorf("%s: the honest datagram for %s was not heard: nothing is shown", m.name, m.honest)
	}
	if got := heard(t, inner, time.Millisecond); got != 0 {
		t.Errorf("%s: %d of 20 datagrams for %s were heard", m.name, got, loopback)
	}
}

// letIn opens the hole on purpose, to show that such frames are heard where nobody
// stops them. It does so at the client: on a node kubelet's own firewall rule drops
// them as well.
func letIn(t *testing.T, client, from packets.Place) {
	const knob = "net.ipv4.conf.eth0.route_localnet="
	inside(t, client, "sysctl", "-qw", knob+"1")
	t.Cleanup(func() { inside(t, client, "sysctl", "-qw", knob+"0") })
	loopback := netip.MustParseAddr("127.0.0.1")
	conn := listen(t, client, loopback)
	frame := packets.Frame{Src: linkMAC(t, from, "br-ex"), Dst: linkMAC(t, client, "eth0")}.UDP(
		netip.AddrPortFrom(from.Addr, 4000), portOf(loopback, conn), forgedMark)
	if err := packets.Send(from, "br-ex", frame, 1); err != nil {
		t.Fatal(err)
	}
	if heard(t, conn, patient) != 1 {
		t.Error("with route_localnet the datagram was not heard either: the test proves nothing")
	}
}

// listen opens a UDP socket of a place; the zero address is every address.
func listen(t *testing.T, p packets.Place, addr netip.Addr) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := p.Do(func() error {
		var err error
		conn, err = net.ListenUDP("udp", &net.UDPAddr{IP: addr.AsSlice()})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// portOf is an address with a socket's port.
func portOf(a netip.Addr, conn *net.UDPConn) netip.AddrPort {
	return netip.AddrPortFrom(a, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// heard waits for a datagram and counts all that are there.
func heard(t *testing.T, conn *net.UDPConn, wait time.Duration) int {
	t.Helper()
	buf, count := make([]byte, 2048), 0
	for {
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(buf); err != nil {
			return count
		}
		count++
		wait = time.Millisecond
	}
}
