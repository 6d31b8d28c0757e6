package suite

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// sixteen are networks of every topology, and what a pod asks for that is on all of
// them, on the first one twice: sixteen interfaces beside eth0.
func sixteen() (manifest, asked string) {
	var names []string
	for i := range 15 {
		config := ""
		switch {
		case i < 6:
			config = fmt.Sprintf(`"topology":"layer2","subnets":"10.190.%d.0/24,fd00:190:0:%d::/64"`, i, i)
		case i < 11:
			config = fmt.Sprintf(`"topology":"layer3","subnets":"10.191.%d.0/20/24,fd00:191:%d::/48/64"`, 16*(i-6), i)
		default:
			config = fmt.Sprintf(`"topology":"localnet","physicalNetworkName":"suite","vlanID":%d,"subnets":"10.192.%d.0/24,fd00:192:0:%d::/64"`, 200+i, i, i)
		}
		names = append(names, fmt.Sprintf("s%02d", i))
		manifest += definition(names[i], config)
	}
	return manifest, strings.Join(append(names, names[0]), ",")
}

// TestMultinetSixteen has two pods of two nodes on sixteen networks each, one of them
// twice: network-status has seventeen entries, each is what the pod's own interface
// has, and on each the pods reach each other. When they are gone, every node holds
// what it held before them; other pods keep the networks rendered meanwhile.
func TestMultinetSixteen(t *testing.T) {
	fresh(t)
	physical(t)
	manifest, asked := sixteen()
	apply(t, manifest)
	hosts := []string{"ovn-worker", "ovn-worker2"}
	stay := ""
	for _, h := range hosts {
		stay += attachedPod("stay-"+h, h, asked[:strings.LastIndex(asked, ",")])
	}
	apply(t, stay)
	attachedPods(t)
	nodes := nodeNames(t)
	before := map[string]state.State{}
	for _, n := range nodes {
		before[n] = settled(t, n)
	}

	begin := time.Now()
	apply(t, attachedPod("a", hosts[0], asked)+attachedPod("b", hosts[1], asked))
	pods := attachedPods(t)
	t.Logf("two pods on sixteen networks were ready %v after they were created", time.Since(begin).Round(100*time.Millisecond))
	a, b := pods["a"], pods["b"]
	for _, p := range []netPod{a, b} {
		ownInterfaces(t, p, asked)
	}
	if t.Failed() {
		return
	}
	for i := range a.Interfaces {
		from, to := a.with(a.Interfaces[i]), b.with(b.Interfaces[i])
		for _, f := range bothFamilies {
			for _, pair := range [][2]packets.Place{{from, to}, {to, from}} {
				if err := inTime(20*time.Second, func() error { return answered(pair[0].In(f), pair[1].In(f)) }); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
		}
	}

	kubectl(t, "-n", namespace, "delete", "pod", "a", "b", "--wait=true", "--timeout=60s")
	for _, n := range nodes {
		diff, err := state.Settled(t.Context(), n, before[n], 60*time.Second)
		if err != nil {
			t.Errorf("%s: %v", n, err)
		}
		if len(diff) > 0 {
			t.Errorf("%s: the pods have left this:\n%s", n, state.Text(diff))
		}
	}
}

// ownInterfaces compares a pod's network-status with what it asked for, and with the
// interfaces that there are in its namespace.
func ownInterfaces(t *testing.T, p netPod, asked string) {
	t.Helper()
	names := strings.Split(asked, ",")
	if len(p.Interfaces) != len(names) {
		t.Fatalf("network-status of %s has %d entries beside the default network's, want %d: %+v", p.Pod, len(p.Interfaces), len(names), p.Interfaces)
	}
	have, err := interfacesIn(p.Place)
	if err != nil {
		t.Fatal(err)
	}
	if len(have) != len(names)+1 {
		t.Errorf("%s has %d interfaces beside lo, want %d", p.Pod, len(have), len(names)+1)
	}
	seen := map[string]bool{}
	for i, s := range p.Interfaces {
		if s.Name != namespace+"/"+names[i] || s.Interface != fmt.Sprintf("net%d", i+1) || s.MAC == "" || len(s.IPs) != 2 {
			t.Errorf("network-status of %s: entry %d is %+v, want net%d on %s", p.Pod, i+1, s, i+1, names[i])
		}
		own := have[s.Interface]
		if own.mac != s.MAC || !slices.Equal(sorted(own.addrs), sorted(s.IPs)) {
			t.Errorf("%s: %s has %s and %v, and network-status says %s and %v", p.Pod, s.Interface, own.mac, own.addrs, s.MAC, s.IPs)
		}
		for _, a := range s.IPs {
			if seen[a.String()] {
				t.Errorf("%s has %s twice", p.Pod, a)
			}
			seen[a.String()] = true
		}
	}
}

func sorted(list []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(list), netip.Addr.Compare)
}
