package suite

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

const (
	port    = 18080
	patient = 6 * time.Second
	// podMTU is the NIC's 1500 less Geneve over IPv4; full is the payload of a
	// datagram or echo that fills it, beyond is one that fits the NIC only.
	podMTU = 1500 - 58
	full   = podMTU - 28
	beyond = 1450
)

// cell is one pair of the matrix: who asks whom, and what the asked must see.
type cell struct {
	name     string
	from, to packets.Place
	source   netip.Addr
	ttl      int // of the echo reply at the asker; 0: not fixed
	largest  int // datagram, in bytes of UDP payload
}

// A datagram may be as large as UDP allows, but where connection tracking sees
// it: vswitchd's own (userspace datapath) loses one of more than 32 fragments
// (docs/limits.md). 40,000 bytes are 30 fragments of the pods' MTU.
const (
	untracked = 65507
	tracked   = 40000
)

// cells generates every pair of the kinds of place that exist on every node.
func cells(nodes map[string]machine, pods map[string]pod) []cell {
	var out []cell
	for _, a := range pods {
		for _, b := range pods {
			switch {
			case a.Pod == b.Pod:
			case a.Node == b.Node:
				out = append(out, cell{"pod to pod of its node", a.Place, b.Place, a.Addr, 64, untracked})
			default:
				out = append(out, cell{"pod to pod of another node", a.Place, b.Place, a.Addr, 62, untracked})
			}
		}
		for _, n := range nodes {
			if n.Name == a.Node {
				out = append(out, cell{"pod to its own node", a.Place, n.Place, a.Addr, 0, untracked})
			} else {
				out = append(out, cell{"pod to another node", a.Place, n.Place, nodes[a.Node].Addr, 0, tracked})
			}
			out = append(out, cell{"node to pod", n.Place, a.Place, n.Mgmt, 0, untracked})
		}
		out = append(out, cell{"pod to outside", a.Place, client, nodes[a.Node].Addr, 0, tracked})
	}
	for _, n := range nodes {
		out = append(out, cell{"outside to node", client, n.Place, client.Addr, 0, tracked})
		for _, m := range nodes {
			if n.Name != m.Name {
				out = append(out, cell{"node to node", n.Place, m.Place, n.Addr, 0, tracked})
			}
		}
	}
	return out
}

// TestMatrix makes every kind of connection between every kind of place, of all
// nodes, and asserts the source address that the asked sees. hostNetwork pods are
// in their node's namespace: the rows of nodes are theirs.
func TestMatrix(t *testing.T) {
	fresh(t)
	nodes := machines(t)
	manifest := ""
	for _, n := range nodes {
		manifest += podManifest("a-"+n.Name, n.Name) + podManifest("b-"+n.Name, n.Name)
	}
	apply(t, manifest)
	pods := ready(t)
	for _, p := range pods {
		serve(t, p.Place, port)
	}
	for _, n := range nodes {
		serve(t, n.Place, port)
	}
	serve(t, client, port)
	count := 0
	for _, c := range cells(nodes, pods) {
		count++
		t.Run(fmt.Sprintf("%s/%s-%s", strings.ReplaceAll(c.name, " ", "-"), c.from.Name, c.to.Name), func(t *testing.T) {
			c.tcp(t)
			c.udp(t)
			c.icmp(t)
		})
	}
	t.Logf("%d cells, each TCP, UDP, ICMP; small, full-sized, fragmented", count)
	t.Run("pod-to-API-server", func(t *testing.T) {
		for _, p := range pods {
			if err := p.Do(func() error {
				conn, err := net.DialTimeout("tcp", apiServer.String(), patient)
				if err == nil {
					conn.Close()
				}
				return err
			}); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		}
	})
	t.Run("too-big", func(t *testing.T) { tooBig(t, nodes, pods) })
	t.Run("spoofing", func(t *testing.T) { spoofing(t, pods) })
}

func (c cell) tcp(t *testing.T) {
	to := netip.AddrPortFrom(c.to.Addr, port)
	for _, size := range []int{1, 1 << 20} {
		a, err := packets.TCP(c.from, to, size, patient)
		c.check(t, fmt.Sprintf("TCP %d", size), a.Source, err)
	}
}

func (c cell) udp(t *testing.T) {
	to := netip.AddrPortFrom(c.to.Addr, port)
	for _, size := range []int{200, full, beyond, c.largest} { // an answer of beyond is too big for pods, unfragmented
		a, err := packets.UDP(c.from, to, size, size > full, patient)
		c.check(t, fmt.Sprintf("UDP %d", size), a.Source, err)
	}
}

func (c cell) icmp(t *testing.T) {
	for _, size := range []int{56, full, beyond, c.largest} {
		e, err := packets.Ping(c.from, c.to.Addr, size, size == full, patient)
		if err != nil {
			t.Errorf("%s: ping %d: %v", c.name, size, err)
			continue
		}
		if e.Copies != 1 {
			t.Errorf("%s: ping %d: %d replies to one request", c.name, size, e.Copies)
		}
		if e.Source != c.to.Addr {
			t.Errorf("%s: ping %d: answered by %s, asked %s", c.name, size, e.Source, c.to.Addr)
		}
		if c.ttl != 0 && e.TTL != c.ttl {
			t.Errorf("%s: ping %d: ttl %d, want %d", c.name, size, e.TTL, c.ttl)
		}
	}
}

func (c cell) check(t *testing.T, what string, source netip.Addr, err error) {
	t.Helper()
	switch {
	case err != nil:
		t.Errorf("%s: %s: %v", c.name, what, err)
	case source != c.source:
		t.Errorf("%s: %s: source seen is %s, want %s", c.name, what, source, c.source)
	}
}

// tooBig sends packets that may not be fragmented and are larger than the path
// to a pod: the sender must be told, from inside and from outside.
func tooBig(t *testing.T, nodes map[string]machine, pods map[string]pod) {
	for _, p := range pods {
		to := netip.AddrPortFrom(client.Addr, port)
		if _, err := packets.UDP(p.Place, to, full+1, false, time.Second); !strings.Contains(fmt.Sprint(err), "message too long") {
			t.Errorf("%s to outside: one byte too many, unfragmented: got %v, want EMSGSIZE", p.Name, err)
		}
		// An answer of 1,500 bytes from outside that may not be fragmented: the
		// gateway router says so, and the client's kernel then fragments.
		if _, err := packets.UDP(p.Place, to, tracked, true, patient); err != nil {
			t.Errorf("%s to outside and back: 40,000 bytes: %v", p.Name, err)
		}
		for _, n := range nodes {
			_, err := packets.Ping(n.Place, p.Addr, full+1, true, time.Second)
			if err == nil {
				t.Errorf("%s to %s: a ping one byte larger than the MTU came through with DF", n.Name, p.Name)
			}
		}
		break
	}
}

// forgery is one thing that a pod may not send, and whom it would reach.
type forgery struct {
	name  string
	to    pod
	frame []byte
}

// forgedMark is in the payload of every forged datagram.
var forgedMark = []byte("portolan-forged-packet")

// forgeries are made by a, for a pod of its node and one of another.
func forgeries(t *testing.T, a, near, far pod) []forgery {
	router, stranger := mustMAC(t, routerMAC(a.Addr)), mustMAC(t, "02:00:00:00:be:ef")
	everyone := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	unused := a.Addr.Next().Next().Next().Next().Next().Next().Next().Next()
	udp := func(src, dst net.HardwareAddr, ip, to netip.Addr) []byte {
		return packets.Frame{Src: src, Dst: dst}.IPv4UDP(netip.AddrPortFrom(ip, 1), netip.AddrPortFrom(to, 9999), forgedMark)
	}
	offer := packets.Frame{Src: a.MAC, Dst: everyone}.IPv4UDP(
		netip.AddrPortFrom(a.Addr, 67), netip.MustParseAddrPort("255.255.255.255:68"), forgedMark)
	return []forgery{
		{"IP of another, same node", near, udp(a.MAC, near.MAC, unused, near.Addr)},
		{"IP of another, other node", far, udp(a.MAC, router, unused, far.Addr)},
		{"MAC of another, same node", near, udp(stranger, near.MAC, a.Addr, near.Addr)},
		{"MAC of another, other node", far, udp(stranger, router, a.Addr, far.Addr)},
		{"ARP for the router's address", near, packets.Frame{Src: a.MAC, Dst: near.MAC}.ARPReply(gatewayOf(a.Addr), near.Addr)},
		{"DHCP server", near, offer},
	}
}

// spoofing forges what a pod may not send, and counts what arrives: nothing.
func spoofing(t *testing.T, pods map[string]pod) {
	var a, near, far pod
	for _, p := range pods {
		switch {
		case a.Pod == "":
			a = p
		case p.Node == a.Node:
			near = p
		case far.Pod == "":
			far = p
		}
	}
	for _, f := range forgeries(t, a, near, far) {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			if got := delivered(t, a, f.to, f.frame); got != 0 {
				t.Errorf("%d of 20 forged frames were delivered", got)
			}
		})
	}
	t.Run("the-sniffer-sees-honest-frames", func(t *testing.T) {
		frame := packets.Frame{Src: a.MAC, Dst: near.MAC}.IPv4UDP(
			netip.AddrPortFrom(a.Addr, 1), netip.AddrPortFrom(near.Addr, 9999), forgedMark)
		if got := delivered(t, a, near, frame); got != 20 {
			t.Errorf("%d of 20 honest frames were delivered", got)
		}
	})
}

// delivered sends a frame twenty times from a pod and counts how often it reaches
// another. What is sent after the frames arrives after them, so no wait is needed.
func delivered(t *testing.T, from, to pod, frame []byte) int {
	t.Helper()
	claim := frame[12] == 8 && frame[13] == 6 // ARP
	s, err := packets.Sniff(to.Place, "eth0", func(f []byte) bool {
		if claim {
			return len(f) >= 42 && bytes.Equal(f[12:42], frame[12:42])
		}
		return bytes.Contains(f, forgedMark)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := packets.Send(from.Place, "eth0", frame, 20); err != nil {
		t.Error(err)
	}
	if _, err := packets.UDP(from.Place, netip.AddrPortFrom(to.Addr, port), 100, true, patient); err != nil {
		t.Error(err)
	}
	return len(s.Close())
}

// gatewayOf is the router's address in a pod's /24.
func gatewayOf(a netip.Addr) netip.Addr {
	p, _ := a.Prefix(24)
	return p.Addr().Next()
}

func routerMAC(a netip.Addr) string {
	b := gatewayOf(a).As4()
	return fmt.Sprintf("0a:58:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

func mustMAC(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
