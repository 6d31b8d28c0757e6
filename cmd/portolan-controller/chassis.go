package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
)

// chassisGrace is how long a chassis must have been nobody's before it is removed:
// a new machine registers itself and tells its node's annotation in any order.
const chassisGrace = time.Minute

// chassisLook is how often that is looked for.
const chassisLook = 15 * time.Second

// register knows which chassis each node has, and removes from the southbound
// database those of machines that are gone. ovn-controller registers a machine and,
// when the machine dies, nobody takes it back: its tunnel address would be refused
// to whoever has it next, and tunnels to it would stay.
type register struct {
	mu    sync.Mutex        // guards nodes
	nodes map[string]string // node -> chassis; "" while its agent has not said

	since map[string]time.Time // when a chassis was first seen to be nobody's
}

func newRegister() *register {
	return &register{nodes: map[string]string{}, since: map[string]time.Time{}}
}

// put notes a node.
func (r *register) put(n *intent.Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.nodes[n.Name] = n.Chassis
}

// remove notes that a node is gone.
func (r *register) remove(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.nodes, node)
}

// gone lists chassis that have been nobody's for the grace.
func (r *register) gone(list []ovsdb.Chassis, now time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	owned := map[string]bool{}
	for _, chassis := range r.nodes {
		owned[chassis] = true
	}
	seen := map[string]time.Time{}
	var out []string
	for _, c := range list {
		chassis, known := r.nodes[c.Hostname]
		if owned[c.Name] || known && chassis == "" {
			continue
		}
		first, ok := r.since[c.Name]
		if !ok {
			first = now
		}
		seen[c.Name] = first
		if now.Sub(first) >= chassisGrace {
			out = append(out, c.Name)
		}
	}
	r.since = seen
	return out
}

// sweep removes what is gone until ctx ends; only who writes the zone does.
func (r *register) sweep(ctx context.Context, sb *ovsdb.Conn, writes func() bool) error {
	tick := time.NewTicker(chassisLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if !writes() {
			continue
		}
		if err := r.once(ctx, sb); err != nil && ctx.Err() == nil {
			slog.Warn("chassis not looked at, will retry", "err", err)
		}
	}
}

func (r *register) once(ctx context.Context, sb *ovsdb.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, chassisLook)
	defer cancel()
	list, err := sb.Chassis(ctx)
	if err != nil {
		return err
	}
	for _, name := range r.gone(list, time.Now()) {
		if err := sb.RemoveChassis(ctx, name); err != nil {
			return err
		}
		slog.Info("chassis removed: no node has it", "chassis", name)
	}
	return nil
}
