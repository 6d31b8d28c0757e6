package suite

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// claimed are a claim's addresses, and the pod that has it.
func claimed(t *testing.T, name string) (ips []netip.Prefix, pod string) {
	t.Helper()
	var c struct {
		Status struct {
			IPs      []netip.Prefix `json:"ips"`
			OwnerPod struct{ Name string }
		}
	}
	decode(t, kubectl(t, "-n", namespace, "get", "ipamclaim", name, "-o", "json"), &c)
	return c.Status.IPs, c.Status.OwnerPod.Name
}

// claimAsked is what a pod with the claim asks for.
const claimAsked = `[{"name":"vms","ipam-claim-reference":"vm"}]`

// TestMultinetClaim has a pod with an IPAMClaim on a layer2 network, and a third pod that
// talks to it: re-created on another node the pod has its address and MAC again, and is
// reached there. A second pod with the claim waits meanwhile, and an Event says for whom;
// when the first is gone it has the address. What nobody has the claim keeps, until it
// is deleted.
func TestMultinetClaim(t *testing.T) {
	fresh(t)
	apply(t, definition("vms", `"topology":"layer2","subnets":"10.186.0.0/24,fd00:186::/64","allowPersistentIPs":true`)+fmt.Sprintf(`---
apiVersion: k8s.cni.cncf.io/v1alpha1
kind: IPAMClaim
metadata: {name: vm, namespace: %s}
spec: {network: suite-vms, interface: net1}
`, namespace))
	apply(t, attachedPod("third", "ovn-control-plane", "vms")+attachedPod("vm", "ovn-worker", claimAsked))
	pods := attachedPods(t)
	third, _ := pods["third"].on("vms")
	was := pods["vm"].of("vms")
	if len(was) != 1 || len(was[0].IPs) != 2 {
		t.Fatalf("pod vm has %+v", pods["vm"].Interfaces)
	}
	gone := func(pod string) {
		kubectl(t, "-n", namespace, "delete", "pod", pod, "--wait=true", "--timeout=60s")
	}
	held := func(when, pod string) {
		t.Helper()
		if err := inTime(20*time.Second, func() error { return heldBy(t, was[0].IPs, pod) }); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	reached := func(when, pod string) {
		t.Helper()
		p := attachedPods(t)[pod]
		is := p.of("vms")
		if len(is) != 1 || !slices.Equal(is[0].IPs, was[0].IPs) || is[0].MAC != was[0].MAC {
			t.Errorf("%s: pod %s has %+v, want %+v", when, pod, is, was)
			return
		}
		to := p.with(is[0])
		for _, f := range bothFamilies {
			if err := inTime(20*time.Second, func() error { return answered(third.In(f), to.In(f)) }); err != nil {
				t.Errorf("%s, %s: %v", when, f, err)
			}
		}
		held(when, pod)
	}
	reached("on the first node", "vm")
	secondWaits(t)
	gone("second")

	gone("vm")
	held("between two pods", "")
	apply(t, attachedPod("vm", "ovn-worker2", claimAsked))
	reached("re-created on another node", "vm")

	apply(t, attachedPod("heir", "ovn-worker", claimAsked)) // waits for the pod that has the claim
	gone("vm")
	begin := time.Now()
	reached("left to a pod that waited", "heir")
	t.Logf("a pod that waited for the claim was reached %v after the other's end", time.Since(begin).Round(100*time.Millisecond))

	gone("heir")
	held("without a pod", "")
	kubectl(t, "-n", namespace, "delete", "ipamclaim", "vm", "--wait=true", "--timeout=60s")
	err := inTime(20*time.Second, func() error {
		for _, e := range entriesOf(t, "suite-vms") {
			if e.Claim != "" {
				return fmt.Errorf("the claim is deleted, and an AddressBlock has %+v", e)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// secondWaits makes a second pod with the claim: it does not start, and an Event of it
// says which pod has the claim.
func secondWaits(t *testing.T) {
	t.Helper()
	apply(t, attachedPod("second", "ovn-worker2", claimAsked))
	reason := fmt.Sprintf("is in use by pod %s/vm on node ovn-worker", namespace)
	err := inTime(60*time.Second, func() error {
		if list := kubectl(t, "-n", namespace, "get", "events", "--field-selector", "involvedObject.name=second", "-o", "jsonpath={.items[*].message}"); !strings.Contains(list, reason) {
			return fmt.Errorf("no Event of pod second says %q: %s", reason, list)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if phase := kubectl(t, "-n", namespace, "get", "pod", "second", "-o", "jsonpath={.status.phase}"); phase != "Pending" {
		t.Errorf("the second pod with the claim is %s, want Pending", phase)
	}
}

// heldBy wants the claim to have these addresses, and to name this pod; "": none.
func heldBy(t *testing.T, want []netip.Addr, pod string) error {
	t.Helper()
	ips, owner := claimed(t, "vm")
	var have []netip.Addr
	for _, p := range ips {
		have = append(have, p.Addr())
	}
	if !slices.Equal(have, want) || owner != pod {
		text, _ := json.Marshal(ips)
		return fmt.Errorf("the claim has %s of pod %q, want %v of pod %q", text, owner, want, pod)
	}
	return nil
}
