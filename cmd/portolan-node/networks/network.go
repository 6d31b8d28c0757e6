package networks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// network is what is known and given of one network. It implements cni.Addresses.
type network struct {
	name string
	all  *Networks
	turn chan struct{} // holds a token while nobody leases a block

	mu     sync.Mutex            // guards what follows; taken after Networks.mu
	spec   *intent.Network       // nil: there is none, or none any more
	blocks map[int]*intent.Block // by slot
	pool   *alloc.Pool           // of a layer3 network: the node's subnet; nil: not leased yet
	slot   int                   // of pool
	lost   *intent.Block         // of pool, deleted by somebody while pods have its addresses: to be made again

	queue   []*request                   // who waits for a place
	given   map[string]intent.BlockEntry // by owner: what interfaces here have
	leaving map[string]bool              // owners whose entries are to rest
	resting map[int]time.Time            // by tunnel key: since when an entry holds its place for nobody
	idle    map[int]time.Time            // by slot: since when a block here has no use
}

const blockSize = v1alpha1.BlockSize

func newNetwork(name string, all *Networks) *network {
	w := &network{name: name, all: all, turn: make(chan struct{}, 1), blocks: map[int]*intent.Block{},
		given: map[string]intent.BlockEntry{}, leaving: map[string]bool{}, resting: map[int]time.Time{}, idle: map[int]time.Time{}}
	w.turn <- struct{}{}
	return w
}

func blockOf(k intent.Key) (slot int, network string, ok bool) {
	text, network, ok := strings.Cut(k.Name, "/")
	slot, err := strconv.Atoi(text)
	return slot, network, ok && err == nil
}

func (w *network) putSpec(s *intent.Network) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spec = s
}

func (w *network) specOf() *intent.Network {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.spec
}

func (w *network) putBlock(b *intent.Block) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocks[b.Slot] = b
}

func (w *network) deleteBlock(slot int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.blocks[slot]
	delete(w.blocks, slot)
	if w.pool == nil || w.slot != slot || b == nil {
		return
	}
	if len(w.pool.Owners()) == 0 {
		w.pool = nil // with its network: the next pod leases anew
		return
	}
	w.lost = b
	select {
	case w.all.freed <- struct{}{}:
	default:
	}
}

// Give implements cni.Addresses.
func (w *network) Give(ctx context.Context, wish cni.Wish) (cni.Grant, error) {
	spec := w.specOf()
	if spec == nil {
		return cni.Grant{}, fmt.Errorf("network %s does not exist any more", w.name)
	}
	if spec.Topology != intent.Layer3 {
		w.mu.Lock()
		delete(w.leaving, wish.Owner())
		w.mu.Unlock()
		return w.share(ctx, spec, wish)
	}
	for {
		pool, err := w.subnet(ctx, spec)
		if err != nil {
			return cni.Grant{}, err
		}
		w.mu.Lock() // so that the subnet is not given back meanwhile
		if w.pool == pool {
			defer w.mu.Unlock()
			if err := w.moved(); err != nil {
				return cni.Grant{}, err
			}
			return w.routed(pool, spec).Give(ctx, wish)
		}
		w.mu.Unlock()
	}
}

// Keep implements cni.Addresses.
func (w *network) Keep(wish cni.Wish, given []netip.Prefix) (cni.Grant, error) {
	spec := w.specOf()
	if spec == nil {
		return cni.Grant{}, fmt.Errorf("network %s does not exist any more", w.name)
	}
	if spec.Topology != intent.Layer3 {
		e, ok := w.find(wish)
		if !ok || !slices.Equal(e.Addresses, given) {
			return cni.Grant{}, fmt.Errorf("network %s: no block has %s at %v", w.name, wish.Owner(), given)
		}
		return w.granted(spec, wish, e), nil
	}
	pool := w.leased()
	if pool == nil {
		return cni.Grant{}, fmt.Errorf("network %s: node %s has no block of it", w.name, w.all.cfg.Node)
	}
	return w.routed(pool, spec).Keep(wish, given)
}

// Free implements cni.Addresses.
func (w *network) Free(owner string) bool {
	if pool := w.leased(); pool != nil {
		return pool.Release(owner)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, had := w.given[owner]; !had && !slices.Contains(w.recorded(), owner) {
		return false
	}
	delete(w.given, owner)
	w.leaving[owner] = true
	select {
	case w.all.freed <- struct{}{}:
	default:
	}
	return true
}

// Owners implements cni.Addresses.
func (w *network) Owners() []string {
	if pool := w.leased(); pool != nil {
		return pool.Owners()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	owners := w.recorded()
	for owner := range w.given {
		if !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	slices.Sort(owners)
	return owners
}

// recorded are the owners of this node's entries that do not leave; w.mu is held.
func (w *network) recorded() []string {
	var out []string
	for _, b := range w.blocks {
		for _, e := range b.Entries {
			owner := e.UID + " " + e.Network
			if e.Pod != "" && e.Node == w.all.cfg.Node && !w.leaving[owner] {
				out = append(out, owner)
			}
		}
	}
	return out
}

// routed gives addresses of the node's subnet, and the way to the network's others.
func (w *network) routed(pool *alloc.Pool, spec *intent.Network) cni.PoolAddresses {
	routes := make([]netip.Prefix, 0, len(spec.Subnets))
	for _, s := range spec.Subnets {
		routes = append(routes, s.Prefix)
	}
	return cni.PoolAddresses{Pool: pool, Routes: routes}
}

// leased is the pool of the node's subnet, nil while it has none.
func (w *network) leased() *alloc.Pool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != nil {
		return w.pool
	}
	for _, slot := range slices.Sorted(maps.Keys(w.blocks)) {
		b := w.blocks[slot]
		if b.Node != w.all.cfg.Node || len(b.Subnets) == 0 {
			continue
		}
		if pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: b.Subnets, Now: w.all.cfg.Now}); err == nil {
			w.pool, w.slot = pool, slot
			return pool
		}
	}
	return nil
}

// subnet is the pool of the node's subnet, which is leased by the first that asks.
func (w *network) subnet(ctx context.Context, spec *intent.Network) (*alloc.Pool, error) {
	if pool := w.leased(); pool != nil {
		return pool, nil
	}
	if len(spec.Subnets) == 0 {
		return nil, fmt.Errorf("network %s has no subnets: layer3 needs some", w.name)
	}
	select {
	case <-w.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { w.turn <- struct{}{} }()
	if pool := w.leased(); pool != nil {
		return pool, nil
	}
	for slot := range w.slots(spec) {
		b := &intent.Block{Network: w.name, Slot: slot, Node: w.all.cfg.Node, Subnets: subnetsOf(spec, slot)}
		err := w.all.cfg.Blocks.Make(ctx, b)
		if errors.Is(err, kube.ErrBlockTaken) {
			continue // its object is on the way to us
		}
		if err != nil {
			return nil, fmt.Errorf("leasing %s of network %s for node %s: %w", b.Subnets, w.name, b.Node, err)
		}
		w.putBlock(b)
		return w.leased(), nil
	}
	return nil, &alloc.ExhaustedError{What: "node subnet", From: fmt.Sprintf("network %s (%s)", w.name, prefixes(spec)), Size: uint64(slotCount(spec)), Used: slotCount(spec),
		Advice: "give the network a larger subnet, or nodes smaller ones (subnets: CIDR/LENGTH)"}
}

// lastNodeSlot is the highest node id, which is a slot where a network has that many.
const lastNodeSlot = alloc.LastNodeID

// slots are those to try: the node's id where the network has room for every id, else
// the free ones from the lowest.
func (w *network) slots(spec *intent.Network) func(func(int) bool) {
	count, first := slotCount(spec), 0
	w.all.mu.Lock()
	if self := w.all.self; self != nil && count > lastNodeSlot {
		first = self.ID
	}
	w.all.mu.Unlock()
	return func(yield func(int) bool) {
		for slot := first; slot < count; slot++ {
			w.mu.Lock()
			taken := w.blocks[slot] != nil
			w.mu.Unlock()
			if !taken && !yield(slot) {
				return
			}
		}
	}
}

// slotCount is how many nodes' subnets a layer3 network has.
func slotCount(spec *intent.Network) int {
	count := 0
	for i, s := range spec.Subnets {
		n := 1 << min(s.HostPrefix-s.Prefix.Bits(), 20)
		if i == 0 || n < count {
			count = n
		}
	}
	return count
}

// subnetsOf are a slot's subnets, one a family.
func subnetsOf(spec *intent.Network, slot int) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(spec.Subnets))
	for _, s := range spec.Subnets {
		out = append(out, alloc.Nth(s.Prefix, s.HostPrefix, slot))
	}
	return out
}

func prefixes(spec *intent.Network) string {
	list := make([]string, len(spec.Subnets))
	for i, s := range spec.Subnets {
		list[i] = s.Prefix.String()
	}
	return strings.Join(list, ", ")
}
