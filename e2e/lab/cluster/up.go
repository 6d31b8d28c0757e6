package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/pki"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/trunk"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Up brings a lab up. A lab that is up with the same options is left as it is,
// and crashed nodes of it are booted; one with other options is an error; the rest of an interrupted run is cleared
// away first. If Up fails or ctx ends, nothing of the lab is left but its logs.
func (l *Lab) Up(ctx context.Context, o plan.Options) (err error) {
	if err := o.Validate(); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, todo, err := l.found(o)
	switch {
	case err != nil:
		return err
	case todo == leave:
		l.say("already up")
		return nil
	case todo == boot:
		return l.bootMissing(ctx, r)
	}
	if err := l.Builder.Preflight(ctx); err != nil {
		return err
	}
	if err := l.down(ctx); err != nil {
		return fmt.Errorf("clear away an earlier lab: %w", err)
	}
	products, err := l.Builder.Make(ctx)
	if err != nil {
		return err
	}
	var made []build.Archive // Portolan's, and Multus's
	if o.CNI == plan.Portolan {
		portolan, err := l.Builder.Portolan(ctx, products.Base)
		if err != nil {
			return err
		}
		made = append(made, portolan)
	}
	if o.Multus != "" {
		multus, err := l.Builder.MultusImage(ctx)
		if err != nil {
			return err
		}
		made = append(made, multus)
	}
	defer func() {
		if err == nil {
			return
		}
		if l.Keep && ctx.Err() == nil {
			l.say("failed; the lab stays as it is: lab down ends it")
			return
		}
		l.say("failed; taking the lab down, its logs stay in %s", l.Dirs.State)
		// ctx may be what ended us: clean-up has a time of its own.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, l.down(clean))
	}()
	return l.up(ctx, record{Options: o, Products: products}, made)
}

func (l *Lab) up(ctx context.Context, r record, made []build.Archive) error {
	p := plan.Of(r.Options)
	if err := os.RemoveAll(filepath.Join(l.Dirs.State, "nodes")); err != nil {
		return err
	}
	if err := l.write(r); err != nil {
		return err
	}
	if err := pki.WriteCluster(l.pki(), p); err != nil {
		return err
	}
	if err := wire.Up(ctx, p); err != nil {
		return err
	}
	if err := trunk.Start(ctx, p, r.Products.Base, filepath.Join(l.Dirs.Run, "trunk")); err != nil {
		return err
	}
	for _, n := range p.Machines {
		if err := l.startNode(ctx, r, p, n, n.Name); err != nil {
			return err
		}
	}
	l.say("%d nodes started", len(p.Machines))
	if err := l.importAll(ctx, p, r.Products.Images); err != nil {
		return err
	}
	l.say("images imported")
	if err := l.waitRegistered(ctx, p); err != nil {
		return err
	}
	l.say("API server ready, nodes registered")
	switch r.Options.CNI {
	case plan.Portolan:
		if err := l.install(ctx, r, made); err != nil {
			return err
		}
		if r.Options.Multus != "" {
			if err := l.installMultus(ctx, p); err != nil {
				return err
			}
		}
	case plan.StandIn:
		if err := l.waitNodesReady(ctx); err != nil {
			return err
		}
	}
	r.Up = true
	if err := l.write(r); err != nil {
		return err
	}
	l.say("up: %d nodes, cni %s, zone %s, %s", len(p.Machines), r.Options.CNI, r.Options.Zone, r.Options.Families)
	return nil
}

// startNode makes a node's network and starts it, to register by a name.
func (l *Lab) startNode(ctx context.Context, r record, p plan.Plan, n plan.Node, registers string) error {
	if err := wire.AttachNode(ctx, p, n); err != nil {
		return err
	}
	if p.CNI == plan.StandIn {
		if err := wire.RoutePods(ctx, p, n); err != nil {
			return err
		}
	}
	s := node.Spec{
		Name: n.Name, Registers: registers, IPs: n.IPs(), ControlPlane: n.ControlPlane, API: p.API(),
		PodCIDRs: p.PodCIDRs, ServiceCIDRs: p.ServiceCIDRs, NodePodCIDRs: n.PodCIDRs, StandIn: p.CNI == plan.StandIn,
		State: l.state(n), Run: l.runDir(n), PKI: l.pki(), Kube: r.Products.Kube, Base: r.Products.Base,
	}
	for _, m := range p.Machines {
		for _, ip := range m.IPs() {
			s.Hosts = append(s.Hosts, ip.String()+" "+m.Name)
		}
	}
	return node.Start(ctx, s)
}

// Crash kills everything of a node at once, and takes it off the network: the
// namespace of a dead node would still answer ARP and pings, and forward.
func (l *Lab) Crash(ctx context.Context, name string) error {
	return l.change(func(_ record, p plan.Plan) error {
		n, err := p.Node(name)
		if err != nil {
			return err
		}
		if err := node.Crash(ctx, n.Name); err != nil {
			return err
		}
		return wire.DetachNode(ctx, n)
	})
}

// Renamed is what has become of a machine between two boots; zero: nothing.
type Renamed struct {
	As   string // the name that it registers by
	Last byte   // the number that its addresses end in
}

// Boot starts a node that crashed: its disk as it was, its network and /run new.
// With wait it returns when the node's kubelet answers, else when its init runs. A
// machine that was renamed is so until it is booted again.
func (l *Lab) Boot(ctx context.Context, name string, wait bool, now Renamed) error {
	return l.change(func(r record, p plan.Plan) error {
		n, err := p.Node(name)
		if err != nil {
			return err
		}
		if _, err := node.InitPID(name); err == nil {
			return fmt.Errorf("node %s is running: `lab crash %s` ends it", name, name)
		}
		if now.As == "" {
			now.As = n.Name
		}
		if now.Last != 0 {
			n.Addrs = p.Addrs(now.Last)
		}
		if err := pki.WriteNode(l.pki(), p, now.As, n.IPs()); err != nil {
			return err
		}
		if err := l.startNode(ctx, r, p, n, now.As); err != nil || !wait {
			return err
		}
		return l.waitKubelet(ctx, now.As)
	})
}

// change runs f under the lock, with the lab that is up.
func (l *Lab) change(f func(record, plan.Plan) error) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := l.current()
	if err != nil {
		return err
	}
	return f(r, plan.Of(r.Options))
}
