package networks_test

import (
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestADeletedBlockIsLeasedAnew has a layer3 network's block deleted under a pod that
// has an address of it, by hand: the block is made again as it was. And it has a network
// go with its block, and one of its name come: the next pod leases a block of it.
func TestADeletedBlockIsLeasedAnew(t *testing.T) {
	s := newServer()
	m := newMachine(t, s, "one", nil)
	m.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue-net"))
	m.recover(t)
	web, db := pod("web", "blue-net"), pod("db", "blue-net")
	m.pods.Set(web)
	m.must(t, secondary(wire.Add, web, "net1", "blue", "shop/blue-net"))
	deleted := func() {
		s.mu.Lock()
		b := s.blocks["blue.0"]
		delete(s.blocks, "blue.0")
		s.mu.Unlock()
		m.networks.Delete(b.Key())
		m.networks.Clean(t.Context())
	}
	deleted()
	if b := s.blocks["blue.0"]; b == nil || b.Node != "one" || b.Subnets[0].String() != "10.1.0.0/24" {
		t.Fatalf("a block in use was deleted, and is %+v", b)
	}
	m.must(t, secondary(wire.Del, web, "net1", "blue", "shop/blue-net"))
	m.pods.Delete("shop", "web", web.UID)
	if err := m.Forget(t.Context(), web.UID); err != nil {
		t.Fatal(err)
	}
	m.networks.Delete(intent.Key{Kind: intent.KindNetwork, Name: "blue"})
	deleted()
	if b := s.blocks["blue.0"]; b != nil {
		t.Fatalf("a block without use was deleted, and made again: %+v", b)
	}
	m.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue-net"))
	m.pods.Set(db)
	if got := m.must(t, secondary(wire.Add, db, "net1", "blue", "shop/blue-net")); !strings.Contains(got, "10.1.0.") {
		t.Errorf("the next pod has %s", got)
	}
	if s.blocks["blue.0"] == nil {
		t.Error("the next pod's block is not leased")
	}
}
