package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// agent is the running node: what run wires together.
type agent struct {
	cfg     *Config
	client  kube.Client
	facts   facts
	kernel  *host.Kernel
	conns   map[rows.DB]*ovsdb.Conn
	driver  *ovsdb.Driver
	patcher *kube.Patcher
	door    *door
	ovs     *host.OVS
	runner  *host.Runner
	ports   *cni.OVSPorts
	health  *health
}

// run is the agent's life. Its order is its safety: facts before changes, the
// NIC's record before the bridge, every source synced before the first write,
// attachments of an earlier run recovered before the first call is served, and
// the runtime told that the node is ready last.
func run(ctx context.Context, cfg *Config) error {
	a := &agent{cfg: cfg, health: newHealth()}
	var err error
	if a.kernel, err = host.Open(cfg.StateDir); err != nil {
		return err
	}
	defer a.kernel.Close()
	if a.ovs, err = host.OpenOVS(ctx, cfg.OVS); err != nil {
		return err
	}
	defer a.ovs.Close()
	if a.facts, err = discover(cfg, a.kernel, a.ovs); err != nil {
		return err
	}
	a.facts.log(cfg)
	if err := a.kernel.SaveGateway(a.facts.gateway); err != nil {
		return err
	}
	defer a.close()
	if err := a.connect(ctx); err != nil {
		return err
	}
	return a.live(ctx)
}

// connect reaches the databases and makes the parts; run closes them.
func (a *agent) connect(ctx context.Context) error {
	cfg := a.cfg
	a.conns = map[rows.DB]*ovsdb.Conn{}
	endpoints := map[rows.DB]string{rows.OVS: cfg.OVS, rows.NB: cfg.NB, rows.SB: cfg.SB}
	var dbs []ovsdb.Database
	for _, db := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		conn, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db, Endpoint: endpoints[db], Zone: a.facts.plan.Zone, Lock: db != rows.OVS})
		if err != nil {
			return err
		}
		a.conns[db] = conn
		dbs = append(dbs, conn)
	}
	var err error
	if a.ports, err = cni.DialPorts(ctx, cfg.OVS, intent.IntegrationBridge); err != nil {
		return err
	}
	eng := engine.New(engine.Config{
		Kinds: compile.Kinds(), Databases: []rows.DB{rows.OVS, rows.NB, rows.SB},
		Bug: func(err error) { slog.Error("bug in a unit", "err", err) },
	})
	a.driver = ovsdb.NewDriver(ovsdb.DriverConfig{}, eng, dbs...)
	a.door = newDoor(cfg.Node, a.driver.Sink(), nil, a.facts.own)
	if cfg.IntentDir == "" {
		if cfg.Kube.APIServer == "" {
			cfg.Kube.APIServer = a.facts.spec.Spec.APIServer
		}
		if a.client, err = cfg.Kube.Connect(); err != nil {
			return err
		}
		a.patcher = kube.NewPatcher(a.client, slog.Default())
		a.door.patcher = a.patcher
	}
	a.runner = host.NewRunner(a.kernel, a.ovs, a.facts.gateway.Bridge, ovsRunDir, slog.Default())
	return nil
}

// ovsRunDir is where vswitchd has its sockets.
const ovsRunDir = "/run/openvswitch"

func (a *agent) close() {
	for _, c := range a.conns {
		c.Close()
	}
	if a.ports != nil {
		a.ports.Close()
	}
}

// live runs the parts until ctx ends or one of them fails.
func (a *agent) live(ctx context.Context) error {
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
	sink := a.driver.Sink()
	sink.Put(a.facts.plan)
	sink.Put(a.facts.host(a.cfg))
	a.declare(nil)
	part("driver", a.driver.Run)
	if a.cfg.IntentDir != "" {
		files := &kube.WatchDir{Dir: a.cfg.IntentDir, Sink: a.door, Problems: a.health.problems, Zoning: a.zoning()}
		part("intent directory", files.Run)
	} else {
		watch := &kube.Watch{
			Client: a.client, Sink: a.door, Problems: a.health.problems, Zoning: a.zoning(), Node: a.cfg.Node,
		}
		part("watch", watch.Run)
		part("patcher", a.patcher.Run)
	}
	part("host", func(ctx context.Context) error { a.runner.Run(ctx); return nil })
	part("health", a.serveHealth)
	part("pods", a.servePods)
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (a *agent) zoning() kube.Zoning {
	if a.facts.plan.GlobalZone {
		return kube.ZoneGlobal
	}
	return kube.ZonePerNode
}

// declare gives the host's state; self is nil until the node has subnets.
func (a *agent) declare(self *intent.Node) {
	m := host.Management{PodSubnets: a.facts.plan.PodSubnets, MTU: a.facts.plan.MTU}
	if self != nil {
		m.Subnets = self.Subnets
	}
	a.runner.Declare(host.Node{Name: a.cfg.Node, Gateway: a.facts.gateway, Management: m, Datapath: a.facts.datapath})
}

// servePods waits for the node's subnets, takes up what an earlier run left, and
// serves the runtime.
func (a *agent) servePods(ctx context.Context) error {
	if err := cni.InstallBinary(a.cfg.CNIBinary, a.cfg.CNIBinDir); err != nil {
		return err
	}
	conflist := filepath.Join(a.cfg.CNIConfDir, filepath.Base(cni.DefaultConflist))
	self, err := a.door.wait(ctx, func(self *intent.Node, synced map[kube.Source]bool) bool {
		return self != nil && complete(synced)
	})
	if err != nil {
		return err
	}
	if a.patcher != nil {
		a.patcher.Annotate(kube.NodeTarget(a.cfg.Node), a.facts.annotations(a.cfg))
	}
	if len(self.Subnets) == 0 {
		a.driver.Sink().Synced() // nothing can be attached yet, so nothing can be lost
		slog.Info("waiting for the node's subnets", "annotation", kube.AnnotationNodeSubnets)
		if err := cni.RemoveConflist(conflist); err != nil {
			return err
		}
		if self, err = a.door.wait(ctx, func(self *intent.Node, _ map[kube.Source]bool) bool {
			return self != nil && len(self.Subnets) > 0
		}); err != nil {
			return err
		}
	}
	a.declare(self)
	server, err := a.recover(ctx, self)
	if err != nil {
		return err
	}
	a.driver.Sink().Synced()
	a.door.serve(server)
	listener, err := cni.Listen(a.cfg.Socket)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { server.Run(ctx) })
	wg.Go(func() { a.announce(ctx, conflist) })
	return server.Serve(ctx, listener)
}

// recover makes the CNI server and gives it what OVS and the annotations record.
func (a *agent) recover(ctx context.Context, self *intent.Node) (*cni.Agent, error) {
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: self.Subnets})
	if err != nil {
		return nil, err
	}
	userspace := a.facts.datapath == intent.UserspaceDatapath
	links, err := cni.NewVeths(userspace)
	if err != nil {
		return nil, err
	}
	cfg := cni.Config{
		Pods: a.door.pods, Ports: a.ports, Links: links, Publisher: a.door, Pool: pool, MTU: a.facts.plan.MTU,
		Ready: a.health.ready, Observe: a.health.observe,
	}
	if userspace {
		if cfg.Concealer, err = cni.NewNFTables(); err != nil {
			return nil, err
		}
	}
	server, err := cni.New(cfg)
	if err != nil {
		return nil, err
	}
	pods, attached := a.door.known()
	return server, server.Recover(ctx, pods, attached)
}

// announce tells the runtime that the node is ready, once it is: the node's own
// unit is installed in every database, and the management port is up.
func (a *agent) announce(ctx context.Context, conflist string) {
	if err := a.driver.Wait(ctx, "node/"+a.cfg.Node, ovsdb.Installed); err != nil {
		return
	}
	// Nothing to say of the node is installed at once, too: only flows of its own
	// port prove that ovn-controller serves this chassis.
	if err := a.ports.WaitInstalled(ctx, intent.ManagementPort); err != nil {
		return
	}
	for {
		err := hostReady()
		if err == nil {
			err = cni.WriteConflist(conflist, a.cfg.Socket)
		}
		if err == nil {
			a.health.setReady(nil)
			slog.Info("ready", "conflist", conflist)
			return
		}
		a.health.setReady(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// hostReady reports what the host's side still lacks for pods to work.
func hostReady() error {
	link, err := net.InterfaceByName(intent.ManagementPort)
	if err != nil {
		return fmt.Errorf("management port %s: %w", intent.ManagementPort, err)
	}
	addrs, err := link.Addrs()
	if err != nil || len(addrs) == 0 || link.Flags&net.FlagUp == 0 {
		return fmt.Errorf("management port %s has no address yet", intent.ManagementPort)
	}
	return nil
}
