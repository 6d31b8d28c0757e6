package suite

import (
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
	// beyond is the payload of a datagram or echo that fits the NIC only, not the pods'
	// interfaces.
	beyond = 1450
)

// full is the payload, in bytes, of a datagram or echo that fills the MTU: less the
// IP header and 8 bytes of UDP or ICMP.
func full(mtu int, f packets.Family) int {
	if f == packets.IPv4 {
		return mtu - 28
	}
	return mtu - 48
}

// cell is one pair of the matrix: who asks whom, and what the asked must see.
type cell struct {
	name     string
	from, to packets.Place
	source   netip.Addr
	ttl      int // of the echo reply at the asker; 0: not fixed
	largest  int // datagram, in bytes of UDP payload
	full     int // datagram that fills the pods' MTU
}

// A datagram may be as large as UDP allows, but where connection tracking sees
// it: vswitchd's own (userspace datapath) loses one of more than 32 fragments
// (docs/limits.md). 40,000 bytes are 30 fragments of the pods' MTU.
const (
	untracked = 65507
	tracked   = 40000
)

// scene is who is there, all of one family.
type scene struct {
	family packets.Family
	nodes  map[string]machine
	pods   map[string]pod
	client packets.Place
	far    int // ttl of a reply from another node's pod
	full   int
}

// in is the scene of one family.
func (s scene) in(f packets.Family, mtu int) scene {
	out := scene{family: f, nodes: map[string]machine{}, pods: map[string]pod{}, client: s.client.In(f), far: s.far, full: full(mtu, f)}
	for name, n := range s.nodes {
		out.nodes[name] = n.In(f)
	}
	for name, p := range s.pods {
		out.pods[name] = p.In(f)
	}
	return out
}

// cells generates every pair of the kinds of place that exist on every node.
func (s scene) cells() []cell {
	var out []cell
	add := func(name string, from, to packets.Place, source netip.Addr, ttl, largest int) {
		out = append(out, cell{name, from, to, source, ttl, largest, s.full})
	}
	for _, a := range s.pods {
		for _, b := range s.pods {
			switch {
			case a.Pod == b.Pod:
			case a.Node == b.Node:
				add("pod to pod of its node", a.Place, b.Place, a.Addr, sameNode, untracked)
			default:
				add("pod to pod of another node", a.Place, b.Place, a.Addr, s.far, untracked)
			}
		}
		for _, n := range s.nodes {
			if n.Name == a.Node {
				add("pod to its own node", a.Place, n.Place, a.Addr, 0, untracked)
			} else {
				add("pod to another node", a.Place, n.Place, s.nodes[a.Node].Addr, 0, tracked)
			}
			add("node to pod", n.Place, a.Place, n.Mgmt, 0, untracked)
		}
		add("pod to outside", a.Place, s.client, s.nodes[a.Node].Addr, 0, tracked)
	}
	for _, n := range s.nodes {
		add("outside to node", s.client, n.Place, s.client.Addr, 0, tracked)
		for _, m := range s.nodes {
			if n.Name != m.Name {
				add("node to node", n.Place, m.Place, n.Addr, 0, tracked)
			}
		}
	}
	return out
}

// TestMatrix makes every kind of connection between every kind of place, of all
// nodes, in every family of the lab, and asserts the source address that the asked
// sees. hostNetwork pods are in their node's namespace: the rows of nodes are theirs.
func TestMatrix(t *testing.T) {
	fresh(t)
	lab := layout(t)
	all := scene{nodes: machines(t), client: outside(t), far: otherNode(t)}
	manifest := ""
	for _, n := range all.nodes {
		manifest += podManifest("a-"+n.Name, n.Name) + podManifest("b-"+n.Name, n.Name)
	}
	apply(t, manifest)
	all.pods = ready(t)
	for _, p := range all.pods {
		serve(t, p.Place, port)
	}
	for _, n := range all.nodes {
		serve(t, n.Place, port)
	}
	serve(t, all.client, port)
	count := 0
	for _, f := range families(t) {
		s := all.in(f, lab.PodMTU())
		t.Run(string(f), func(t *testing.T) {
			for _, c := range s.cells() {
				count++
				t.Run(fmt.Sprintf("%s/%s-%s", strings.ReplaceAll(c.name, " ", "-"), c.from.Name, c.to.Name), func(t *testing.T) {
					c.tcp(t)
					c.udp(t)
					c.icmp(t)
				})
			}
			t.Run("too-big", s.tooBig)
			t.Run("spoofing", s.spoofing)
		})
	}
	t.Logf("%d cells, each TCP, UDP, ICMP; small, full-sized, fragmented", count)
	t.Run("pod-to-API-server", func(t *testing.T) {
		for _, p := range all.pods {
			if err := p.Do(func() error {
				conn, err := net.DialTimeout("tcp", lab.API().String(), patient)
				if err == nil {
					conn.Close()
				}
				return err
			}); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
		}
	})
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
	for _, size := range []int{200, c.full, beyond, c.largest} { // an answer of beyond is too big for pods, unfragmented
		a, err := packets.UDP(c.from, to, size, size > c.full, patient)
		c.check(t, fmt.Sprintf("UDP %d", size), a.Source, err)
	}
}

func (c cell) icmp(t *testing.T) {
	for _, size := range []int{56, c.full, beyond, c.largest} {
		e, err := packets.Ping(c.from, c.to.Addr, size, size == c.full, patient)
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
func (s scene) tooBig(t *testing.T) {
	for _, p := range s.pods {
		to := netip.AddrPortFrom(s.client.Addr, port)
		if _, err := packets.UDP(p.Place, to, s.full+1, false, time.Second); !strings.Contains(fmt.Sprint(err), "message too long") {
			t.Errorf("%s to outside: one byte too many, unfragmented: got %v, want EMSGSIZE", p.Name, err)
		}
		// An answer of 1,500 bytes from outside that may not be fragmented: the
		// gateway router says so, and the client's kernel then fragments.
		if _, err := packets.UDP(p.Place, to, tracked, true, patient); err != nil {
			t.Errorf("%s to outside and back: 40,000 bytes: %v", p.Name, err)
		}
		for _, n := range s.nodes {
			_, err := packets.Ping(n.Place, p.Addr, s.full+1, true, time.Second)
			if err == nil {
				t.Errorf("%s to %s: a ping one byte larger than the MTU came through whole", n.Name, p.Name)
			}
		}
		break
	}
}
