package cni_test

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// podAddr is the first that the rig's pool gives.
var podAddr = netip.MustParseAddr("10.244.1.3")

func newTrackedRig(t *testing.T) (*rig, *cnitest.Connections) {
	t.Helper()
	table := &cnitest.Connections{}
	r := newRig(t, func(c *cni.Config) { c.Connections = table })
	r.pods.Set(web())
	r.must(t, call(wire.Add, "one"))
	table.Talk(podAddr)
	return r, table
}

// TestAddressIsFreeWithoutConnections: DEL leaves a pod its address and its
// connections, the pod's end takes both, in either order.
func TestAddressIsFreeWithoutConnections(t *testing.T) {
	t.Run("DEL first", func(t *testing.T) {
		r, table := newTrackedRig(t)
		r.must(t, call(wire.Del, "one"))
		if !table.Has(podAddr) {
			t.Error("DEL flushed the connections of a pod that keeps its address")
		}
		if err := r.Forget(t.Context(), "uid-web"); err != nil {
			t.Fatal(err)
		}
		if table.Has(podAddr) || r.pool.Lookup("uid-web") != nil {
			t.Error("after the pod's end: its connections or its address are still there")
		}
	})
	t.Run("the pod's end first", func(t *testing.T) {
		r, table := newTrackedRig(t)
		if err := r.Forget(t.Context(), "uid-web"); err != nil {
			t.Fatal(err)
		}
		if !table.Has(podAddr) {
			t.Error("flushed while the sandbox still lives")
		}
		r.must(t, call(wire.Del, "one"))
		if table.Has(podAddr) || r.pool.Lookup("uid-web") != nil {
			t.Error("after DEL: its connections or its address are still there")
		}
	})
}

// TestAddressWaitsForTheFlush: while connections cannot be flushed, DEL succeeds,
// but the address is not free; it is tried again.
func TestAddressWaitsForTheFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, table := newTrackedRig(t)
		go r.Run(t.Context())
		if err := r.Forget(t.Context(), "uid-web"); err != nil {
			t.Fatal(err)
		}
		table.Fail(errors.New("vswitchd does not answer"))
		r.must(t, call(wire.Del, "one"))
		<-time.After(10 * time.Second)
		if r.pool.Lookup("uid-web") == nil {
			t.Error("an address with connections is free")
		}
		table.Fail(nil)
		<-time.After(time.Minute)
		if table.Has(podAddr) || r.pool.Lookup("uid-web") != nil {
			t.Error("a minute after the trouble's end the address is not free")
		}
	})
}

// TestRecoverSweepsConnections: what was freed while no agent ran is flushed at
// the next start; pods that live, the router and the node keep theirs.
func TestRecoverSweepsConnections(t *testing.T) {
	r, table := newTrackedRig(t)
	gone, elsewhere := netip.MustParseAddr("10.244.1.9"), netip.MustParseAddr("10.244.2.9")
	kept := []netip.Addr{podAddr, netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("10.244.1.2"), elsewhere}
	for _, a := range append(kept, gone) {
		table.Talk(a)
	}
	r.start(t)
	if table.Has(gone) {
		t.Errorf("%s has no pod and its connections are remembered", gone)
	}
	for _, a := range kept {
		if !table.Has(a) {
			t.Errorf("the connections of %s are flushed", a)
		}
	}
	table.Fail(errors.New("vswitchd does not answer"))
	r.start(t)
}
