package main

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// tunnelsEvery is how often it is looked whether the machine still has its tunnel
// addresses, and by which routes.
const tunnelsEvery = 10 * time.Second

// tunnels are the node's tunnel addresses: its first, which it always has; those that
// pools of devices ask for; and those that interfaces here have, so that an address
// goes with the last of its users. After a start they are those of the run before until
// both are known: a restart changes none.
type tunnels struct {
	first netip.Addr // zero: the machine has no address, and there are no tunnels
	find  func([]netip.Addr) (host.Tunnels, error)
	tell  func(host.Tunnels) // of what has changed

	woken chan struct{}
	told  bool // of run's goroutine

	mu      sync.Mutex // guards the rest
	earlier []netip.Addr
	wanted  []netip.Addr
	used    []netip.Addr
	pooled  bool // wanted is known
	settled bool // used is
	now     host.Tunnels
}

// newTunnels has the tunnel addresses of an earlier run.
func newTunnels(a *agent, earlier []netip.Addr) *tunnels {
	t := &tunnels{earlier: earlier, woken: make(chan struct{}, 1)}
	if base := a.facts.encapIPs(); len(base) > 0 {
		t.first = base[0]
	}
	t.find = func(list []netip.Addr) (host.Tunnels, error) {
		return a.kernel.FindTunnels(a.cfg.Node, t.first, a.facts.plan.MTU, list)
	}
	t.look() // nobody is told: nothing has been said yet
	t.tell = a.tellTunnels
	return t
}

// furtherOf reads ovn-encap-ip, the first first, and gives the others: the first was the
// node's own, which may have another by now.
func furtherOf(setting string) []netip.Addr {
	var out []netip.Addr
	for n, s := range strings.Split(setting, ",") {
		if a, err := netip.ParseAddr(strings.TrimSpace(s)); err == nil && n > 0 {
			out = append(out, a)
		}
	}
	return out
}

// want gives the addresses that pools ask for, whole.
func (t *tunnels) want(list []netip.Addr) {
	t.mu.Lock()
	same := t.pooled && slices.Equal(t.wanted, list)
	t.wanted, t.pooled = slices.Clone(list), true
	t.mu.Unlock()
	if !same {
		t.wake()
	}
}

// settle says that use has been told what interfaces have of an earlier run.
func (t *tunnels) settle() {
	t.mu.Lock()
	t.settled = true
	t.mu.Unlock()
	t.wake()
}

// use gives the addresses that interfaces have, whole.
func (t *tunnels) use(list []netip.Addr) {
	t.mu.Lock()
	same := slices.Equal(t.used, list)
	t.used = slices.Clone(list)
	t.mu.Unlock()
	if !same {
		t.wake()
	}
}

func (t *tunnels) wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// all are the addresses that the node has, its first before the others, which are sorted.
func (t *tunnels) all() []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.first.IsValid() {
		return nil
	}
	return append([]netip.Addr{t.first}, t.now.Addresses...)
}

func (t *tunnels) problems() []rows.Problem {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now.Problems
}

// further are the addresses that are asked for beside the first.
func (t *tunnels) further() []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := slices.Concat(t.wanted, t.used)
	if !t.pooled || !t.settled {
		list = append(list, t.earlier...)
	}
	list = slices.DeleteFunc(list, func(a netip.Addr) bool { return a == t.first || !a.IsValid() })
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// look compares what is asked for with the machine, and tells what has changed.
func (t *tunnels) look() {
	if !t.first.IsValid() {
		return
	}
	next, err := t.find(t.further())
	if err != nil {
		slog.Warn("tunnel addresses not looked at", "err", err)
		return
	}
	t.mu.Lock()
	before := t.now
	t.now = next
	t.mu.Unlock()
	ways := func(a, b host.Config) bool { return slices.Equal(a.Rules, b.Rules) && slices.Equal(a.Routes, b.Routes) }
	if t.tell != nil && !(t.told && slices.Equal(before.Addresses, next.Addresses) && ways(before.Config, next.Config)) {
		t.told = true
		t.tell(next)
	}
	if !slices.Equal(before.Addresses, next.Addresses) {
		slog.Info("tunnel addresses", "first", t.first, "others", next.Addresses)
	}
	for _, p := range next.Problems {
		if !slices.Contains(before.Problems, p) {
			slog.Warn("problem", "object", p.Object, "field", p.Field, "message", p.Message)
		}
	}
}

// run keeps the addresses until ctx ends.
func (t *tunnels) run(ctx context.Context) error {
	tick := time.NewTicker(tunnelsEvery)
	defer tick.Stop()
	for {
		t.look()
		select {
		case <-ctx.Done():
			return nil
		case <-t.woken:
		case <-tick.C:
		}
	}
}

// tellTunnels has the node's tunnel addresses be what was found: the ways in the kernel
// first, and other nodes last.
func (a *agent) tellTunnels(found host.Tunnels) {
	a.runner.Keeper.DeclareTunnels(found.Config)
	all := a.facts.allEncapIPs()
	a.machine.change(func(h *intent.Host) { h.EncapIPs = all })
	a.declared.Lock()
	defer a.declared.Unlock()
	if a.declared.encap != nil && !slices.Equal(a.declared.encap, all) {
		a.declare()
	}
}

// declaration is what has been said of this node to others.
type declaration struct {
	sync.Mutex
	encap []netip.Addr // nil: nothing yet
}

// declareNode has what other nodes must know of this one written.
func (a *agent) declareNode() {
	a.declared.Lock()
	defer a.declared.Unlock()
	a.declare()
}

// declare is declareNode; a.declared is held.
func (a *agent) declare() {
	a.declared.encap = a.facts.allEncapIPs()
	want, first := a.facts.annotations(a.cfg), true
	a.door.Declare(want, func(said *intent.Node) bool {
		if !first && a.facts.plan.GatewayVLAN != 0 {
			return said.Chassis == a.facts.chassis // the VLAN is not read back
		}
		first = false
		return a.facts.annotated(said, want)
	})
}
