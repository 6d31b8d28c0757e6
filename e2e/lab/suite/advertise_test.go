package suite

import (
	"bytes"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// rogue is the prefix that forged router advertisements announce.
var rogue = netip.MustParsePrefix("2001:db8:bad::/64")

// inside runs a program in a place's network namespace.
func inside(t testing.TB, p packets.Place, argv ...string) string {
	t.Helper()
	out, err := exec.Command("nsenter", append([]string{"--net=" + p.Path, "--"}, argv...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %q: %v\n%s", p.Name, argv, err, out)
	}
	return string(out)
}

// configured is what of a place a router advertisement could change: addresses,
// routes of every table, and the hop limit.
func configured(t testing.TB, p packets.Place) string {
	t.Helper()
	return inside(t, p, "ip", "-6", "-o", "address") + inside(t, p, "ip", "-6", "route", "show", "table", "all") +
		inside(t, p, "sh", "-c", "grep . /proc/sys/net/ipv6/conf/*/hop_limit")
}

// linkMAC is the MAC of a link.
func linkMAC(t testing.TB, p packets.Place, link string) net.HardwareAddr {
	t.Helper()
	var mac net.HardwareAddr
	err := p.Do(func() error {
		ifi, err := net.InterfaceByName(link)
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s of %s: %v", link, p.Name, err)
	}
	return mac
}

// TestMatrixRouterAdvertisement: OVN lets router advertisements of pods pass,
// above every ACL (decision 31). They must change no address and no route, of the
// node, of pods of that node and of others; nor may those that a neighbour of the
// node sends. A pod that is made to accept them shows that they are good ones.
func TestMatrixRouterAdvertisement(t *testing.T) {
	if !slices.Contains(families(t), packets.IPv6) {
		t.Skip("the lab has no IPv6")
	}
	fresh(t)
	nodes, host := machines(t), "ovn-worker"
	apply(t, podManifest("sender", host)+podManifest("near", host)+podManifest("gullible", host)+podManifest("far", "ovn-worker2"))
	pods := ready(t)
	sender, near, gullible := pods["sender"].In(packets.IPv6), pods["near"].In(packets.IPv6), pods["gullible"]
	serve(t, near.Place, port)
	node := nodes[host]
	bystanders := []packets.Place{sender.Place, near.Place, pods["far"].Place, node.Place, nodes["ovn-worker2"].Place}
	var before []string
	for _, b := range bystanders {
		before = append(before, configured(t, b))
	}
	inside(t, gullible.Place, "sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=2", "net.ipv6.conf.eth0.autoconf=1")

	announce := func(from packets.Place, mac, to net.HardwareAddr, dst netip.Addr) {
		frame := packets.Frame{Src: mac, Dst: to}.RouterAdvertisement(packets.LinkLocal(mac), dst, rogue)
		if err := packets.Send(from, "eth0", frame, 3); err != nil {
			t.Fatal(err)
		}
	}
	arrived := sniffRogue(t, node.Place, "ovn-k8s-mp0")
	mgmt := linkMAC(t, node.Place, "ovn-k8s-mp0")
	announce(sender.Place, sender.MAC, near.MAC, near.Addr)
	announce(sender.Place, sender.MAC, mgmt, packets.LinkLocal(mgmt))
	announce(sender.Place, sender.MAC, allNodesMAC, allNodes)
	awaitRogue(t, gullible.Place)
	// What is sent after the frames arrives after them.
	if _, err := packets.UDP(sender.Place, netip.AddrPortFrom(near.Addr, port), 100, true, patient); err != nil {
		t.Error(err)
	}
	if n := len(arrived.Close()); n == 0 {
		t.Error("no advertisement of the pod reached the management port: nothing is shown about the node")
	}

	client := outside(t).In(packets.IPv6)
	arrived = sniffRogue(t, node.Place, "br-ex")
	mac := linkMAC(t, client, "eth0")
	announce(client, mac, allNodesMAC, allNodes)
	announce(client, mac, linkMAC(t, node.Place, "br-ex"), node.In(packets.IPv6).Addr)
	if _, err := packets.Ping(client, node.In(packets.IPv6).Addr, 56, false, patient); err != nil {
		t.Error(err)
	}
	if n := len(arrived.Close()); n == 0 {
		t.Error("no advertisement of the neighbour reached br-ex: nothing is shown about the node")
	}

	for i, b := range bystanders {
		if after := configured(t, b); after != before[i] {
			t.Errorf("router advertisements changed %s:\n%s", b.Name, difference(before[i], after))
		}
	}
}

// sniffRogue looks for router advertisements of the rogue prefix.
func sniffRogue(t *testing.T, p packets.Place, link string) *packets.Sniffer {
	t.Helper()
	s, err := packets.Sniff(p, link, func(f []byte) bool { return bytes.Contains(f, rogue.Addr().AsSlice()) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitRogue waits until a place has believed the rogue router.
func awaitRogue(t *testing.T, p packets.Place) {
	t.Helper()
	deadline := time.Now().Add(patient)
	for {
		have := configured(t, p)
		if strings.Contains(have, "2001:db8:bad:") && strings.Contains(have, "default via fe80:") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s accepts router advertisements and has believed none: they are no good\n%s", p.Name, have)
		}
	}
}
