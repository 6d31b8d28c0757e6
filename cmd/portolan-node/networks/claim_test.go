package networks_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestClaimOutlivesItsPods has a claim's address follow from a pod to one on another
// node, one at a time, and each mistake told.
func TestClaimOutlivesItsPods(t *testing.T) {
	s := newServer()
	net := layer2("flat", "10.2.0.0/28")
	net.PersistentIPs = true
	one, two := onNetwork(t, s, "one", net), onNetwork(t, s, "two", net)
	asks := func(m *machine, pod, key, claim, words string, waits bool) {
		t.Helper()
		_, err := m.ask(t, pod, key, claim)
		if _, pending := errors.AsType[*cni.PendingError](err); err == nil || !strings.Contains(err.Error(), words) || pending != waits {
			t.Errorf("%v, want %q, waiting %v", err, words, waits)
		}
	}
	asks(one, "a", "shop/flat", "mine", "IPAMClaim shop/mine does not exist: create it", true)
	for _, m := range []*machine{one, two} {
		m.networks.Put(&intent.Claim{Namespace: "shop", Name: "mine", Network: "flat"})
		m.networks.Put(&intent.Claim{Namespace: "shop", Name: "theirs", Network: "other"})
	}
	asks(one, "a", "shop/flat", "mine", "has no addresses of network flat yet", true)
	asks(one, "a", "shop/flat", "theirs", "is of network other, and definition shop/flat of network flat", false)
	tell := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, b := range s.blocks {
			one.networks.Put(b)
			two.networks.Put(b)
		}
	}
	s.hold("flat", map[string]int{"mine": 5})
	tell()
	has := func(m *machine, pod string) {
		t.Helper()
		g, err := m.ask(t, pod, "shop/flat", "mine")
		if err != nil || g.Addresses[0].String() != "10.2.0.5/28" || g.TunnelKey != 6 {
			t.Fatalf("%+v, %v", g, err)
		}
	}
	has(one, "a")
	has(one, "a") // asked again
	asks(one, "a", "shop/flat/1", "mine", "a claim is one interface's", false)
	if _, err := two.ask(t, "b", "shop/flat", "mine"); err == nil || !strings.Contains(err.Error(), "held by pod shop/a by IPAMClaim shop/mine") {
		t.Errorf("node two, which has not heard of pod a: %v", err)
	}
	tell()
	asks(two, "b", "shop/flat", "mine", "is in use by pod shop/a on node one: delete that pod", true)
	w, _ := one.networks.Named("flat")
	if !w.Addresses.Free("uid-a shop/flat") {
		t.Error("not freed")
	}
	one.networks.Clean(t.Context())
	tell()
	has(two, "b") // at once, for nobody else is given it
	if e := s.blocks["flat.0"].Entries; len(e) != 1 || e[0].Claim != "shop/mine" || e[0].Pod != "shop/b" || e[0].Node != "two" {
		t.Errorf("%+v", e)
	}
	net.PersistentIPs = false
	one.networks.Put(net)
	asks(one, "c", "shop/flat", "mine", "set allowPersistentIPs in the definition", false)
}
