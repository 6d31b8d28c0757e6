package suite

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// The networks of devices: one switch over all nodes each.
func deviceNetworks(resource string) string {
	return deviceDefinition("fast", resource, `"topology":"layer2","subnets":"10.195.0.0/24,fd00:195::/64"`) +
		deviceDefinition("quick", resource, `"topology":"layer2","subnets":"10.196.0.0/24,fd00:196::/64"`)
}

// TestDevices has a pool of four soft devices on each of two nodes. Six pods that want
// one each on one node: four have theirs, two wait for the scheduler's reason. Pods with
// several devices, on one network and on two, whose interfaces are the devices that the
// kubelet has given them, in order; packets between nodes by them. A pod that requires
// hardware is refused. In the end each device is as it was at first.
func TestDevices(t *testing.T) {
	fresh(t)
	hosts := []string{"ovn-worker", "ovn-worker2"}
	offering(t, 4, hosts...)
	apply(t, deviceNetworks(suiteResource))
	first := map[string]map[string]string{}
	for _, h := range hosts {
		if first[h] = softLinks(t, h); len(first[h]) != 8 {
			t.Fatalf("%s has %v, want both ends of four soft devices", h, first[h])
		}
	}
	t.Run("counted", counted)
	t.Run("several", several)
	t.Run("required", required)
	for _, h := range hosts {
		asAtFirst(t, h, first[h])
	}
}

// counted starts more pods than there are devices.
func counted(t *testing.T) {
	manifest := ""
	for n := range 6 {
		manifest += devicePod(fmt.Sprint("p", n), "ovn-worker", "fast", suiteResource, 1)
	}
	apply(t, manifest)
	running, waiting := phases(t, 4)
	if len(running) != 4 || len(waiting) != 2 {
		t.Fatalf("running %v, waiting %v, want 4 and 2", running, waiting)
	}
	for name, reason := range waiting {
		if !strings.Contains(reason, "Insufficient "+suiteResource) {
			t.Errorf("pod %s waits, and the scheduler says %q", name, reason)
		}
	}
	inUse(t, "ovn-worker", 4)
	if ports := devicePorts(t, "ovn-worker"); len(ports) != 4 {
		t.Errorf("ports of devices: %v, want 4", ports)
	}
	kubectl(t, "-n", namespace, "delete", "pod", running[0], "--wait=true", "--timeout=60s")
	if running, waiting = phases(t, 4); len(running) != 4 || len(waiting) != 1 {
		t.Errorf("when one of four is gone, running %v, waiting %v, want 4 and 1", running, waiting)
	}
	kubectl(t, "-n", namespace, "delete", "pod", "--all", "--wait=true", "--timeout=60s")
	atHome(t, "ovn-worker", 4)
}

// phases waits until so many of the namespace's pods are ready, and returns them; and
// those that the scheduler has not placed, with what it says.
func phases(t *testing.T, want int) (ready []string, waiting map[string]string) {
	t.Helper()
	_ = inTime(60*time.Second, func() error {
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct {
					Conditions []struct{ Type, Status, Message string }
				}
			}
		}
		decode(t, kubectl(t, "-n", namespace, "get", "pods", "-o", "json"), &list)
		ready, waiting = nil, map[string]string{}
		for _, p := range list.Items {
			for _, c := range p.Status.Conditions {
				switch {
				case c.Type == "Ready" && c.Status == "True":
					ready = append(ready, p.Metadata.Name)
				case c.Type == "PodScheduled" && c.Status == "False":
					waiting[p.Metadata.Name] = c.Message
				}
			}
		}
		if len(ready) < want || len(ready)+len(waiting) < len(list.Items) {
			return fmt.Errorf("%d of %d ready", len(ready), want)
		}
		return nil
	})
	return ready, waiting
}

// several has pods with several devices.
func several(t *testing.T) {
	apply(t, devicePod("two", "ovn-worker", "fast,quick", suiteResource, 2)+
		devicePod("three", "ovn-worker2", "fast,fast,quick", suiteResource, 3)+
		devicePod("one", "ovn-worker", "fast", suiteResource, 1))
	pods := attachedPods(t)
	for name, want := range map[string][]string{"two": {"fast", "quick"}, "three": {"fast", "fast", "quick"}, "one": {"fast"}} {
		p := pods[name]
		var on []string
		for _, s := range p.Interfaces {
			on = append(on, strings.TrimPrefix(s.Name, namespace+"/"))
		}
		if !slices.Equal(on, want) {
			t.Fatalf("pod %s is on %v, want %v", name, on, want)
		}
		ids := allocatedTo(t, p.pod, suiteVariable)
		if have := interfaceDevices(t, p); !slices.Equal(ordered(t, have), ids) {
			t.Errorf("pod %s was given %v, and its interfaces are %v: want these, in order", name, ids, have)
		} else if passed := passedByMultus(t, p); layout(t).Multus != "" && !slices.Equal(passed, have) {
			t.Errorf("Multus has passed %v for pod %s, and its interfaces are %v", passed, name, have)
		}
	}
	atHome(t, "ovn-worker", 1)
	atHome(t, "ovn-worker2", 1)
	two, three, one := pods["two"], pods["three"], pods["one"]
	for _, pair := range [][2]packets.Place{
		{two.with(two.Interfaces[0]), three.with(three.Interfaces[0])}, {two.with(two.Interfaces[0]), three.with(three.Interfaces[1])},
		{one.with(one.Interfaces[0]), three.with(three.Interfaces[1])}, {one.with(one.Interfaces[0]), two.with(two.Interfaces[0])},
		{three.with(three.Interfaces[2]), two.with(two.Interfaces[1])}, {three.with(three.Interfaces[0]), one.with(one.Interfaces[0])},
	} {
		for _, f := range bothFamilies {
			if err := inTime(20*time.Second, func() error { return answered(pair[0].In(f), pair[1].In(f)) }); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
	kubectl(t, "-n", namespace, "delete", "pod", "--all", "--wait=true", "--timeout=60s")
	atHome(t, "ovn-worker", 4)
	atHome(t, "ovn-worker2", 4)
}

// required has pods on a network that takes hardware or nothing: one whose device is soft,
// and one that requests none. Each is refused by an Event that names the definition, what
// was found, and what to do.
func required(t *testing.T) {
	apply(t, deviceDefinition("strict", suiteResource, `"topology":"layer2","subnets":"10.197.0.0/24","offload":"require"`)+
		devicePod("strict", "ovn-worker", "strict", suiteResource, 1)+attachedPod("none", "ovn-worker", "strict"))
	for name, found := range map[string]string{"strict": "device soft-suite-", "none": "requests none of it"} {
		says := ""
		err := inTime(60*time.Second, func() error {
			says = strings.ReplaceAll(eventsOf(t, namespace, "Pod", name), `\`, "") // Multus quotes what it passes on
			for _, part := range []string{"definition " + namespace + "/strict", `"offload": "require"`, found, `write "prefer"`} {
				if !strings.Contains(says, part) {
					return fmt.Errorf("no Event of pod %s says %q: %s", name, part, says)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if phase := kubectl(t, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}"); phase != "Pending" {
			t.Errorf("pod %s is %s, want Pending", name, phase)
		}
	}
	if ports := devicePorts(t, "ovn-worker"); len(ports) > 0 {
		t.Errorf("a pod was refused, and has %v", ports)
	}
	kubectl(t, "-n", namespace, "delete", "pod", "strict", "none", "--wait=true", "--timeout=60s")
}
