package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/door"
	"github.com/portolan-cni/portolan/cmd/portolan-node/held"
	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/delegate"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/daemon"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/metrics"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/record"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/version"
)

// agent is the running node: what run wires together.
type agent struct {
	cfg      *Config
	client   kube.Client
	dynamic  kube.Dynamic
	facts    facts
	kernel   *host.Kernel
	conns    map[rows.DB]*ovsdb.Conn
	engine   *engine.Engine   // the driver's
	recorder *record.Recorder // of engine
	driver   *ovsdb.Driver
	patcher  *kube.Patcher
	reports  kube.NodeNetworks
	door     *door.Door
	ovs      *host.OVS
	runner   *host.Runner
	machine  *machine
	physical *physical
	wires    *host.Wires
	pools    pools // nil: nobody keeps device pools
	devices  *devicing
	offload  *offloading
	ports    *cni.OVSPorts
	journal  *cni.FileJournal
	plugins  *delegate.Plugins // nil where intent comes from a directory
	health   *health
	held     held.Holding
	server   atomic.Pointer[cni.Agent] // nil until it has recovered
	networks *networks.Networks
	blocks   *networks.LocalBlocks // where intent comes from a directory

	declared declaration
	hosted   hosted

	management *management
	connected  atomic.Bool // the parts that connect makes are there
}

// ownNode tells a holding of the end of the node's own Node.
type ownNode struct {
	ovsdb.Sink
	key  intent.Key
	held *held.Holding
}

// Delete takes an object's end.
func (o ownNode) Delete(k intent.Key) {
	if k == o.key {
		o.held.Ended()
	}
	o.Sink.Delete(k)
}

// fencePatience is how long an agent waits for the one that it replaces to end.
const fencePatience = 5 * time.Second

// fence keeps other agents, and clean-ups, off this node until it is closed.
func (c *Config) fence(ctx context.Context) (*host.Fence, error) {
	return host.TakeFence(ctx, filepath.Join(filepath.Dir(c.Socket), "agent.lock"), fencePatience)
}

// run is the agent's life. Its order is its safety: alone on the node, facts before changes, the
// NIC's record before the bridge, every source synced before the first write,
// attachments of an earlier run recovered before the first call is served, and
// the runtime told that the node is ready last. Why it ends, the NodeNetwork says.
func run(ctx context.Context, cfg *Config) error {
	fence, err := cfg.fence(ctx)
	if err != nil {
		return err // not even reported: the NodeNetwork is the other agent's
	}
	defer fence.Close()
	a := &agent{cfg: cfg, health: newHealth()}
	if err = a.run(ctx); err != nil {
		a.lastReport(ctx, err)
	}
	return err
}

func (a *agent) run(ctx context.Context) error {
	cfg := a.cfg
	var err error
	if a.kernel, err = host.Open(cfg.StateDir); err != nil {
		return err
	}
	defer a.kernel.Close()
	a.health.remember(cfg.repairs())
	if a.ovs, err = host.OpenOVS(ctx, cfg.OVS); err != nil {
		return err
	}
	defer a.ovs.Close()
	if a.facts, err = discover(cfg, a.kernel, a.ovs); err != nil {
		return refused{err}
	}
	// As measured by an earlier run (flows.go): a restart changes no setting.
	a.facts.wait, _ = strconv.Atoi(a.ovs.ExternalID(ctx, "ovn-ofctrl-wait-before-clear"))
	a.facts.tunnels = newTunnels(a, furtherOf(a.ovs.ExternalID(ctx, "ovn-encap-ip")))
	a.facts.log(cfg)
	if err := a.kernel.SaveGateway(a.facts.gateway); err != nil {
		return err
	}
	if err := a.reach(); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	defer reporting.Wait()
	defer end()
	if cfg.IntentDir == "" {
		reporting.Go(func() { _ = a.report(ctx) }) // it says itself what it cannot write
	}
	defer a.close()
	if err := a.connect(ctx); err != nil {
		return err
	}
	a.connected.Store(true)
	return a.live(ctx)
}

// reach makes the clients of the API server, which is not asked yet.
func (a *agent) reach() error {
	if a.cfg.IntentDir != "" {
		return nil
	}
	if a.cfg.Kube.APIServer == "" {
		a.cfg.Kube.APIServer = a.facts.spec.Spec.APIServer
	}
	var err error
	if a.client, err = a.cfg.Kube.Connect(); err != nil {
		return err
	}
	if a.dynamic, err = a.cfg.Kube.ConnectDynamic(); err != nil {
		return err
	}
	if a.reports, err = a.cfg.Kube.ConnectNodeNetworks(); err != nil {
		return err
	}
	a.patcher = kube.NewPatcher(a.client, slog.Default())
	a.patcher.Observe = a.health.node.Patch
	return nil
}

// connect reaches the databases and makes the parts; run closes them.
func (a *agent) connect(ctx context.Context) error {
	cfg := a.cfg
	a.conns = map[rows.DB]*ovsdb.Conn{}
	endpoints := map[rows.DB]string{rows.OVS: cfg.OVS, rows.NB: cfg.NB, rows.SB: cfg.SB}
	var dbs []ovsdb.Database
	var watched []metrics.Database
	for _, db := range a.facts.databases() {
		a.health.setReady(fmt.Errorf("connecting to database %s at %s", db, endpoints[db]))
		conn, err := ovsdb.Dial(ctx, ovsdb.Config{
			DB: db, Endpoint: endpoints[db], Zone: a.facts.plan.Zone, Lock: db != rows.OVS, Observe: a.health.compiler.Transaction,
		})
		if err != nil {
			return err
		}
		a.conns[db] = conn
		dbs, watched = append(dbs, conn), append(watched, conn)
	}
	a.health.setReady(errStarting)
	var err error
	if a.ports, err = cni.DialPorts(ctx, cfg.OVS, intent.IntegrationBridge); err != nil {
		return err
	}
	config := engine.Config{
		Kinds: compile.Kinds(), Databases: a.facts.databases(),
		Bug: func(err error) { slog.Error("bug in a unit", "err", err) },
	}
	a.engine = engine.New(config)
	a.recorder, err = record.New(record.Config{Engine: config, Header: record.Header{
		Version: version.String(), Process: "portolan-node", Node: cfg.Node, Zone: a.facts.plan.Zone,
	}}, a.engine)
	if err != nil {
		return err
	}
	a.driver = ovsdb.NewDriver(ovsdb.DriverConfig{Observe: a.health.compiler.Step, Record: a.recorder}, a.engine, dbs...)
	a.health.compiler.Watch(metrics.Source{Engine: a.engine, Driver: a.driver, Databases: watched, Problems: a.health.list})
	if err := a.connectWires(); err != nil {
		return err
	}
	if err := a.connectDevices(); err != nil {
		return err
	}
	own := ownNode{Sink: a.driver.Sink(), key: intent.Key{Kind: intent.KindNode, Name: cfg.Node}, held: &a.held}
	into := door.Config{Node: cfg.Node, Tunnels: a.facts.tunnels.use, Driver: &poolSink{Driver: newPresentSink(physicalSink{own, a.physical}), pools: a.pools, key: own.key}, Own: func(n *intent.Node) *intent.Node { return a.held.Apply(a.facts.own(n)) }}
	if a.patcher != nil {
		into.Annotator = a.patcher
	}
	if a.management, err = a.newManagement(); err != nil {
		return err
	}
	a.machine.host.Management = a.management.current().Representor
	if err := a.connectNetworks(); err != nil {
		return err
	}
	a.offload = newOffloading(a)
	into.Networks = a.networks
	a.door = door.New(into)
	return nil
}

func (a *agent) close() {
	for _, c := range a.conns {
		c.Close()
	}
	a.devices.close()
	if a.ports != nil {
		a.ports.Close()
	}
	if a.plugins != nil {
		if err := a.plugins.Close(); err != nil {
			slog.Warn("records of plugins not closed", "err", err)
		}
	}
	if a.journal != nil {
		if err := a.journal.Close(); err != nil {
			slog.Warn("journal of addresses not closed", "err", err)
		}
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
	a.driver.Sink().Put(a.facts.plan)
	a.machine.change(func(*intent.Host) {})
	managed, err := a.kernel.Managed()
	if err != nil {
		return err
	}
	a.declareHost(managed, "")
	part("driver", a.recorder.Guard(filepath.Join(a.cfg.StateDir, "crash.flight"), a.driver.Run))
	if a.cfg.IntentDir != "" {
		a.blocks.Follow(a.door)
		files := &kube.WatchDir{Dir: a.cfg.IntentDir, Sink: a.door, Problems: a.health.problems, Zoning: a.zoning()}
		part("intent directory", files.Run)
	} else {
		watch := &kube.Watch{
			Client: a.client, Dynamic: a.dynamic, Sink: a.door, Problems: a.health.problems, Zoning: a.zoning(), Node: a.cfg.Node,
			Sources: kube.NodeSources(),
		}
		part("watch", func(ctx context.Context) error {
			var err error
			if watch.Ran, err = a.recall(ctx); err != nil {
				return err
			}
			return watch.Run(ctx)
		})
		part("patcher", a.patcher.Run)
	}
	part("measure", a.measure)
	part("offload", a.offload.run)
	if a.conns[rows.SB] != nil { // this node is a zone
		part("flows", a.keepFlows)
	}
	part("host", func(ctx context.Context) error { a.runner.Run(ctx); return nil })
	part("physical networks", a.keepWires)
	part("device pools", a.listPools)
	part("devices", func(ctx context.Context) error { a.devices.Run(ctx); return nil })
	part("management port", a.management.run)
	part("tunnels", a.facts.tunnels.run)
	part("health", a.serveHealth)
	part("inspect", a.serveInspect)
	part("pods", a.servePods)
	part("subnets", func(ctx context.Context) error { return a.held.Watch(ctx, a.term()) })
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

// declareHost gives the host's state. Until the node's subnets are known they are those
// of an earlier run; mac is the management port's where the Node says one.
func (a *agent) declareHost(subnets []netip.Prefix, mac string) {
	a.hosted.Lock()
	a.hosted.subnets, a.hosted.mac = subnets, mac
	a.hosted.Unlock()
	m := host.Management{Subnets: subnets, PodSubnets: a.facts.plan.PodSubnets, MTU: a.facts.plan.MTU}
	if d := a.management.current(); len(subnets) > 0 {
		m.Representor, m.Virtual, m.MAC = d.Representor, d.Virtual, cmp.Or(mac, rows.MAC(alloc.Management(subnets[0])))
	}
	a.runner.Declare(host.Node{Name: a.cfg.Node, Gateway: a.facts.gateway, Management: m, Datapath: a.facts.datapath})
}

// servePods waits for the node's subnets, takes up what an earlier run left, and
// serves the runtime.
func (a *agent) servePods(ctx context.Context) error {
	if err := cni.InstallBinary(a.cfg.CNIBinary, a.cfg.CNIBinDir); err != nil {
		return err
	}
	if err := cni.InstallCopy(a.cfg.CNIBinDir, cni.TypeSRIOV); err != nil {
		var foreign *cni.ForeignError
		if !errors.As(err, &foreign) {
			return err
		}
		slog.Info("CNI type sriov is not Portolan's on this node", "why", err)
	}
	if a.facts.multi() == cni.Multus {
		if err := cni.InstallNames(a.cfg.CNIBinDir, multus.OurTypes()); err != nil {
			return err
		}
	}
	conflist := filepath.Join(a.cfg.CNIConfDir, filepath.Base(cni.DefaultConflist))
	self, err := a.door.Wait(ctx, func(self *intent.Node, synced map[kube.Source]bool) bool {
		return self != nil && door.Complete(synced)
	})
	if err != nil {
		return err
	}
	if a.patcher != nil {
		if err := a.identify(ctx); err != nil {
			return err
		}
	}
	a.declareNode()
	if len(self.Subnets) == 0 {
		a.driver.Sink().Synced() // nothing can be attached yet, so nothing can be lost
		a.health.setReady(fmt.Errorf("waiting for the node's subnets, which portolan-manager writes as its annotation %s", kube.AnnotationNodeSubnets))
		if err := cni.RemoveConflist(conflist); err != nil {
			return err
		}
		if self, err = a.door.Wait(ctx, func(self *intent.Node, _ map[kube.Source]bool) bool {
			return self != nil && len(self.Subnets) > 0
		}); err != nil {
			return err
		}
	}
	a.held.Hold(self)
	a.declareHost(self.Subnets, self.MgmtMAC)
	server, err := a.recover(ctx, self)
	if err != nil {
		return err
	}
	a.devices.Verify()
	a.facts.tunnels.settle()
	a.driver.Sink().Synced()
	a.server.Store(server)
	a.door.Serve(server)
	listener, err := cni.Listen(a.cfg.Socket)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	wg.Go(func() { cancel(a.watchSubnets(ctx, self.Subnets)) })
	wg.Go(func() { server.Run(ctx) })
	wg.Go(func() { a.networks.Run(ctx) })
	wg.Go(func() { a.compare(ctx, server) })
	wg.Go(func() { a.announce(ctx, conflist, self.Subnets) })
	if err := server.Serve(ctx, listener); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// watchSubnets returns an error once the node has other subnets: its Node was
// deleted and came back after its rest. Everything was made for the old ones, so the
// process ends, and the next takes up what it finds.
func (a *agent) watchSubnets(ctx context.Context, had []netip.Prefix) error {
	self, err := a.door.Wait(ctx, func(self *intent.Node, _ map[kube.Source]bool) bool { return door.Moved(had, self) })
	if err != nil {
		return err
	}
	return fmt.Errorf("the node's subnets were %s and are %s now: starting anew", had, self.Subnets)
}

// recover makes the CNI server and gives it what OVS and the annotations record.
func (a *agent) recover(ctx context.Context, self *intent.Node) (*cni.Agent, error) {
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: self.Subnets})
	if err != nil {
		return nil, err
	}
	userspace := a.facts.datapath == intent.UserspaceDatapath
	links, err := cni.NewVeths(userspace, intent.AttachmentGroup)
	if err != nil {
		return nil, err
	}
	if a.journal, err = cni.OpenJournal(a.cfg.journal(), slog.Default()); err != nil {
		return nil, err
	}
	cfg := cni.Config{
		Pods: a.door.Pods(), Ports: a.ports, Links: links, Publisher: a.door, Pool: pool, Journal: a.journal, MTU: a.facts.plan.MTU,
		Generation:  int(time.Now().Unix()),
		Connections: a.kernel.Conntrack(a.facts.datapath, daemon.OVSRun),
		Written:     a.written, Ready: a.health.ready, Observe: a.health.node.Stage, Repaired: a.repaired,
	}
	if userspace {
		if err := a.kernel.HideAttachments(ctx); err != nil {
			return nil, err
		}
	}
	cfg.Networks, cfg.Tell, cfg.Status = a.networks, a.tellPod, a.door.Status
	if a.plugins, err = delegate.Open(ctx, a.cfg.delegates()); err != nil {
		return nil, err
	}
	cfg.Plugins = a.plugins
	cfg.Keeper, cfg.Devices = a.devices.keeper, a.devices
	cfg.Fell = a.tellFallen
	cfg.Cluster = slices.Concat(a.facts.plan.PodSubnets, a.facts.plan.ServiceNets, a.facts.plan.JoinSubnets)
	server, err := cni.New(cfg)
	if err != nil {
		return nil, err
	}
	pods, attached := a.door.Known()
	return server, server.Recover(ctx, pods, attached)
}

// announce tells the runtime that the node is ready, once it is: the node's own
// unit is installed in every database, and the management port is up with its
// address in each of the node's subnets.
func (a *agent) announce(ctx context.Context, conflist string, subnets []netip.Prefix) {
	if err := a.driver.Wait(ctx, "node/"+a.cfg.Node, ovsdb.Installed); err != nil {
		return
	}
	// Nothing to say of the node is installed at once, too: only flows of its own
	// port prove that ovn-controller serves this chassis.
	if err := a.ports.WaitInstalled(ctx, cmp.Or(a.management.current().Representor, intent.ManagementPort)); err != nil {
		return
	}
	for {
		err := hostReady(subnets)
		if err == nil {
			err = cni.WriteConflist(conflist, a.cfg.Socket, a.facts.multi())
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
func hostReady(subnets []netip.Prefix) error {
	link, err := net.InterfaceByName(intent.ManagementPort)
	if err != nil {
		return fmt.Errorf("management port %s: %w", intent.ManagementPort, err)
	}
	addrs, err := link.Addrs()
	if err != nil {
		return fmt.Errorf("management port %s: %w", intent.ManagementPort, err)
	}
	if link.Flags&net.FlagUp == 0 {
		return fmt.Errorf("management port %s is down", intent.ManagementPort)
	}
	if missing := missingManagement(addrs, subnets); len(missing) > 0 {
		return fmt.Errorf("management port %s has no address %v yet", intent.ManagementPort, missing)
	}
	return nil
}

// missingManagement lists the node's own addresses that a link lacks. That it has
// some address says nothing: the kernel gives it a link-local one.
func missingManagement(have []net.Addr, subnets []netip.Prefix) []netip.Addr {
	var missing []netip.Addr
	for _, s := range subnets {
		want := alloc.Management(s)
		if !slices.ContainsFunc(have, func(a net.Addr) bool {
			p, err := netip.ParsePrefix(a.String())
			return err == nil && p.Addr().Unmap() == want
		}) {
			missing = append(missing, want)
		}
	}
	return missing
}
