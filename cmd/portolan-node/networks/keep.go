package networks

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// idleTime is how long a block without interfaces stays leased: the time for which a
// network stays rendered after its last pod.
const idleTime = 120 * time.Second

// housekeeping is how often what rests and what is idle is looked at.
const housekeeping = 5 * time.Second

// Run gives back what is over, until the context ends: entries of pods that are gone
// rest, then go; blocks without use return.
func (n *Networks) Run(ctx context.Context) {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.freed:
		case <-ctx.Done():
			return
		}
		n.Clean(ctx)
	}
}

// Clean does once what Run does again and again.
func (n *Networks) Clean(ctx context.Context) {
	n.mu.Lock()
	list := make([]*network, 0, len(n.networks))
	for _, name := range slices.Sorted(maps.Keys(n.networks)) {
		list = append(list, n.networks[name])
	}
	n.mu.Unlock()
	for _, w := range list {
		if err := w.clean(ctx); err != nil && ctx.Err() == nil {
			n.cfg.Log.Warn("a network's blocks are not cleaned, trying again", "network", w.name, "err", err)
		}
	}
}

// dead reports whether a pod of this node's will not come back.
func (n *Networks) dead(e intent.BlockEntry) bool {
	return e.Node == n.cfg.Node && n.cfg.Alive != nil && !n.cfg.Alive(e.Pod, e.UID)
}

func (w *network) clean(ctx context.Context) error {
	if !w.stale() {
		return nil
	}
	select {
	case <-w.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { w.turn <- struct{}{} }()
	w.mu.Lock()
	slots, lost := slices.Sorted(maps.Keys(w.blocks)), w.lost
	w.mu.Unlock()
	if lost != nil {
		if err := w.all.cfg.Blocks.Make(ctx, lost); err != nil {
			return err // another node's by now: pods keep what they have, and the log says why nobody finds them
		}
		w.mu.Lock()
		w.blocks[lost.Slot], w.lost = lost, nil
		w.mu.Unlock()
	}
	for _, slot := range slots {
		if err := w.cleanBlock(ctx, slot); err != nil {
			return err
		}
	}
	return nil
}

// stale reports whether clean has anything to do.
func (w *network) stale() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lost != nil {
		return true
	}
	for _, b := range w.blocks {
		if slices.ContainsFunc(b.Entries, func(e intent.BlockEntry) bool { return w.fate(e) != stays }) || w.returnable(b) {
			return true
		}
	}
	return false
}

type fate int

const (
	stays fate = iota
	rests
	goes
)

// fate is what is to become of an entry; w.mu is held. An entry of this node's is left
// alone while an interface has it; then it holds its place for the time of rest.
func (w *network) fate(e intent.BlockEntry) fate {
	if e.Node != w.all.cfg.Node || e.Claim != "" && e.Pod == "" {
		return stays
	}
	now := w.all.cfg.Now()
	if e.Pod == "" {
		since, ok := w.resting[e.Key]
		if !ok { // of an earlier run
			w.resting[e.Key] = now
			return stays
		}
		if now.Sub(since) < alloc.DefaultQuarantine {
			return stays
		}
		return goes
	}
	if _, left := w.leaving[e.UID+" "+e.Network]; left {
		return rests
	}
	if _, held := w.given[e.UID+" "+e.Network]; !held && w.all.dead(e) {
		return rests
	}
	return stays
}

// returnable reports whether the node needs a block no more; w.mu is held.
func (w *network) returnable(b *intent.Block) bool {
	if b.Node != w.all.cfg.Node || len(b.Entries) > 0 {
		return false
	}
	if w.idle[b.Slot].IsZero() || w.pool != nil && w.slot == b.Slot && len(w.pool.Owners()) > 0 {
		w.idle[b.Slot] = w.all.cfg.Now()
	}
	return w.all.cfg.Now().Sub(w.idle[b.Slot]) >= idleTime
}

func (w *network) cleanBlock(ctx context.Context, slot int) error {
	w.mu.Lock()
	b := w.blocks[slot]
	returns := b != nil && w.returnable(b)
	changes := b != nil && slices.ContainsFunc(b.Entries, func(e intent.BlockEntry) bool { return w.fate(e) != stays })
	w.mu.Unlock()
	switch {
	case returns:
		return w.giveBack(ctx, slot)
	case !changes:
		return nil
	}
	var after intent.Block
	err := w.all.cfg.Blocks.Change(ctx, w.name, slot, func(b *intent.Block) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		var left []intent.BlockEntry
		for _, e := range b.Entries {
			switch w.fate(e) {
			case rests:
				if e.Claim != "" {
					e.Node = b.Node // nobody's now, and the claim's until that has gone
				} else if w.resting[e.Key].IsZero() {
					w.resting[e.Key] = w.all.cfg.Now()
				}
				e.Pod, e.UID, e.Network, e.MAC, e.Encap = "", "", "", "", netip.Addr{}
			case goes:
				continue
			}
			left = append(left, e)
		}
		b.Entries = left
		after = *b
		return nil
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocks[slot] = &after
	there := map[string]bool{}
	for _, b := range w.blocks {
		for _, e := range b.Entries {
			there[e.UID+" "+e.Network] = true
		}
	}
	for owner := range w.leaving {
		if !there[owner] {
			delete(w.leaving, owner)
		}
	}
	for key := range w.resting {
		b := w.blocks[(key-1)/blockSize]
		if b == nil || !slices.ContainsFunc(b.Entries, func(e intent.BlockEntry) bool { return e.Key == key && e.Pod == "" }) {
			delete(w.resting, key)
		}
	}
	return nil
}

// giveBack returns a block that has no use here.
func (w *network) giveBack(ctx context.Context, slot int) error {
	w.mu.Lock()
	if w.pool != nil && w.slot == slot {
		if len(w.pool.Owners()) > 0 {
			w.mu.Unlock()
			return nil
		}
		w.pool = nil
	}
	delete(w.blocks, slot)
	delete(w.idle, slot)
	w.mu.Unlock()
	node := w.all.cfg.Node
	return w.all.cfg.Blocks.Remove(ctx, w.name, slot, func(b *intent.Block) bool { return b.Node == node && len(b.Entries) == 0 })
}
