package soup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/cmd/portolan-node/door"
	"github.com/portolan-cni/portolan/cmd/portolan-node/held"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// agent is one life of portolan-node on a machine.
type agent struct {
	m       *machine
	shell   *script.Shell
	door    *door.Door
	server  *cni.Agent // nil until the node has subnets
	pool    *alloc.Pool
	ready   bool // the engine may write
	begun   bool // and has
	serving bool
	nodes   *watch
	pods    *watch
	patches map[kube.Target]map[string]string // annotations not written yet
	waits   []withdrawal
	held    held.Holding
}

// withdrawal is a call that waits until a group's rows are as they should be.
type withdrawal struct {
	group string
	done  func()
}

func newAgent(m *machine) *agent {
	a := &agent{m: m, patches: map[kube.Target]map[string]string{}}
	a.shell = script.New(script.Config{Kinds: kinds(), Databases: m.dbs.list()})
	for db, down := range m.down {
		if down {
			a.shell.Down(db)
		}
	}
	a.door = door.New(door.Config{Node: m.node, Driver: a, Annotator: a, Own: a.own, Log: quiet()})
	var ran kube.Allocation
	if !m.world.opts.amnesic {
		ran = m.world.api.reports[m.node]
	}
	a.held.Remember(ran)
	a.nodes = followNodes(m.world, ran, m.node, func(n *intent.Node) { a.door.Put(n) }, a.dropNode)
	a.pods = &watch{api: m.world.api, kind: kube.Pods, known: map[string]bool{}, put: a.putPod, drop: a.dropPod}
	a.shell.Put(cluster(m.node, m.world.opts.global))
	a.shell.Put(&intent.Host{
		Node: m.node, Chassis: m.name, Datapath: intent.UserspaceDatapath, Bridge: "br-ex", BridgeMAC: mac(m.addr),
		NIC: "eth0", EncapIPs: []netip.Addr{m.addr}, Remote: "unix:/run/ovn/ovnsb_db.sock",
	})
	a.door.Synced(kube.Namespaces)
	return a
}

func mac(a netip.Addr) string { return rows.MAC(a) }

func cluster(zone string, global bool) *intent.Cluster {
	return &intent.Cluster{
		Zone: zone, GlobalZone: global, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, MTU: 1400,
		JoinSubnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, TransitNets: []netip.Prefix{netip.MustParsePrefix("100.88.0.0/16")},
		Masquerade: []netip.Prefix{netip.MustParsePrefix("169.254.169.0/29")}, ServiceNets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
}

// own adds to the node what its agent knows of it.
func (a *agent) own(n *intent.Node) *intent.Node {
	o := *a.held.Apply(n)
	o.Chassis, o.EncapIPs = a.m.name, []netip.Addr{a.m.addr}
	o.Gateway = intent.Gateway{
		Bridge: "br-ex", Interface: "eth0", MAC: mac(a.m.addr),
		Addresses: []netip.Prefix{netip.PrefixFrom(a.m.addr, 24)}, NextHops: []netip.Addr{netip.MustParseAddr("172.18.0.1")},
	}
	return &o
}

// Put, Delete, Synced and Withdrawn are door.Driver's.
func (a *agent) Put(o intent.Object) { a.shell.Put(o) }
func (a *agent) Delete(k intent.Key) { a.shell.Delete(k) }
func (a *agent) Synced()             {} // the shell says it when it first settles

// Withdrawn is door.Driver's.
func (a *agent) Withdrawn(group string, done func()) {
	if a.m.world.opts.hasty {
		done()
		return
	}
	a.waits = append(a.waits, withdrawal{group, done})
}

// Annotate is door.Annotator's: the last value of a key wins.
func (a *agent) Annotate(t kube.Target, values map[string]string) {
	if a.patches[t] == nil {
		a.patches[t] = map[string]string{}
	}
	maps.Copy(a.patches[t], values)
}

// flush writes annotations to the API server.
func (a *agent) flush() {
	for _, t := range slices.SortedFunc(maps.Keys(a.patches), func(x, y kube.Target) int { return cmp.Compare(x.String()+x.UID, y.String()+y.UID) }) {
		if t.Namespace == "" {
			a.m.world.api.annotateNode(t.Name, "", a.patches[t])
		} else {
			a.m.world.api.annotatePod(t, a.patches[t])
		}
	}
	clear(a.patches)
	if a.serving && a.m.world.api.nodes[a.m.node] != nil {
		a.m.world.api.report(a.m.node, a.held.Allocation())
	}
}

func zoning(global bool) kube.Zoning {
	if global {
		return kube.ZoneGlobal
	}
	return kube.ZonePerNode
}

func (a *agent) dropNode(k intent.Key) {
	if a.m.world.opts.deaf {
		return
	}
	if k.Name == a.m.node {
		a.held.Ended()
	}
	a.door.Delete(k)
}

func (a *agent) putPod(c change) {
	if p, _ := kube.ParsePod(c.pod); p != nil {
		a.door.Put(p)
		return
	}
	a.dropPod(c.name)
}

func (a *agent) dropPod(name string) {
	a.door.Delete(intent.Key{Kind: intent.KindPod, Name: namespace + "/" + name})
}

// deliver hands on what n entries of both watches say, lists first.
func (a *agent) deliver(kind kube.Source, n int) error {
	w := a.watchOf(kind)
	if !w.began {
		w.list()
		a.door.Synced(kind)
		n--
	}
	for ; n > 0 && w.deliver(); n-- {
	}
	return a.proceed()
}

func (a *agent) watchOf(kind kube.Source) *watch {
	if kind == kube.Nodes {
		return a.nodes
	}
	return a.pods
}

// errRestart ends the process, as an error of one of portolan-node's parts does.
type errRestart struct{ cause string }

func (e errRestart) Error() string { return e.cause }

// proceed is what portolan-node's servePods does: once all is listed and the node
// has subnets, what an earlier life left is taken up, and calls are served.
func (a *agent) proceed() error {
	if !a.nodes.began || !a.pods.began {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// With a context that has ended Wait still answers when there is nothing to wait for.
	self, err := a.door.Wait(ctx, func(self *intent.Node, _ map[kube.Source]bool) bool { return self != nil })
	if err != nil {
		return nil
	}
	if a.serving {
		return a.m.world.broken()
	}
	a.door.Declare(kube.AgentAnnotations(self, 0), func(said *intent.Node) bool { return said.Equal(a.own(said)) })
	if len(self.Subnets) == 0 {
		a.ready = true // nothing can be attached yet, so nothing can be lost
		return nil
	}
	a.held.Hold(self)
	a.pool, err = alloc.NewPool(alloc.PoolConfig{Subnets: self.Subnets, Quarantine: a.m.world.opts.quarantine})
	if err != nil {
		return err
	}
	cfg := cni.Config{
		Pods: a.door.Pods(), Ports: a.m.ports, Links: a.m.links, Publisher: publisher{a.door, a}, Pool: a.pool, Journal: a.m.journal, MTU: 1400, Log: quiet(),
	}
	if a.m.world.opts.noJournal {
		cfg.Journal = nil
	}
	a.server, err = cni.New(cfg)
	if err != nil {
		return err
	}
	pods, known := a.door.Known()
	if err := a.server.Recover(context.Background(), pods, known); err != nil {
		if a.m.down[rows.OVS] {
			return errRestart{err.Error()}
		}
		return fmt.Errorf("%s: %w", a.m.name, err)
	}
	a.ready, a.serving = true, true
	a.door.Serve(a.server)
	return a.m.world.broken()
}

// publisher sees every allocation before the door does.
type publisher struct {
	*door.Door
	a *agent
}

// Attached implements cni.Publisher.
func (p publisher) Attached(pod cni.Pod, all []cni.Attachment) {
	for _, at := range all {
		p.a.m.world.allocated(p.a.m, at)
	}
	p.Door.Attached(pod, all)
}

func (a *agent) knows(pod, uid string) bool {
	return slices.ContainsFunc(a.door.Pods().List(), func(p cni.Pod) bool { return p.Name == pod && p.UID == uid })
}

// work does what waits in the process: the CNI server's queue, and the engine's
// transactions.
func (a *agent) work() error {
	for a.server != nil && a.server.Turn(context.Background()) {
	}
	if a.ready {
		if err := a.write(); err != nil {
			return fmt.Errorf("%s: %w", a.m.name, err)
		}
	}
	a.withdraw()
	if a.serving {
		if err := a.held.Look(context.Background(), a.m.world.term, time.Now()); err != nil {
			a.m.world.api.report(a.m.node, a.held.Allocation()) // its last words
			return errRestart{err.Error()}
		}
	}
	return a.m.world.broken()
}

// write performs the engine's transactions; the chassis installs them at once.
func (a *agent) write() error {
	a.begun = true
	if err := a.shell.Settle(); err != nil {
		return err
	}
	if nb := a.m.dbs[rows.NB]; nb != nil && !a.m.down[rows.NB] && nb.HvCfg != nb.NbCfg {
		nb.HvCfg = nb.NbCfg
		a.shell.Event(engine.Event{Installed: nb.HvCfg})
		if err := a.shell.Settle(); err != nil {
			return err
		}
	}
	if a.nodes.behind()+a.pods.behind() == 0 && len(a.shell.Engine().Statuses()) == 0 && !a.m.anyDown() {
		a.m.uptodate = time.Now()
	}
	return nil
}

// withdraw calls those whose rows are as they should be.
func (a *agent) withdraw() {
	var left []withdrawal
	for _, w := range a.waits {
		if _, installed := a.shell.Engine().Marks(w.group); installed {
			w.done()
		} else {
			left = append(left, w)
		}
	}
	a.waits = left
}

func completed(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}
