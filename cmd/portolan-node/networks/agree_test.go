package networks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestAnEditOfANetworkThatNobodyUsesIsWaitedFor applies an edit and a pod at once: the pod
// is not given what the network is about to have no more, and starts when the edit is
// taken over. While another node uses the network the edit is without effect.
func TestAnEditOfANetworkThatNobodyUsesIsWaitedFor(t *testing.T) {
	for _, spec := range []func(subnet string) *intent.Network{
		func(subnet string) *intent.Network { return layer3("blue", subnet, 24, "shop/blue") },
		func(subnet string) *intent.Network { return layer2("blue", subnet) },
	} {
		before, after := spec("10.1.0.0/16"), spec("10.2.0.0/16")
		s := newServer()
		m := newMachine(t, s, "one", nil)
		m.accept(after)
		m.networks.Put(before) // the definition says the other already
		m.recover(t)
		web := pod("web", "blue")
		m.pods.Set(web)
		if err := m.Prepare(t.Context(), web); err != nil || len(s.blocks) > 0 {
			t.Errorf("%s: a pod that is bound: %v, blocks %v", before.Topology, err, s.blocks)
		}
		_, err := m.networks.Attach(cni.Wish{Pod: web, Key: "shop/blue"})
		if pending, ok := errors.AsType[*cni.PendingError](err); !ok || !strings.Contains(pending.Reason, "NetworkAttachmentDefinition shop/blue was edited: subnets is 10.2.0.0/16") ||
			!strings.Contains(pending.Reason, "in network blue, which nobody uses: waiting for portolan-manager") {
			t.Errorf("%s: %v", before.Topology, err)
		}
		done := make(chan string)
		go func() {
			reply := m.Handle(t.Context(), native(wire.Add, web))
			done <- fmt.Sprint(reply.Error)
		}()
		m.networks.Put(after)
		if got := <-done; got != "<nil>" || !strings.Contains(m.interfaces(web), "shop/blue net1 [10.2.0.") {
			t.Errorf("%s: after the edit is taken over: %s, %s", before.Topology, got, m.interfaces(web))
		}

		s = newServer()
		s.blocks["blue.1"] = &intent.Block{Network: "blue", Slot: 1, Node: "two"}
		m = newMachine(t, s, "one", nil)
		m.accept(after)
		m.networks.Put(before)
		m.recover(t)
		m.pods.Set(web)
		m.must(t, native(wire.Add, web))
		if got := m.interfaces(web); !strings.Contains(got, "shop/blue net1 [10.1.0.") {
			t.Errorf("%s: with another node on the network: %s", before.Topology, got)
		}
	}
}

// TestAnEditTakenOverAtTheFirstLease has the network become another at the moment in which
// the node leases a part of what it was: pods are refused by name, and when the first
// is gone, so is the part.
func TestAnEditTakenOverAtTheFirstLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		m := newMachine(t, s, "one", func(c *networks.Config) { c.Alive = func(pod, _ string) bool { return pod != "shop/a" } })
		m.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue"))
		m.accept(layer2("flat", "10.3.0.0/24"))
		m.recover(t)
		a, b := pod("a", "blue,flat"), pod("b", "blue")
		m.pods.Set(a)
		m.must(t, native(wire.Add, a))
		m.accept(layer3("blue", "10.2.0.0/16", 24, "shop/blue"))
		m.accept(layer2("flat", "10.4.0.0/24"))
		m.pods.Set(b)
		m.refused(t, native(wire.Add, b), "node one has leased [10.1.0.0/24] of network blue, which has 10.2.0.0/16 now: delete the pods that are on this network on the node")
		if _, err := m.give(t, "flat", "a"); err == nil || !strings.Contains(err.Error(), "the interface was given [10.3.0.1/24] of network flat, which has 10.4.0.0/24 now: delete the pod") {
			t.Error(err)
		}
		m.must(t, native(wire.Del, a))
		m.pods.Delete("shop", "a", a.UID)
		if err := m.Forget(t.Context(), a.UID); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			<-time.After(5 * time.Second)
			m.networks.Clean(t.Context())
		}
		m.must(t, native(wire.Add, b))
		if got := m.interfaces(b); !strings.Contains(got, "shop/blue net1 [10.2.0.3/24]") {
			t.Errorf("the next pod has %s", got)
		}
	})
}
