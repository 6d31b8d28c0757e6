package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/cmd/portolan-manager/networks"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// The Lease's terms. A leader gives up a good while before another may
// begin, and no write of it takes longer than that while.
const (
	leaseName     = kube.ManagerLease
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	writeTimeout  = leaseDuration - renewDeadline
)

// election is one process's part in choosing who allocates.
type election struct {
	cfg      Config
	client   kube.Client
	networks kube.NodeNetworks
	objects  dynamic.Interface // of any kind, with room for many requests
	log      *slog.Logger
	metrics  *figures
	told     func(statements int, writes uint64) // after each round of telling; may be nil
}

// errLost ends the process: it starts anew as a candidate with nothing remembered.
var errLost = errors.New("leadership lost")

// elect waits to be leader, then allocates until ctx ends or leadership is lost.
// The Lease is given back only when nothing is being written any more.
func elect(ctx context.Context, e election) error {
	electing, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	led := make(chan error, 1)
	started := make(chan struct{})
	watchdog := leaderelection.NewLeaderHealthzAdaptor(leaseDuration)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: e.cfg.Namespace, Name: leaseName},
			Client:     e.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: e.cfg.Identity},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: leaseName, WatchDog: watchdog,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				close(started)
				working, stop := context.WithCancel(leading)
				defer stop()
				defer context.AfterFunc(ctx, stop)()
				led <- e.lead(working)
				leave()
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				e.log.Info("leader elected", "leader", identity)
				if identity != e.cfg.Identity {
					e.metrics.ready.Store(true)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("leader election: %w", err)
	}
	healthy := func() error { return watchdog.Check(nil) }
	e.metrics.healthy.Store(&healthy)
	candidate := context.AfterFunc(ctx, func() {
		select {
		case <-started: // lead ends, then leaves
		default:
			leave()
		}
	})
	defer candidate()
	elector.Run(electing)
	select {
	case <-started:
		err = <-led
	default:
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errLost, err)
}

// lead allocates while this process is leader.
func (e election) lead(ctx context.Context) error {
	e.metrics.Lead(true)
	defer e.metrics.Lead(false)
	a, err := assign.New(e.cfg.ClusterSubnets, time.Now)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	if len(e.cfg.Databases) > 0 {
		i := &issuer{client: e.client, namespace: e.cfg.Namespace, servers: e.cfg.Databases, life: e.cfg.CertificateLife, log: e.log, now: time.Now}
		beside.Go(func() { i.run(ctx) })
	}
	plan := e.cfg.plan()
	isolator := &isolator{client: e.client, namespace: e.cfg.Namespace, on: plan.Isolated, shared: plan.Shared, log: e.log}
	beside.Go(func() { isolator.run(ctx) })
	l := newLoop(e.client, a, e.log)
	c := newCrier(e.client, e.networks, plan, e.log)
	l.found = c.allocated
	l.event = func(node string, f assign.Finding) { c.happened(ctx, node, f) }
	l.looked = func() { c.heard(fromAllocation) }
	l.recall, l.keep, l.runs = e.recall, e.keep, e.runs
	l.synced = func() { e.metrics.ready.Store(true) }
	l.done = func(result string) {
		e.metrics.show(a)
		if result != "" {
			e.metrics.Write(result)
		}
	}
	k := networks.New(networks.Config{
		Client: e.objects, Plan: c.plan, Log: e.log, Timeout: writeTimeout,
		Recall: e.recallNetworkIDs, Keep: e.keepNetworkIDs, Found: c.claimed, Pools: c.pooled,
	})
	c.follow(k)
	c.taps[kube.Nodes] = l.tap()
	c.told = func(statements int, writes uint64) {
		e.metrics.ShowTold(statements, writes)
		if e.told != nil {
			e.told(statements, writes)
		}
	}
	beside.Go(func() { c.run(ctx) })
	beside.Go(func() { k.Run(ctx) })
	return l.run(ctx)
}
