package suite

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// networksOf annotates a running pod.
func networksOf(t *testing.T, pod, networks string) {
	t.Helper()
	kubectl(t, "-n", namespace, "annotate", "--overwrite", "pod", pod, "k8s.v1.cni.cncf.io/networks="+networks)
}

// told waits until a pod's network-status has such interfaces beside eth0, in order.
func told(t *testing.T, pod, want string) netPod {
	t.Helper()
	var p netPod
	err := inTime(30*time.Second, func() error {
		p = attachedPods(t)[pod]
		var names []string
		for _, s := range p.Interfaces {
			names = append(names, s.Interface)
		}
		if got := strings.Join(names, " "); got != want {
			return fmt.Errorf("network-status of %s has %q beside eth0, want %q", pod, got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMultinetLive attaches networks to a running pod and takes them away by its
// annotation: packets pass on the new interface and end with it, what is not
// changed is not touched, and what cannot be done is an Event.
func TestMultinetLive(t *testing.T) {
	fresh(t)
	apply(t, definition("live2", `"topology":"layer2","subnets":"10.181.0.0/24"`)+
		definition("live3", `"topology":"layer3","subnets":"10.182.0.0/16/24"`))
	apply(t, attachedPod("a", "ovn-worker", "live2@data")+attachedPod("b", "ovn-worker2", "live2,live3"))
	pods := attachedPods(t)
	b := pods["b"]
	first := told(t, "a", "data")
	on3, ok := b.on("live3")
	if !ok {
		t.Fatalf("pod b is not on live3: %+v", b.Interfaces)
	}

	networksOf(t, "a", "live2@data,live3@more")
	a := told(t, "a", "data more")
	if kept, was := a.of("live2"), first.of("live2"); len(kept) != 1 || kept[0].MAC != was[0].MAC || kept[0].IPs[0] != was[0].IPs[0] {
		t.Errorf("what was not changed is another: %+v, %+v", kept, was)
	}
	from, ok := a.on("live3")
	if !ok {
		t.Fatalf("pod a is not on live3: %+v", a.Interfaces)
	}
	if err := inTime(20*time.Second, func() error { return answered(from, on3) }); err != nil {
		t.Error(err)
	}

	for _, c := range []struct{ networks, event string }{
		{"live2@data,live3@more,live3@more", "the interface name more is asked for"},
		{"live2@data,live3@more,absent@none", "absent"},
	} {
		networksOf(t, "a", c.networks)
		err := inTime(60*time.Second, func() error {
			if list := kubectl(t, "-n", namespace, "get", "events", "--field-selector", "involvedObject.name=a", "-o", "jsonpath={.items[*].message}"); !strings.Contains(list, c.event) {
				return fmt.Errorf("no Event of pod a says %q: %s", c.event, list)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		told(t, "a", "data more")
		if err := answered(from, on3); err != nil {
			t.Errorf("%s: what ran is disturbed: %v", c.networks, err)
		}
	}
	apply(t, definition("absent", `"topology":"layer2","subnets":"10.183.0.0/24"`))
	told(t, "a", "data more none") // it waited for that

	networksOf(t, "a", "live2@data")
	a = told(t, "a", "data")
	if _, err := packets.Ping(a.Place, on3.Addr, 56, false, time.Second); err == nil {
		t.Error("pod a still has answers on live3")
	}
	on2, _ := b.on("live2")
	from2, _ := a.on("live2")
	err := inTime(20*time.Second, func() error { return answered(from2, on2) })
	if err = errors.Join(err, answered(a.Place, b.Place)); err != nil {
		t.Errorf("what stays does not: %v", err)
	}
}
