package networks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/places"
)

// request is an interface that waits for its place on a shared network. A place is a
// number from 0: the n-th address of each subnet, and tunnel key n+1. The entry at
// place n of block n/64 is the one holder of all of them.
type request struct {
	wish  cni.Wish
	place int // that was asked for; -1: any
	entry intent.BlockEntry
	err   error
	done  bool
}

// share gives an interface a place. Requests that come while one is written are
// written together after it.
func (w *network) share(ctx context.Context, spec *intent.Network, wish cni.Wish) (cni.Grant, error) {
	place, err := placeAsked(spec, wish)
	if err != nil {
		return cni.Grant{}, err
	}
	if e, ok := w.find(wish); ok {
		if place >= 0 && e.Key != place+1 {
			return cni.Grant{}, fmt.Errorf("the addresses %v are asked for, and the interface has %v already: delete the pod to change them", wish.IPs, e.Addresses)
		}
		if e, err = w.retunnel(ctx, spec, wish, e); err != nil {
			return cni.Grant{}, err
		}
		return w.granted(spec, wish, e), w.movedAway(e)
	}
	if wish.Claim != "" {
		if place, err = w.placeHeld(wish); err != nil {
			return cni.Grant{}, err
		}
	}
	r := &request{wish: wish, place: place}
	w.mu.Lock()
	w.queue = append(w.queue, r)
	w.mu.Unlock()
	select {
	case <-w.turn:
	case <-ctx.Done():
		return cni.Grant{}, context.Cause(ctx) // it is given all the same, and the pod's
	}
	defer func() { w.turn <- struct{}{} }()
	w.serve(context.WithoutCancel(ctx), spec)
	if r.err != nil {
		return cni.Grant{}, r.err
	}
	return w.granted(spec, wish, r.entry), w.movedAway(r.entry)
}

// serve gives everybody in the queue a place. The caller has the turn.
func (w *network) serve(ctx context.Context, spec *intent.Network) {
	w.mu.Lock()
	list := w.queue
	w.queue = nil
	w.mu.Unlock()
	for len(list) > 0 {
		bySlot := map[int][]*request{}
		taken := map[int]bool{} // in this round
		for _, r := range list {
			place, err := w.choose(ctx, spec, r, taken)
			if err != nil {
				r.err, r.done = err, true
				continue
			}
			taken[place] = true
			r.entry = w.entry(spec, r.wish, place)
			bySlot[place/v1alpha1.BlockSize] = append(bySlot[place/v1alpha1.BlockSize], r)
		}
		for _, slot := range slices.Sorted(maps.Keys(bySlot)) {
			w.write(ctx, slot, bySlot[slot])
		}
		list = slices.DeleteFunc(list, func(r *request) bool { return r.done })
	}
}

// write puts entries into a block. What was free and is not any more is left to
// another round; what was asked for has then failed.
func (w *network) write(ctx context.Context, slot int, list []*request) {
	var after intent.Block
	change := func(b *intent.Block) error {
		for _, r := range list {
			r.err, r.done = nil, true
			i := slices.IndexFunc(b.Entries, func(e intent.BlockEntry) bool { return e.Key == r.entry.Key })
			switch {
			case r.entry.Claim != "" && (i < 0 || b.Entries[i].Claim != r.entry.Claim):
				r.err = fmt.Errorf("IPAMClaim %s does not hold %v any more: try again", r.entry.Claim, r.entry.Addresses)
			case i < 0:
				b.Entries = append(b.Entries, r.entry)
			case b.Entries[i].UID == r.entry.UID && b.Entries[i].Network == r.entry.Network:
				r.entry = b.Entries[i]
			case r.entry.Claim != "" && b.Entries[i].Pod == "":
				b.Entries[i] = r.entry
			case r.place >= 0:
				r.err = takenBy(r.entry, b.Entries[i])
			default:
				r.done = false
			}
		}
		slices.SortFunc(b.Entries, func(x, y intent.BlockEntry) int { return x.Key - y.Key })
		after = *b
		return nil
	}
	err := w.all.cfg.Blocks.Change(ctx, w.name, slot, change)
	if errors.Is(err, kube.ErrBlockGone) {
		// Asked for, of a block that nobody has: one without a node.
		b := &intent.Block{Network: w.name, Slot: slot}
		if err = w.all.cfg.Blocks.Make(ctx, b); err == nil || errors.Is(err, kube.ErrBlockTaken) {
			err = w.all.cfg.Blocks.Change(ctx, w.name, slot, change)
		}
	}
	if err != nil {
		for _, r := range list {
			r.err, r.done = fmt.Errorf("writing AddressBlock %d of network %s: %w", slot, w.name, err), true
		}
		return
	}
	w.putBlock(&after)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range list {
		if r.done && r.err == nil {
			w.given[r.wish.Owner()] = r.entry
		}
	}
}

// retunnel tells other zones of another tunnel address: an interface that is made again
// may be of another NIC.
func (w *network) retunnel(ctx context.Context, spec *intent.Network, wish cni.Wish, e intent.BlockEntry) (intent.BlockEntry, error) {
	encap := encapOf(spec, wish)
	if e.Encap == encap {
		return e, nil
	}
	var after intent.Block
	slot := (e.Key - 1) / blockSize
	err := w.all.cfg.Blocks.Change(ctx, w.name, slot, func(b *intent.Block) error {
		for i, f := range b.Entries {
			if f.Key == e.Key && f.UID == e.UID && f.Network == e.Network {
				b.Entries[i].Encap = encap
			}
		}
		after = *b
		return nil
	})
	if err != nil {
		return e, fmt.Errorf("writing the tunnel address of %s into AddressBlock %d of network %s: %w", wish.Owner(), slot, w.name, err)
	}
	e.Encap = encap
	w.putBlock(&after)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given[wish.Owner()] = e
	return e, nil
}

// encapOf is the tunnel address that other zones have to know.
func encapOf(spec *intent.Network, wish cni.Wish) netip.Addr {
	if spec.Topology != intent.Layer2 {
		return netip.Addr{}
	}
	return wish.Encap
}

func takenBy(want, have intent.BlockEntry) error {
	holder := "pod " + have.Pod
	switch {
	case have.Pod != "" && have.Claim != "":
		holder += " by IPAMClaim " + have.Claim
	case have.Pod == "" && have.Claim != "":
		holder = "IPAMClaim " + have.Claim
	case have.Pod == "":
		holder = "a pod that is gone, and rests for a minute"
	}
	return &alloc.TakenError{Address: want.Addresses[0].Addr(), Owner: holder}
}

// find is the entry that an interface has already, by this process or an earlier one.
func (w *network) find(wish cni.Wish) (intent.BlockEntry, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := w.given[wish.Owner()]; ok {
		return e, true
	}
	for _, slot := range slices.Sorted(maps.Keys(w.blocks)) {
		for _, e := range w.blocks[slot].Entries {
			if e.UID == wish.Pod.UID && e.Network == wish.Key {
				w.given[wish.Owner()] = e
				return e, true
			}
		}
	}
	return intent.BlockEntry{}, false
}

func (w *network) entry(spec *intent.Network, wish cni.Wish, place int) intent.BlockEntry {
	e := intent.BlockEntry{
		Key: place + 1, Pod: wish.Pod.String(), UID: wish.Pod.UID, Network: wish.Key, Node: w.all.cfg.Node, Encap: encapOf(spec, wish),
	}
	if wish.Claim != "" {
		e.Claim = claimKey(wish)
	}
	e.Addresses = places.Addresses(spec, place)
	e.MAC = cni.Finish(wish, cni.Grant{Addresses: e.Addresses}, nil, nil).MAC.String()
	return e
}

func (w *network) granted(spec *intent.Network, wish cni.Wish, e intent.BlockEntry) cni.Grant {
	g := cni.Finish(wish, cni.Grant{Addresses: e.Addresses}, nil, []netip.Prefix{})
	if spec.Topology == intent.Layer2 {
		g.TunnelKey = e.Key
	}
	return g
}

// placeAsked is the place of the addresses that a wish asks for, -1 for none.
func placeAsked(spec *intent.Network, wish cni.Wish) (int, error) {
	place := -1
	for _, ip := range wish.IPs {
		a := ip.Addr()
		i := slices.IndexFunc(spec.Subnets, func(s intent.NetworkSubnet) bool { return s.Prefix.Contains(a) })
		if i < 0 {
			return 0, fmt.Errorf("the address %s that is asked for is outside network %s's subnets (%s)", a, spec.Name, prefixes(spec))
		}
		n, ok := alloc.Index(spec.Subnets[i].Prefix, a)
		switch {
		case ip.Bits() != a.BitLen() && ip.Bits() != spec.Subnets[i].Prefix.Bits():
			return 0, fmt.Errorf("the address %s that is asked for has another length than network %s's subnet %s: leave the length out", ip, spec.Name, spec.Subnets[i].Prefix)
		case !ok || n >= places.Last:
			return 0, fmt.Errorf("the address %s that is asked for is not one of the first %d of subnet %s, which are all that network %s gives", a, places.Last, spec.Subnets[i].Prefix, spec.Name)
		case place >= 0 && place != int(n):
			return 0, fmt.Errorf("the addresses %v that are asked for are not at the same place of their subnets: ask for one, and the other family's follows", wish.IPs)
		case !places.Usable(spec, int(n)):
			return 0, fmt.Errorf("the address %s that is asked for is excluded in network %s, or names a subnet", a, spec.Name)
		}
		place = int(n)
	}
	return place, nil
}

// choose is a place for a request: the one asked for; else one of the node's blocks,
// of a block that it leases now, or, when the network has no more, of any block.
func (w *network) choose(ctx context.Context, spec *intent.Network, r *request, taken map[int]bool) (int, error) {
	if err := w.sameMAC(r.wish); err != nil {
		return 0, err
	}
	if r.place >= 0 {
		return r.place, nil
	}
	for {
		mine := func(b *intent.Block) bool { return b.Node == w.all.cfg.Node }
		if place, ok := w.free(spec, taken, mine); ok {
			return place, nil
		}
		leased, err := w.lease(ctx, spec)
		if err != nil {
			return 0, err
		}
		if !leased {
			break
		}
	}
	if place, ok := w.free(spec, taken, func(*intent.Block) bool { return true }); ok {
		return place, nil
	}
	return 0, &alloc.ExhaustedError{
		What: "address", From: fmt.Sprintf("network %s (%s)", w.name, prefixes(spec)), Size: uint64(places.Count(spec)), Used: w.used(),
		Advice: "delete pods or IPAMClaims that hold some, or give the network a larger subnet",
	}
}

// sameMAC refuses a MAC that another interface of the network is known to have.
func (w *network) sameMAC(wish cni.Wish) error {
	if wish.MAC == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.blocks {
		for _, e := range b.Entries {
			if e.MAC == wish.MAC.String() && e.UID != wish.Pod.UID && e.Pod != "" {
				return fmt.Errorf("the MAC %s that is asked for is pod %s's on network %s: ask for another", wish.MAC, e.Pod, w.name)
			}
		}
	}
	return nil
}

func (w *network) used() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, b := range w.blocks {
		n += len(b.Entries)
	}
	return n
}

// free is the next place without an entry in the blocks that ok chooses.
func (w *network) free(spec *intent.Network, taken map[int]bool, ok func(*intent.Block) bool) (int, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, slot := range slices.Sorted(maps.Keys(w.blocks)) {
		b := w.blocks[slot]
		if !ok(b) {
			continue
		}
		for i := range v1alpha1.BlockSize {
			place := slot*v1alpha1.BlockSize + i
			held := slices.ContainsFunc(b.Entries, func(e intent.BlockEntry) bool { return e.Key == place+1 })
			if !held && !taken[place] && places.Usable(spec, place) && !places.Reserved(spec, place) {
				return place, true
			}
		}
	}
	return 0, false
}

// lease gets the node another block: one that nobody has, or that is left without a
// node and has room. False: there is none.
func (w *network) lease(ctx context.Context, spec *intent.Network) (bool, error) {
	for slot := 0; slot*v1alpha1.BlockSize < places.Count(spec); slot++ {
		w.mu.Lock()
		known := w.blocks[slot]
		w.mu.Unlock()
		if known != nil && (known.Node != "" || len(known.Entries) == v1alpha1.BlockSize) || !w.hasRoom(spec, slot) {
			continue
		}
		b := &intent.Block{Network: w.name, Slot: slot, Node: w.all.cfg.Node}
		var err error
		if known == nil {
			err = w.all.cfg.Blocks.Make(ctx, b)
		}
		if known != nil || errors.Is(err, kube.ErrBlockTaken) {
			// Nobody's: taken over. Somebody's: known now, and passed over.
			err = w.all.cfg.Blocks.Change(ctx, w.name, slot, func(have *intent.Block) error {
				if have.Node == "" {
					have.Node = w.all.cfg.Node
				}
				b = have
				return nil
			})
		}
		if err != nil {
			return false, fmt.Errorf("leasing block %d of network %s: %w", slot, w.name, err)
		}
		w.putBlock(b)
		if b.Node == w.all.cfg.Node {
			return true, nil
		}
	}
	return false, nil
}

func (w *network) hasRoom(spec *intent.Network, slot int) bool {
	for i := range v1alpha1.BlockSize {
		if place := slot*v1alpha1.BlockSize + i; places.Usable(spec, place) && !places.Reserved(spec, place) {
			return true
		}
	}
	return false
}
