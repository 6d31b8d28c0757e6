package networks_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestNoSharedAddressIsTwoPods has two nodes give and free on one small network, with
// either's agent killed before or after any write of a block: no place is two
// interfaces', of one pod or of two. Pods that name an IPAMClaim have its address,
// one at a time and on any node, and nobody else has it.
func TestNoSharedAddressIsTwoPods(t *testing.T) {
	taken := 0
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			g := newGame(t, seed)
			for i := range 200 {
				g.step(i)
			}
			taken += g.taken
		})
	}
	if taken < 200 {
		t.Errorf("claims were taken up %d times only", taken)
	}
}

// claimPlaces are the places that IPAMClaims hold.
func claimPlaces() map[string]int { return map[string]int{"c3": 3, "c9": 9} }

// game is a network with fourteen addresses, what two nodes have given of it, and what
// must not be given.
type game struct {
	t        *testing.T
	seed     uint64
	r        *rand.Rand
	s        *server
	net      *intent.Network
	machines map[string]*machine
	alive    map[string]string        // pod → node
	held     map[string]netip.Addr    // by pod and key
	ended    map[netip.Addr]time.Time // when an address was freed
	taken    int                      // how often a claim's address was
}

func newGame(t *testing.T, seed uint64) *game {
	g := &game{t: t, seed: seed, r: rand.New(rand.NewPCG(seed, 2)), s: newServer(), net: layer2("flat", "10.2.0.0/28"),
		machines: map[string]*machine{}, alive: map[string]string{}, held: map[string]netip.Addr{}, ended: map[netip.Addr]time.Time{}}
	g.net.PersistentIPs = true
	g.s.hold("flat", claimPlaces())
	g.boot("one")
	g.boot("two")
	return g
}

// boot starts a node's agent anew.
func (g *game) boot(node string) {
	m := newMachine(g.t, g.s, node, func(c *networks.Config) {
		c.Blocks = &mortal{server: g.s, r: g.r}
		c.Alive = func(pod, _ string) bool { return g.alive[strings.TrimPrefix(pod, "shop/")] == node }
	})
	m.accept(g.net)
	for claim := range claimPlaces() {
		m.networks.Put(&intent.Claim{Namespace: "shop", Name: claim, Network: "flat"})
	}
	g.machines[node] = m
}

// step does one thing on one of the nodes, which may be killed in it.
func (g *game) step(i int) {
	node := []string{"one", "two"}[g.r.IntN(2)]
	defer func() {
		if p := recover(); p != nil {
			if p != errMortal { //nolint:errorlint // the panic's own value
				panic(p)
			}
			g.boot(node)
		}
	}()
	switch g.r.IntN(5) {
	case 0, 1:
		g.begin(fmt.Sprint("p", i), node)
	case 2:
		g.end(node)
	case 3:
		g.machines[node].networks.Clean(g.t.Context())
	case 4:
		<-time.After(time.Duration(g.r.IntN(20)) * time.Second)
		if g.r.IntN(4) == 0 {
			g.boot(node)
		}
	}
}

func keys() []string { return []string{"shop/flat", "shop/flat/1"} }

// begin has a pod ask for an interface or two, the first perhaps by a claim.
func (g *game) begin(pod, node string) {
	g.alive[pod] = node
	claim := []string{"", "", "c3", "c9"}[g.r.IntN(4)]
	for _, key := range keys()[:1+g.r.IntN(2)] {
		grant, err := g.machines[node].ask(g.t, pod, key, claim)
		if err != nil {
			continue
		}
		g.check(pod+" "+key, claim, grant.Addresses[0].Addr())
		claim = "" // is one interface's
	}
}

func (g *game) check(who, claim string, a netip.Addr) {
	for other, has := range g.held {
		if has == a {
			g.t.Fatalf("seed %d: %s is %s's and %s's", g.seed, a, other, who)
		}
	}
	if of := map[byte]string{3: "c3", 9: "c9"}[a.As4()[3]]; of != claim {
		g.t.Fatalf("seed %d: %s, which names claim %q, has %s", g.seed, who, claim, a)
	}
	if since, ok := g.ended[a]; ok && claim == "" && time.Since(since) < 50*time.Second {
		g.t.Fatalf("seed %d: %s rested %s", g.seed, a, time.Since(since))
	}
	g.held[who] = a
	if claim != "" {
		g.taken++
	}
}

// end takes a node's first pod away.
func (g *game) end(node string) {
	for _, pod := range slices.Sorted(maps.Keys(g.alive)) {
		if g.alive[pod] != node {
			continue
		}
		delete(g.alive, pod)
		for _, key := range keys() {
			if a, ok := g.held[pod+" "+key]; ok {
				g.ended[a] = time.Now()
				delete(g.held, pod+" "+key)
			}
			if w, ok := g.machines[node].networks.Named("flat"); ok {
				w.Addresses.Free("uid-" + pod + " " + key)
			}
		}
		return
	}
}

var errMortal = errors.New("killed")

// mortal is a connection whose process is killed now and then, before or after what it
// asks for is done.
type mortal struct {
	*server
	r *rand.Rand
}

func (m *mortal) die() {
	if m.r.IntN(12) == 0 {
		panic(errMortal)
	}
}

func (m *mortal) Make(ctx context.Context, b *intent.Block) error {
	m.die()
	err := m.server.Make(ctx, b)
	m.die()
	return err
}

func (m *mortal) Change(ctx context.Context, network string, slot int, change func(*intent.Block) error) error {
	m.die()
	err := m.server.Change(ctx, network, slot, change)
	m.die()
	return err
}
