package suite

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// twoNetworks are a layer2 and a layer3 network.
func twoNetworks() string {
	return definition(suiteNetworks[0][0], suiteNetworks[0][1]) + definition(suiteNetworks[1][0], suiteNetworks[1][1])
}

// TestMultinetAddresses has pods that ask: for an address and a MAC, with a prefix and
// without; for one network twice; for an interface's name; for the default route.
func TestMultinetAddresses(t *testing.T) {
	fresh(t)
	apply(t, twoNetworks())
	apply(t, attachedPod("fixed", "ovn-worker", `[{"name":"blue","interface":"data0","ips":["10.150.0.50/24"],"mac":"0a:58:aa:bb:cc:01"}]`)+
		attachedPod("bare", "ovn-worker2", `[{"name":"blue","ips":["10.150.0.51"]}]`)+
		attachedPod("twice", "ovn-worker2", "blue,blue@more")+
		attachedPod("out", "ovn-worker", `[{"name":"blue"},{"name":"green","default-route":["10.160.0.1"]}]`))
	pods := attachedPods(t)
	fixed, bare, twice := pods["fixed"].of("blue"), pods["bare"].of("blue"), pods["twice"].of("blue")
	if len(fixed) != 1 || len(bare) != 1 || len(twice) != 2 || len(pods["out"].of("green")) != 1 {
		t.Fatalf("interfaces: %+v %+v %+v %+v", fixed, bare, twice, pods["out"].Interfaces)
	}
	if f := fixed[0]; f.Interface != "data0" || f.MAC != "0a:58:aa:bb:cc:01" || f.IPs[0].String() != "10.150.0.50" {
		t.Errorf("asked for 10.150.0.50, 0a:58:aa:bb:cc:01 at data0, got %+v", f)
	}
	if bare[0].IPs[0].String() != "10.150.0.51" {
		t.Errorf("asked for 10.150.0.51, got %+v", bare[0])
	}
	if twice[0].Interface != "net1" || twice[1].Interface != "more" || twice[0].IPs[0] == twice[1].IPs[0] || twice[0].MAC == twice[1].MAC {
		t.Errorf("one network twice: %+v", twice)
	}
	from := pods["fixed"].with(fixed[0])
	for _, to := range []packets.Place{pods["bare"].with(bare[0]), pods["twice"].with(twice[0]), pods["twice"].with(twice[1])} {
		if err := inTime(20*time.Second, func() error { return answered(from.In(packets.IPv4), to.In(packets.IPv4)) }); err != nil {
			t.Error(err)
		}
	}
	// The default route is the other network's; the cluster's own networks stay eth0's.
	for to, dev := range map[string]string{"192.0.2.1": "net2", pods["bare"].Addr.String(): "eth0"} {
		if route := routeOf(t, pods["out"].Path, to); !strings.Contains(route+" ", " dev "+dev+" ") {
			t.Errorf("to %s: %s, want dev %s", to, route, dev)
		}
	}
	if err := inTime(20*time.Second, func() error { return answered(pods["out"].Place, pods["bare"].Place) }); err != nil {
		t.Errorf("on the default network, with the default route elsewhere: %v", err)
	}
}

// routeOf is how the kernel of a pod would send.
func routeOf(t *testing.T, path, to string) string {
	t.Helper()
	out, err := exec.Command("nsenter", "--net="+path, "ip", "-o", "route", "get", to).CombinedOutput()
	if err != nil {
		t.Errorf("route to %s: %v: %s", to, err, out)
	}
	return string(out)
}

// TestMultinetRestarts replaces a node's agent, and then boots the node anew, under
// pods with further networks: the agent's end is not noticed, and after the boot the
// pods have the interfaces, addresses and MACs that they had.
func TestMultinetRestarts(t *testing.T) {
	fresh(t)
	apply(t, twoNetworks())
	host := "ovn-worker2"
	apply(t, attachedPod("a", "ovn-worker", "blue,green")+attachedPod("b", host, "blue,green"))
	pods := attachedPods(t)
	talk := func(when string, pods map[string]netPod, patience time.Duration) {
		for _, n := range []string{"blue", "green"} {
			a, _ := pods["a"].on(n)
			b, _ := pods["b"].on(n)
			for _, f := range bothFamilies {
				for _, pair := range [][2]packets.Place{{a, b}, {b, a}} {
					if err := inTime(patience, func() error { return answered(pair[0].In(f), pair[1].In(f)) }); err != nil {
						t.Errorf("%s, %s: %v", when, f, err)
					}
				}
			}
		}
	}
	talk("before", pods, 20*time.Second)
	zone := zoneHosts(t)[len(zoneHosts(t))-1] // host's, or the one that there is
	before := switches(t, zone)
	a, _ := pods["a"].on("blue")
	b, _ := pods["b"].on("blue")
	flow, err := packets.StartFlow(a.In(packets.IPv4), b.In(packets.IPv4), 200)
	if err != nil {
		t.Fatal(err)
	}
	first, err := packets.StartFlow(pods["a"].Place, pods["b"].Place, 200) // on the default network
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", "portolan", "delete", "pod", agentOf(t, host), "--wait=true")
	kubectl(t, "-n", "portolan", "rollout", "status", "daemonset/portolan-node", "--timeout=100s")
	// ovn-controller, which is another too, leaves the flows that it finds for a while
	// (ovn-ofctrl-wait-before-clear): what a start loses is lost when it writes its own.
	lab(t, "nbctl", "--node", zone, "--timeout=60", "--wait=hv", "sync")
	for network, f := range map[string]*packets.Flow{"blue": flow, "default": first} {
		steady := f.Stop()
		t.Logf("%s, while the agent's pod was replaced: %s", network, steady)
		if steady.Lost > 0 || steady.Sent == 0 {
			t.Errorf("%s, while the agent's pod was replaced: %s", network, steady)
		}
	}
	if after := switches(t, zone); after != before {
		t.Errorf("the restart changed the switches: %q, %q", before, after)
	}
	lab(t, "crash", host)
	lab(t, "boot", "--wait", host)
	kubectl(t, "wait", "--for=condition=Ready", "node/"+host, "--timeout=120s")
	err = inTime(2*time.Minute, func() error {
		if _, ok := find(pods["b"].pod); !ok {
			return fmt.Errorf("pod b has no sandbox with %s", pods["b"].Addrs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	now := attachedPods(t)
	for _, name := range []string{"a", "b"} {
		for i, was := range pods[name].Interfaces {
			if is := now[name].Interfaces[i]; is.Interface != was.Interface || is.MAC != was.MAC || !slices.Equal(is.IPs, was.IPs) {
				t.Errorf("pod %s after the boot: %+v, was %+v", name, is, was)
			}
		}
	}
	talk("after the boot", now, 60*time.Second)
}

// left is longer than a network stays on a node after its last pod, and an address
// after its last interface.
const left = 4 * time.Minute

// TestMultinetLeavesNothing compares what every node holds before networks, physical
// ones too, and pods, some on sixteen networks, were made, and when all of them have been
// gone for a while.
func TestMultinetLeavesNothing(t *testing.T) {
	fresh(t)
	nodes := nodeNames(t)
	if err := inTime(left, func() error { return unburdened(t) }); err != nil { // networks of earlier tests
		t.Fatal(err)
	}
	before := map[string]state.State{}
	for _, n := range nodes {
		before[n] = settled(t, n)
	}
	t.Run("used", func(t *testing.T) {
		fresh(t)
		physical(t)
		manifest := ""
		for _, n := range suiteNetworks {
			manifest += definition(n[0], n[1])
		}
		apply(t, manifest)
		for _, n := range nodes {
			apply(t, attachedPod("on-"+n, n, "blue,green,plain,tagged"))
		}
		attachedPods(t)
		kubectl(t, "-n", namespace, "delete", "pods", "--all", "--wait=true", "--timeout=60s")
		sixteen, asked := sixteen()
		apply(t, sixteen)
		for _, n := range nodes {
			apply(t, attachedPod("sixteen-"+n, n, asked))
		}
		attachedPods(t)
		kubectl(t, "-n", namespace, "delete", "pods", "--all", "--wait=true", "--timeout=60s")
	})
	deadline := time.Now().Add(left)
	if err := inTime(left, func() error { return unburdened(t) }); err != nil {
		t.Error(err)
	}
	for _, n := range nodes {
		diff, err := state.Settled(t.Context(), n, before[n], max(time.Until(deadline), 10*time.Second))
		if err != nil {
			t.Errorf("%s: %v", n, err)
		}
		for _, d := range diff {
			t.Errorf("%s: %s", n, d)
		}
	}
}

// unburdened says which networks of the suite's are not gone yet, as objects or as rows.
func unburdened(t *testing.T) error {
	t.Helper()
	if list := kubectl(t, "get", "networks,addressblocks", "-o", "name"); strings.Contains(list, "suite-") {
		return fmt.Errorf("objects of networks that are gone: %q", strings.Fields(list))
	}
	for _, n := range zoneHosts(t) {
		if list := switches(t, n); strings.Contains(list, "suite.") {
			return fmt.Errorf("%s has switches of networks that are gone: %q", n, strings.Fields(list))
		}
	}
	return nil
}
