package networks_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// heard is a sink that remembers keys.
type heard []string

func (h *heard) Put(o intent.Object) { *h = append(*h, "put "+o.Key().String()) }
func (h *heard) Delete(k intent.Key) { *h = append(*h, "delete "+k.String()) }

// TestWithoutAnAPIServer has a node give addresses of a layer2 and a layer3 network by
// itself, have them still after a restart, and leave another node's block alone.
func TestWithoutAnAPIServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "blocks.json")
	var told heard
	start := func() *machine {
		t.Helper()
		l, err := networks.OpenLocalBlocks(path)
		if err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, newServer(), "one", func(c *networks.Config) {
			c.Blocks, c.Local, c.Alive = l, true, func(string, string) bool { return true }
		})
		told = nil
		l.Follow(both{m.networks, &told})
		for _, n := range []string{"flat", "blue"} {
			m.networks.Put(definition("shop", n))
		}
		flat := layer2("flat", "10.2.0.0/25")
		flat.PersistentIPs = true
		m.networks.Put(flat)
		m.networks.Put(layer3("blue", "10.1.0.0/16", 24, "shop/blue"))
		m.networks.Put(&intent.Block{Network: "flat", Slot: 0, Node: "two"}) // of the directory
		return m
	}
	m := start()
	g, err := m.give(t, "flat", "a")
	if err != nil || g.Addresses[0].String() != "10.2.0.64/25" || g.TunnelKey != 65 {
		t.Fatalf("%+v, %v", g, err)
	}
	if b, err := m.give(t, "blue", "a"); err != nil || b.Addresses[0].String() != "10.1.0.3/24" {
		t.Fatalf("%+v, %v", b, err)
	}
	if want := []string{"put Block/1/flat", "put Block/1/flat", "put Block/0/blue"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	m = start()
	w, _ := m.networks.Named("flat")
	kept, err := w.Addresses.Keep(wishOf("flat", "a"), g.Addresses)
	if err != nil || kept.TunnelKey != 65 {
		t.Errorf("after a restart: %+v, %v", kept, err)
	}
	if other, err := m.give(t, "flat", "b"); err != nil || other.TunnelKey != 66 {
		t.Errorf("%+v, %v", other, err)
	}
	_, err = m.give(t, "flat", "c", "10.2.0.64")
	if _, taken := errors.AsType[*alloc.TakenError](err); !taken {
		t.Error(err)
	}
	if _, err := m.ask(t, "d", "shop/flat", "mine"); err == nil || !strings.Contains(err.Error(), "needs an API server") {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := networks.OpenLocalBlocks(path); err == nil || !strings.Contains(err.Error(), "remove the file if") {
		t.Error(err)
	}
}

// both tells two.
type both struct{ a, b networks.Sink }

func (s both) Put(o intent.Object) { s.a.Put(o); s.b.Put(o) }
func (s both) Delete(k intent.Key) { s.a.Delete(k); s.b.Delete(k) }
