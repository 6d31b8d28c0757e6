package suite

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// TestDevicesEdited raises and lowers the number of a pool's devices while pods have some,
// and deletes the pool under them: what a pod has stays, with its packets, until the pod
// goes; what is too many goes then.
func TestDevicesEdited(t *testing.T) {
	fresh(t)
	host := "ovn-worker"
	offering(t, 2, host)
	apply(t, deviceNetworks(suiteResource))
	apply(t, devicePod("a", host, "fast", suiteResource, 1)+devicePod("b", host, "fast", suiteResource, 1))
	pods := attachedPods(t)
	a, b := pods["a"].with(pods["a"].Interfaces[0]), pods["b"].with(pods["b"].Interfaces[0])
	if err := inTime(20*time.Second, func() error { return answered(a.In(packets.IPv4), b.In(packets.IPv4)) }); err != nil {
		t.Fatal(err)
	}
	unlost(t, a, b, func() {
		apply(t, softPool(4, host))
		offered(t, host, 4)
		apply(t, softPool(1, host))
		waits(t, host, 1)
		apply(t, softPool(2, host))
		offered(t, host, 2)
		kubectl(t, "delete", "devicepool", "suite", "--wait=true", "--timeout=60s")
		err := inTime(60*time.Second, func() error {
			if n := allocatable(t, host, suiteResource); n != "" && n != "0" {
				return fmt.Errorf("the pool is deleted, and the kubelet has %s devices", n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if ports := devicePorts(t, host); len(ports) != 2 {
			t.Errorf("the pool is deleted, pods run, and their ports are %v, want two", ports)
		}
		apply(t, softPool(2, host))
		offered(t, host, 2)
	})
	for name, p := range attachedPods(t) {
		if have := interfaceDevices(t, p); len(have) != 1 || have[0] == "" || have[0] != interfaceDevices(t, pods[name])[0] {
			t.Errorf("pod %s has %v, was given %v", name, have, allocatedTo(t, p.pod, suiteVariable))
		}
	}
	apply(t, softPool(1, host))
	kubectl(t, "-n", namespace, "delete", "pod", "--all", "--wait=true", "--timeout=60s")
	offered(t, host, 1)
	err := inTime(60*time.Second, func() error {
		if links := softLinks(t, host); len(links) != 2 {
			return fmt.Errorf("ends of devices: %v, want one pair", links)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// waits wants a pool to say that it waits for pods, and to offer no more than it may.
func waits(t *testing.T, host string, most int) {
	t.Helper()
	err := inTime(60*time.Second, func() error {
		if s := poolOn(t, host); s.Ready || s.Reason != "Waiting" || !strings.Contains(s.Message, namespace+"/") {
			return fmt.Errorf("%s says %+v; want that it waits, and for which pods", host, s)
		}
		if n := allocatable(t, host, suiteResource); n > fmt.Sprint(most) {
			return fmt.Errorf("the kubelet has %s devices, want at most %d", n, most)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
