package suite

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// forgery is one thing that a pod may not send, and whom it would reach.
type forgery struct {
	name  string
	to    pod
	frame []byte
	mark  []byte // by which it is known when it arrives; nil: forgedMark
}

// forgedMark is in the payload of every forged datagram.
var forgedMark = []byte("portolan-forged-packet")

// allNodes and everyone are where neighbours listen, by IPv6 and by Ethernet.
var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	everyone    = net.HardwareAddr{255, 255, 255, 255, 255, 255}
)

// forgeries are made by a, for a pod of its node and one of another; router is the
// MAC of their default gateway.
func forgeries(t *testing.T, a, near, far pod, router net.HardwareAddr) []forgery {
	stranger := mustMAC(t, "02:00:00:00:be:ef")
	unused := a.Addr
	for range 8 {
		unused = unused.Next()
	}
	udp := func(src, dst net.HardwareAddr, ip, to netip.Addr) []byte {
		return packets.Frame{Src: src, Dst: dst}.UDP(netip.AddrPortFrom(ip, 1), netip.AddrPortFrom(to, 9999), forgedMark)
	}
	out := []forgery{
		{"IP of another, same node", near, udp(a.MAC, near.MAC, unused, near.Addr), nil},
		{"IP of another, other node", far, udp(a.MAC, router, unused, far.Addr), nil},
		{"MAC of another, same node", near, udp(stranger, near.MAC, a.Addr, near.Addr), nil},
		{"MAC of another, other node", far, udp(stranger, router, a.Addr, far.Addr), nil},
	}
	if packets.FamilyOf(a.Addr) == packets.IPv4 {
		claim := packets.Frame{Src: a.MAC, Dst: near.MAC}.ARPReply(gatewayOf(a.Addr), near.Addr)
		offer := packets.Frame{Src: a.MAC, Dst: everyone}.UDP(
			netip.AddrPortFrom(a.Addr, 67), netip.MustParseAddrPort("255.255.255.255:68"), forgedMark)
		return append(out, forgery{"ARP for the router's address", near, claim, claim[12:]}, forgery{"DHCP server", near, offer, nil})
	}
	// Neighbours believe what is sent to them, what is sent to all, and from whatever
	// address it comes.
	for name, f := range map[string]packets.Frame{"unicast": {Src: a.MAC, Dst: near.MAC}, "to all": {Src: a.MAC, Dst: allNodesMAC}} {
		to := near.Addr
		if name == "to all" {
			to = allNodes
		}
		for from, addr := range map[string]netip.Addr{"its own": a.Addr, "its link-local": packets.LinkLocal(a.MAC)} {
			claim := f.NeighbourAdvertisement(gatewayOf(a.Addr), addr, to)
			out = append(out, forgery{"neighbour advertisement for the router, " + name + ", from " + from + " address", near, claim, claim[12:]})
		}
	}
	for _, from := range []netip.Addr{a.Addr, packets.LinkLocal(a.MAC)} {
		advertise := packets.Frame{Src: a.MAC, Dst: near.MAC}.UDP(
			netip.AddrPortFrom(from, 547), netip.AddrPortFrom(near.Addr, 546), forgedMark)
		out = append(out, forgery{"DHCPv6 server at " + from.String(), near, advertise, nil})
	}
	return out
}

// trio picks a pod, another of its node, and one of another node.
func (s scene) trio() (a, near, far pod) {
	for _, p := range s.pods {
		switch {
		case a.Pod == "":
			a = p
		case p.Node == a.Node:
			near = p
		case far.Pod == "":
			far = p
		}
	}
	return a, near, far
}

// spoofing forges what a pod may not send, and counts what arrives: nothing.
func (s scene) spoofing(t *testing.T) {
	a, near, far := s.trio()
	for _, f := range forgeries(t, a, near, far, routerMAC(t, far, a)) {
		t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) {
			if f.mark == nil {
				f.mark = forgedMark
			}
			if got := delivered(t, a, f.to, f.frame, f.mark); got != 0 {
				t.Errorf("%d of 20 forged frames were delivered", got)
			}
		})
	}
	t.Run("the-sniffer-sees-honest-frames", func(t *testing.T) {
		frame := packets.Frame{Src: a.MAC, Dst: near.MAC}.UDP(
			netip.AddrPortFrom(a.Addr, 1), netip.AddrPortFrom(near.Addr, 9999), forgedMark)
		if got := delivered(t, a, near, frame, forgedMark); got != 20 {
			t.Errorf("%d of 20 honest frames were delivered", got)
		}
	})
}

// delivered sends a frame twenty times from a pod and counts how often it reaches
// another, known by its mark. What is sent after the frames arrives after them, so
// no wait is needed.
func delivered(t *testing.T, from, to pod, frame, mark []byte) int {
	t.Helper()
	s, err := packets.Sniff(to.Place, "eth0", func(f []byte) bool { return bytes.Contains(f, mark) })
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

// gatewayOf is the router's address in a pod's subnet: the first of its /24 or /64.
func gatewayOf(a netip.Addr) netip.Addr {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p.Addr().Next()
}

// routerMAC is the MAC of the router that a pod's packets from other nodes come
// from, as they say.
func routerMAC(t *testing.T, far, to pod) net.HardwareAddr {
	t.Helper()
	s, err := packets.Sniff(to.Place, "eth0", func(f []byte) bool { return bytes.Contains(f, far.Addr.AsSlice()) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packets.UDP(far.Place, netip.AddrPortFrom(to.Addr, port), 100, true, patient); err != nil {
		t.Error(err)
	}
	got := s.Close()
	if len(got) == 0 {
		t.Fatalf("no frame from %s at %s", far.Name, to.Name)
	}
	return net.HardwareAddr(got[0][6:12])
}

func mustMAC(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
