package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/presence"
	"github.com/portolan-cni/portolan/pkg/record"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/version"
)

// run is the controller's life: it is healthy at once, ready when it knows the
// cluster, and writes when it holds the lock.
func run(ctx context.Context, cfg *Config, p place) error {
	client, err := cfg.Kube.Connect()
	if err != nil {
		return err
	}
	dynamic, err := cfg.Kube.ConnectDynamic()
	if err != nil {
		return err
	}
	slog.Info("controller", "zone", p.plan.Zone, "databases", p.databases.Endpoint(rows.NB), "pod_mtu", p.plan.MTU)
	h := newHealth()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	part := func(name string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	part("health", func(ctx context.Context) error { return h.serve(ctx, cfg.Health) })
	conn, err := ovsdb.Dial(ctx, ovsdb.Config{
		DB: rows.NB, Endpoint: p.databases.Endpoint(rows.NB), Zone: p.plan.Zone, TLS: p.tls, Lock: true,
		Observe: h.compiler.Transaction,
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	config := engine.Config{
		Kinds: compile.Kinds(), Databases: []rows.DB{rows.NB},
		Bug: func(err error) { slog.Error("bug in a unit", "err", err) },
	}
	eng := engine.New(config)
	recorder, err := record.New(record.Config{Engine: config, Header: record.Header{
		Version: version.String(), Process: "portolan-controller", Zone: p.plan.Zone,
	}}, eng)
	if err != nil {
		return err
	}
	driver := ovsdb.NewDriver(ovsdb.DriverConfig{Observe: h.compiler.Step, Record: recorder}, eng, conn)
	h.watch(driver, eng, conn)
	machines := newRegister()
	in := newIntake(driver.Sink(), machines, h.synced)
	driver.Sink().Put(p.plan)
	part("driver", driver.Run)
	part("watch", (&kube.Watch{
		Client: client, Dynamic: dynamic, Sink: in, Problems: h.problems, Zoning: kube.ZoneGlobal, Sources: kube.Sources(),
	}).Run)
	part("inspect", func(ctx context.Context) error {
		return cfg.serveInspect(ctx, p, h, inspected{eng, driver, conn, recorder})
	})
	part("chassis", func(ctx context.Context) error {
		sb, err := ovsdb.Dial(ctx, ovsdb.Config{DB: rows.SB, Endpoint: p.databases.Endpoint(rows.SB), TLS: p.tls})
		if err != nil {
			return err
		}
		defer sb.Close()
		return machines.sweep(ctx, sb, func() bool { return h.complete() && conn.State().Up })
	})
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// sink is where intent goes.
type sink interface {
	Put(intent.Object)
	Delete(intent.Key)
	Synced()
}

// intake hands on what the API server says. The engine may write once every
// source has delivered what it had.
type intake struct {
	sink
	networks *presence.Counter // before sink
	machines *register
	missing  map[kube.Source]bool
	done     func()
}

func newIntake(s sink, machines *register, done func()) *intake {
	in := &intake{sink: s, networks: presence.New(s), machines: machines, missing: map[kube.Source]bool{}, done: done}
	for _, source := range kube.Sources() {
		in.missing[source] = true
	}
	return in
}

// Put hands an object on.
func (in *intake) Put(o intent.Object) {
	if n, ok := o.(*intent.Node); ok {
		in.machines.put(n)
	}
	in.networks.Put(o)
}

// Delete hands an object's end on.
func (in *intake) Delete(k intent.Key) {
	if k.Kind == intent.KindNode {
		in.machines.remove(k.Name)
	}
	in.networks.Delete(k)
}

// Synced notes that a source has delivered what it had.
func (in *intake) Synced(s kube.Source) {
	delete(in.missing, s)
	if len(in.missing) == 0 {
		in.sink.Synced()
		in.done()
	}
}
