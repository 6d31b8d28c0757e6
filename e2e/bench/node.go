package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/presence"
	"github.com/portolan-cni/portolan/pkg/rows"
)

const (
	nodeName      = "ptb"
	gatewayBridge = "br-ex"
	mtu           = 1400
)

// node is what portolan-node is made of, without the API server: pods are bound
// and unbound by whoever calls.
type node struct {
	zone   *zone
	conns  []*ovsdb.Conn
	driver *ovsdb.Driver
	sink   *presence.Counter // before the driver's
	ports  *cni.OVSPorts
	pods   *cni.PodStore
	agent  *cni.Agent
	pool   *alloc.Pool

	networks *networks.Networks // the others than the default one
	devices  devices
	stages   *stages
	socket   string
	floor    *floor // nil until a part needs it
}

// startNode brings the zone up to the point where portolan-node would write its
// conflist, and serves CNI calls.
func startNode(ctx context.Context, z *zone) (*node, error) {
	n := &node{zone: z, pods: cni.NewPodStore(), stages: newStages(), socket: filepath.Join(z.dir, "cni", "cni.sock")}
	if err := n.connect(ctx); err != nil {
		return nil, err
	}
	go func() { _ = n.driver.Run(ctx) }()
	n.declare()
	wait, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := errors.Join(n.driver.Wait(wait, "node/"+nodeName, ovsdb.Committed), n.driver.Wait(wait, "vswitch/"+nodeName, ovsdb.Committed)); err != nil {
		return nil, err
	}
	if err := z.startController(); err != nil {
		return nil, err
	}
	// As portolan-node does: its own port's flows show that ovn-controller is at work.
	if err := n.ports.WaitInstalled(wait, intent.ManagementPort); err != nil {
		return nil, err
	}
	return n, n.serve(ctx)
}

func (n *node) connect(ctx context.Context) error {
	quiet := slog.New(slog.DiscardHandler)
	var dbs []ovsdb.Database
	for _, db := range []struct {
		name   rows.DB
		socket string
	}{{rows.OVS, "ovs"}, {rows.NB, "nb"}, {rows.SB, "sb"}} {
		c, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db.name, Endpoint: n.zone.socket(db.socket), Zone: nodeName, Lock: db.name != rows.OVS, Logger: quiet})
		if err != nil {
			return err
		}
		n.conns = append(n.conns, c)
		dbs = append(dbs, c)
	}
	var err error
	n.ports, err = cni.DialPorts(ctx, n.zone.socket("ovs"), intent.IntegrationBridge)
	e := engine.New(engine.Config{Kinds: compile.Kinds(), Databases: []rows.DB{rows.OVS, rows.NB, rows.SB}})
	n.driver = ovsdb.NewDriver(ovsdb.DriverConfig{Logger: quiet}, e, dbs...)
	n.sink = presence.New(n.driver.Sink())
	n.networks = newNetworks(n.sink.Put)
	return err
}

func (n *node) close() {
	n.devices.close()
	n.ports.Close()
	for _, c := range n.conns {
		c.Close()
	}
}

func subnet() netip.Prefix { return netip.MustParsePrefix("10.244.2.0/24") }

// declare gives the intent of a zone of one node.
func (n *node) declare() {
	encap := netip.MustParseAddr(nodeIP)
	sink := n.sink
	sink.Put(&intent.Cluster{
		Zone: nodeName, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, MTU: mtu,
		JoinSubnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, TransitNets: []netip.Prefix{netip.MustParsePrefix("100.88.0.0/16")},
		Masquerade:  []netip.Prefix{netip.MustParsePrefix("169.254.169.0/29")},
		ServiceNets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	})
	sink.Put(&intent.Host{Node: nodeName, Chassis: nodeName, Datapath: intent.UserspaceDatapath, Bridge: gatewayBridge,
		EncapIPs: []netip.Addr{encap}, Remote: n.zone.socket("sb")})
	sink.Put(&intent.Node{Name: nodeName, Zone: nodeName, ID: 2, Subnets: []netip.Prefix{subnet()}, Chassis: nodeName,
		EncapIPs: []netip.Addr{encap},
		Gateway: intent.Gateway{Bridge: gatewayBridge, MAC: "02:00:ac:12:00:02",
			Addresses: []netip.Prefix{netip.MustParsePrefix("172.18.0.2/24")}, NextHops: []netip.Addr{netip.MustParseAddr("172.18.0.1")}}})
	n.driver.Sink().Synced()
}

func (n *node) serve(ctx context.Context) error {
	links, err := cni.NewVeths(true, intent.AttachmentGroup)
	if err != nil {
		return err
	}
	kernel, err := host.Open(n.zone.dir)
	if err != nil {
		return err
	}
	defer kernel.Close()
	if err := kernel.HideAttachments(ctx); err != nil {
		return err
	}
	if n.pool, err = alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{subnet()}}); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(n.zone.dir, "cni.log"))
	if err != nil {
		return err
	}
	keeper, err := n.devices.open(n.zone.dir, n.ports)
	if err != nil {
		return err
	}
	n.agent, err = cni.New(cni.Config{Devices: &n.devices, Keeper: keeper, Pods: n.pods, Ports: n.ports, Links: links, Publisher: n, Pool: n.pool, Networks: n.networks, MTU: mtu,
		Timeout: 30 * time.Second, Observe: n.stages.observe, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return err
	}
	if err := n.agent.Recover(ctx, nil, nil); err != nil {
		return err
	}
	l, err := cni.Listen(n.socket)
	if err != nil {
		return err
	}
	go n.agent.Run(ctx)
	go func() { _ = n.agent.Serve(ctx, l) }()
	return nil
}

// bind is what the informer says of a new pod.
func (n *node) bind(p cni.Pod) {
	n.pods.Set(p)
	n.sink.Put(intentOf(p, nil))
	n.agent.Bound(p)
}

// unbind is what it says of one that is gone; it returns when all of it is.
func (n *node) unbind(ctx context.Context, p cni.Pod) error {
	n.pods.Delete(p.Namespace, p.Name, p.UID)
	o := intentOf(p, nil)
	n.sink.Delete(o.Key())
	return errors.Join(n.agent.Forget(ctx, p.UID), n.driver.Wait(ctx, "pod/"+o.Key().Name, ovsdb.Installed))
}

// addressOf is the address that a pod has been given.
func (n *node) addressOf(p cni.Pod) string {
	if has := n.pool.Lookup(p.UID); len(has) > 0 {
		return has[0].Addr().String()
	}
	return ""
}

// Attached is cni.Publisher's: the allocation becomes intent, as in the agent.
func (n *node) Attached(p cni.Pod, all []cni.Attachment) {
	list := make([]intent.Attachment, len(all))
	for i, a := range all {
		list[i] = intent.Attachment{Network: a.Key, MAC: a.MAC.String(), Addresses: a.Addresses, Gateways: a.Gateways}
	}
	n.sink.Put(intentOf(p, list))
}

// Released is cni.Publisher's.
func (n *node) Released(_ cni.Pod, _ []cni.Attachment, done func()) { done() }

func intentOf(p cni.Pod, attached []intent.Attachment) *intent.Pod {
	return &intent.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: nodeName, Attachments: attached}
}

// stages keeps the time that each stage of the CNI server's calls took.
type stages struct {
	mu    sync.Mutex // guards the rest
	times map[string][]time.Duration
	of    string // what the calls are of that come now; "" where that is not told apart
}

func newStages() *stages { return &stages{times: make(map[string][]time.Duration)} }

func (s *stages) observe(command, stage string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := command + " " + stage
	if s.of != "" {
		key = s.of + " " + key
	}
	s.times[key] = append(s.times[key], d)
}

// reset forgets what was observed.
func (s *stages) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times, s.of = make(map[string][]time.Duration), ""
}

// follow says what the next calls are of.
func (s *stages) follow(of string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of = of
}

// print shows the stages that take more than a tenth of a millisecond.
func (s *stages) print(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(w, "\nStages of portolan-node's calls, p50 and p99 in ms, prepared and unprepared together:")
	for _, k := range slices.Sorted(maps.Keys(s.times)) {
		if d := sorted(s.times[k]); quantile(d, 50) > 100*time.Microsecond {
			fmt.Fprintf(w, "  %-28s %7s %7s  (%d)\n", k, ms(quantile(d, 50)), ms(quantile(d, 99)), len(d))
		}
	}
}
