package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/portolan-cni/portolan/pkg/daemon"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/presence"
)

// physical knows the PhysicalNetworks and this node's labels, and declares those
// that the node is selected for: what is there once all have been listed, and every
// change from then on. What the Node's labels were holds while there is no Node.
type physical struct {
	declare func([]host.Wire)

	mu     sync.Mutex // guards the rest
	labels map[string]string
	met    bool                               // labels are the node's
	known  map[string]*intent.PhysicalNetwork // by name
	listed bool
}

func newPhysical(declare func([]host.Wire)) *physical {
	return &physical{declare: declare, known: map[string]*intent.PhysicalNetwork{}}
}

// list says that all have been delivered. Before that nothing is declared: what an
// earlier run has taken must not be given back because it is listed late.
func (p *physical) list() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listed = true
	p.choose()
}

func (p *physical) label(labels map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.met = true
	if p.labels == nil || !maps.Equal(p.labels, labels) {
		p.labels = maps.Clone(labels)
		p.choose()
	}
}

// labelled tells whether the node's labels are known.
func (p *physical) labelled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met
}

// selected tells whether a selector chooses this node; no requirement chooses all.
func (p *physical) selected(by intent.Labels) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return by.Matches(p.labels)
}

func (p *physical) know(n *intent.PhysicalNetwork) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[n.Name] = n
	p.choose()
}

func (p *physical) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, name)
	p.choose()
}

// choose declares anew; p.mu is held.
func (p *physical) choose() {
	if !p.listed {
		return
	}
	var wires []host.Wire
	for _, name := range slices.Sorted(maps.Keys(p.known)) {
		if n := p.known[name]; n.Nodes.Matches(p.labels) {
			wires = append(wires, host.Wire{Network: n.Name, NIC: n.NIC, Bridge: n.Bridge})
		}
	}
	p.declare(wires)
}

// physicalSink tells a physical what passes.
type physicalSink struct {
	ownNode
	physical *physical
}

// Put takes an object.
func (s physicalSink) Put(o intent.Object) {
	s.ownNode.Put(o)
	switch o := o.(type) {
	case *intent.Node:
		if o.Key() == s.key {
			s.physical.label(o.Labels)
		}
	case *intent.PhysicalNetwork:
		s.physical.know(o)
	}
}

// Delete takes an object's end.
func (s physicalSink) Delete(k intent.Key) {
	s.ownNode.Delete(k)
	if k.Kind == intent.KindPhysicalNetwork {
		s.physical.forget(k.Name)
	}
}

// presentSink adds what networks this node uses.
type presentSink struct {
	physicalSink
	networks *presence.Counter // before physicalSink
}

func newPresentSink(s physicalSink) presentSink { return presentSink{s, presence.New(s)} }

// Put takes an object.
func (s presentSink) Put(o intent.Object) { s.networks.Put(o) }

// Delete takes an object's end.
func (s presentSink) Delete(k intent.Key) { s.networks.Delete(k) }

// machine is the one Host of this agent, which several parts add to.
type machine struct {
	put func(intent.Object)

	mu   sync.Mutex // guards host
	host intent.Host
}

// change has the compiler see the machine otherwise.
func (m *machine) change(f func(*intent.Host)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.host)
	next := m.host
	m.put(&next)
}

// bridges are those of physical networks.
func (m *machine) bridges() []intent.PhysicalBridge {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.host.PhysicalBridges)
}

// keepWires keeps the node's physical networks. Until the API server has listed them,
// which nothing else waits for, they are those of the last run.
func (a *agent) keepWires(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { a.wires.Run(ctx) })
	_, err := a.door.Wait(ctx, func(self *intent.Node, synced map[kube.Source]bool) bool {
		return self != nil && (synced[kube.Directory] || synced[kube.PhysicalNetworks])
	})
	if err != nil {
		return err
	}
	a.physical.list()
	return nil
}

// connectWires makes the host's parts.
func (a *agent) connectWires() (err error) {
	a.runner = host.NewRunner(a.kernel, a.ovs, a.facts.gateway.Bridge, daemon.OVSRun, slog.Default())
	a.machine = &machine{put: a.driver.Sink().Put, host: *a.facts.host(a.cfg.Node)}
	a.wires, err = host.NewWires(host.WiresConfig{
		Kernel: a.kernel, OVS: a.ovs, Keeper: a.runner.Keeper, Gateway: a.facts.gateway, Datapath: a.facts.datapath, RunDir: a.cfg.HostRun,
		Take: func(list []intent.PhysicalBridge) {
			a.machine.change(func(h *intent.Host) { h.PhysicalBridges = list })
		}, Log: slog.Default(),
	})
	if err == nil {
		a.physical = newPhysical(a.wires.Declare)
	}
	return err
}
