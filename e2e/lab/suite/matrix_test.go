package suite

import (
	"errors"
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
)

// cell is one pair of the matrix: who asks whom, and what the asked must see.
type cell struct {
	name     string
	from, to packets.Place
	source   netip.Addr
	ttl      int // of the echo reply at the asker; 0: not fixed
}

// cells generates every pair of the kinds of place that exist on every node.
func cells(nodes map[string]machine, pods map[string]pod) []cell {
	var out []cell
	for _, a := range pods {
		for _, b := range pods {
			switch {
			case a.Pod == b.Pod:
			case a.Node == b.Node:
				out = append(out, cell{"pod to pod of its node", a.Place, b.Place, a.Addr, 64})
			default:
				out = append(out, cell{"pod to pod of another node", a.Place, b.Place, a.Addr, 62})
			}
		}
		for _, n := range nodes {
			if n.Name == a.Node {
				out = append(out, cell{"pod to its own node", a.Place, n.Place, a.Addr, 0})
			} else {
				out = append(out, cell{"pod to another node", a.Place, n.Place, nodes[a.Node].Addr, 0})
			}
			out = append(out, cell{"node to pod", n.Place, a.Place, n.Mgmt, 0})
		}
		out = append(out, cell{"pod to outside", a.Place, client, nodes[a.Node].Addr, 0})
	}
	for _, n := range nodes {
		out = append(out, cell{"outside to node", client, n.Place, client.Addr, 0})
		for _, m := range nodes {
			if n.Name != m.Name {
				out = append(out, cell{"node to node", n.Place, m.Place, n.Addr, 0})
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
	t.Run("spoofing", func(t *testing.T) { spoofing(t, nodes, pods) })
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
	for _, size := range []int{200, 1372, 65507} { // 1372: the pods' MTU of 1400
		a, err := packets.UDP(c.from, to, size, size > 1372, patient)
		c.check(t, fmt.Sprintf("UDP %d", size), a.Source, err)
	}
}

func (c cell) icmp(t *testing.T) {
	for _, size := range []int{56, 1372, 60000} {
		e, err := packets.Ping(c.from, c.to.Addr, size, size == 1372, patient)
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
		if _, err := packets.UDP(p.Place, to, 1400, false, time.Second); !strings.Contains(fmt.Sprint(err), "message too long") {
			t.Errorf("%s to outside: 1,428 bytes unfragmented: got %v, want EMSGSIZE: the interface's MTU is 1,400", p.Name, err)
		}
		// An answer of 1,500 bytes from outside that may not be fragmented: the
		// gateway router says so, and the client's kernel then fragments.
		if _, err := packets.UDP(p.Place, to, 65507, true, patient); err != nil {
			t.Errorf("%s to outside and back: 65,507 bytes: %v", p.Name, err)
		}
		for _, n := range nodes {
			_, err := packets.Ping(n.Place, p.Addr, 1400, true, time.Second)
			if err == nil {
				t.Errorf("%s to %s: a ping of 1,428 bytes with DF came through an MTU of 1,400", n.Name, p.Name)
			}
		}
		break
	}
}

// spoofing forges what a pod may not send, and counts what arrives: nothing.
func spoofing(t *testing.T, nodes map[string]machine, pods map[string]pod) {
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
	router := mustMAC(t, routerMAC(a.Addr))
	stranger := mustMAC(t, "02:00:00:00:be:ef")
	unused := a.Addr.Next().Next().Next().Next().Next().Next().Next().Next()
	mark := []byte("portolan-forged-packet")
	from := func(ip netip.Addr, src uint16) netip.AddrPort { return netip.AddrPortFrom(ip, src) }
	everyone := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	cases := []struct {
		name  string
		to    pod
		frame func(to pod) []byte
	}{
		{"IP of another, same node", near, func(to pod) []byte {
			return packets.Frame{Src: a.MAC, Dst: to.MAC}.IPv4UDP(from(unused, 1), from(to.Addr, 9999), mark)
		}},
		{"IP of another, other node", far, func(to pod) []byte {
			return packets.Frame{Src: a.MAC, Dst: router}.IPv4UDP(from(unused, 1), from(to.Addr, 9999), mark)
		}},
		{"MAC of another, same node", near, func(to pod) []byte {
			return packets.Frame{Src: stranger, Dst: to.MAC}.IPv4UDP(from(a.Addr, 1), from(to.Addr, 9999), mark)
		}},
		{"MAC of another, other node", far, func(to pod) []byte {
			return packets.Frame{Src: stranger, Dst: router}.IPv4UDP(from(a.Addr, 1), from(to.Addr, 9999), mark)
		}},
		{"ARP for the router's address", near, func(to pod) []byte {
			return packets.Frame{Src: a.MAC, Dst: to.MAC}.ARPReply(gatewayOf(a.Addr), to.Addr)
		}},
		{"DHCP server", near, func(pod) []byte {
			return packets.Frame{Src: a.MAC, Dst: everyone}.IPv4UDP(from(a.Addr, 67), from(netip.MustParseAddr("255.255.255.255"), 68), mark)
		}},
	}
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			frame := c.frame(c.to)
			kind := frame[12:14]
			s, err := packets.Sniff(c.to.Place, "eth0", func(f []byte) bool {
				if kind[1] == 6 { // ARP: a claim of the router's address by a
					return len(f) >= 28 && f[12] == 8 && f[13] == 6 && net.HardwareAddr(f[22:28]).String() == a.MAC.String() && f[21] == 2
				}
				return strings.Contains(string(f), string(mark))
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := packets.Send(a.Place, "eth0", frame, 20); err != nil {
				t.Error(err)
			}
			// What is sent after the forged frames arrives after them.
			honest := netip.AddrPortFrom(c.to.Addr, port)
			if _, err := packets.UDP(a.Place, honest, 100, true, patient); err != nil {
				t.Error(err)
			}
			if got := s.Close(); len(got) != 0 {
				t.Errorf("%d of 20 forged frames were delivered", len(got))
			}
		})
	}
	t.Run("the-sniffer-sees-honest-frames", func(t *testing.T) {
		s, err := packets.Sniff(near.Place, "eth0", func(f []byte) bool { return strings.Contains(string(f), string(mark)) })
		if err != nil {
			t.Fatal(err)
		}
		frame := packets.Frame{Src: a.MAC, Dst: near.MAC}.IPv4UDP(from(a.Addr, 1), from(near.Addr, 9999), mark)
		err = packets.Send(a.Place, "eth0", frame, 20)
		_, err2 := packets.UDP(a.Place, netip.AddrPortFrom(near.Addr, port), 100, true, patient)
		if got := s.Close(); len(got) != 20 || errors.Join(err, err2) != nil {
			t.Errorf("%d of 20 honest frames were delivered, want 20 (%v)", len(got), errors.Join(err, err2))
		}
	})
	_ = nodes
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
