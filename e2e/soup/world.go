package soup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// options are what a run is made with. All but global make bugs, which the oracle
// has to find.
type options struct {
	global bool // zone=global: one zone, compiled by a controller

	quarantine  time.Duration // of addresses; 0: the product's
	forgetRests bool          // a new manager does not know what an earlier one left
	noJournal   bool          // an agent forgets what rests
	hasty       bool          // addresses rest before their rows are gone
	deaf        bool          // agents do not hear that a node is gone
	credulous   bool          // a new manager believes annotations alone
	amnesic     bool          // a new agent does not know what it ran with
}

// world is the cluster.
type world struct {
	opts      options
	api       *api
	machines  map[string]*machine
	manager   *manager    // nil: nobody leads
	central   *controller // of the global zone
	sandboxes int
	dying     bool                 // the leader ends before it writes a node the next time
	failed    error                // what the oracle saw in the middle of a step
	count     int                  // allocations seen
	terms     int                  // times that somebody has asked whether a manager leads, and one did
	has       map[types.UID]string // what a Node has, for as long as it lives
}

func newWorld(o options) *world {
	w := &world{opts: o, api: newAPI(), machines: map[string]*machine{}, has: map[types.UID]string{}}
	if o.global {
		w.central = newController(w)
	}
	return w
}

// addMachine brings a machine up, with its agent; it has a name of its own.
func (w *world) addMachine(name string) {
	if w.machines[name] != nil || w.byNode(name) != nil || w.api.nodes[name] != nil {
		return
	}
	number := 1
	for slices.ContainsFunc(w.list(), func(m *machine) bool { return m.addr == machineAddr(number) }) {
		number++
	}
	m := newMachine(w, name, number)
	w.machines[name] = m
	w.api.createNode(name)
	m.start()
}

func (w *world) list() []*machine {
	var out []*machine
	for _, name := range slices.Sorted(maps.Keys(w.machines)) {
		out = append(out, w.machines[name])
	}
	return out
}

func (w *world) byNode(node string) *machine {
	for _, m := range w.list() {
		if m.node == node {
			return m
		}
	}
	return nil
}

// broken returns what the oracle saw since it was last asked.
func (w *world) broken() error {
	err := w.failed
	w.failed = nil
	return err
}

// each does something on every machine whose agent lives; an agent that ends with
// an error is started again.
func (w *world) each(do func(*agent) error) error {
	for _, m := range w.list() {
		if m.agent == nil {
			continue
		}
		if err := m.alive(do(m.agent)); err != nil {
			return err
		}
	}
	return nil
}

// alive takes the error of an agent: when it ends the process, the kubelet starts
// another.
func (m *machine) alive(err error) error {
	var restart errRestart
	if errors.As(err, &restart) {
		m.kill()
		m.start()
		return nil
	}
	return err
}

// term is what the managers' Lease says.
func (w *world) term(context.Context) (string, error) {
	if w.manager != nil {
		w.terms++
	}
	return fmt.Sprint("term ", w.terms), nil
}

// settle lets everything live, know and do all that there is to know and do.
func (w *world) settle() error {
	w.dying = false
	if w.manager == nil {
		var err error
		if w.manager, err = lead(w); err != nil {
			return err
		}
	}
	for _, m := range w.list() {
		for _, db := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
			if err := m.setDown(db, false); err != nil {
				return err
			}
		}
		m.start()
	}
	if w.central != nil {
		if err := w.central.settle(); err != nil {
			return err
		}
	}
	for range 50 {
		before := w.api.version
		if err := w.round(); err != nil {
			return err
		}
		if w.api.version == before && w.atRest() {
			return nil
		}
		time.Sleep(20 * time.Second) // rests, quarantines and backoffs end
	}
	return fmt.Errorf("does not come to rest: %s", w.unrest())
}

// round gives everybody all news once.
func (w *world) round() error {
	w.manager.nodes.list()
	w.manager.work(0)
	if err := w.each(func(a *agent) error {
		return errors.Join(a.deliver(kube.Nodes, 1<<20), a.deliver(kube.Pods, 1<<20))
	}); err != nil {
		return err
	}
	if err := w.each((*agent).work); err != nil {
		return err
	}
	for _, m := range w.list() {
		if err := m.alive(m.kubelet()); err != nil {
			return err
		}
	}
	if err := w.each(func(a *agent) error { err := a.work(); a.flush(); return err }); err != nil {
		return err
	}
	if w.central != nil {
		if err := w.central.settle(); err != nil {
			return err
		}
	}
	return w.tick(time.Minute)
}

// tick tells every engine of time that has passed.
func (w *world) tick(d time.Duration) error {
	for _, sh := range w.shells() {
		sh.Tick(d.Milliseconds())
		if err := sh.Settle(); err != nil {
			return err
		}
	}
	return nil
}

// shells are all compilers that have begun.
func (w *world) shells() []*script.Shell {
	var out []*script.Shell
	for _, m := range w.list() {
		if m.agent != nil && m.agent.ready {
			out = append(out, m.agent.shell)
		}
	}
	if w.central != nil {
		out = append(out, w.central.shell)
	}
	return out
}

func (w *world) atRest() bool { return w.unrest() == "" }

// unrest says what is not done yet, "" when nothing.
func (w *world) unrest() string {
	for _, m := range w.list() {
		switch a := m.agent; {
		case w.api.nodes[m.node] == nil:
			continue // it has been deleted, and nobody registers it
		case !a.serving:
			return m.name + " does not serve"
		case a.nodes.behind()+a.pods.behind() > 0:
			return m.name + " is behind"
		case len(a.waits) > 0:
			return m.name + " waits for " + a.waits[0].group
		case len(a.patches) > 0:
			return m.name + " has annotations to write"
		case len(a.held.Problems()) > 0:
			return m.name + ": " + a.held.Problems()[0].Message
		}
		for _, s := range m.agent.shell.Engine().Statuses() {
			return m.name + ": " + s.String()
		}
		for _, s := range m.sandbox {
			if p := w.api.pods[s.pod]; p == nil || string(p.UID) != s.uid {
				return m.name + " has the sandbox of a pod that is gone, " + s.pod
			}
		}
	}
	for name, p := range w.api.pods {
		if m := w.byNode(p.Spec.NodeName); m != nil && w.api.nodes[m.node] != nil && !completed(p) {
			if _, ok := m.sandbox[string(p.UID)]; !ok {
				return "pod " + name + " has no sandbox"
			}
		}
	}
	return ""
}

// controller is the global zone's: it compiles every node and pod, and allocates
// nothing.
type controller struct {
	world    *world
	dbs      zoneDBs
	shell    *script.Shell
	nodes    *watch
	pods     *watch
	uptodate time.Time
}

func newController(w *world) *controller {
	c := &controller{world: w, dbs: newZoneDBs(rows.NB, rows.SB)}
	c.start()
	return c
}

// start begins another life of the controller.
func (c *controller) start() {
	c.shell = script.New(script.Config{Kinds: kinds(), Databases: c.dbs.list()})
	c.shell.Put(cluster("global", true))
	c.nodes = followNodes(c.world, kube.Allocation{}, "", func(n *intent.Node) { c.shell.Put(n) }, func(k intent.Key) { c.shell.Delete(k) })
	drop := func(name string) {
		c.shell.Delete(intent.Key{Kind: intent.KindPod, Name: namespace + "/" + name})
	}
	c.pods = &watch{api: c.world.api, kind: kube.Pods, known: map[string]bool{}, drop: drop, put: func(ch change) {
		if p, _ := kube.ParsePod(ch.pod); p != nil {
			c.shell.Put(p)
		} else {
			drop(ch.name)
		}
	}}
	c.nodes.list()
	c.pods.list()
}

// followNodes is a watch of nodes as the product reads them; ran is what a node is known
// to run with.
func followNodes(w *world, ran kube.Allocation, node string, put func(*intent.Node), drop func(intent.Key)) *watch {
	past := kube.NewPast(zoning(w.opts.global))
	past.Pin(node, ran)
	look := func(n *corev1.Node) {
		o, _ := past.Node(n)
		put(o)
	}
	settle := func() {
		for _, n := range past.Again() {
			look(n)
		}
	}
	return &watch{
		api: w.api, kind: kube.Nodes, known: map[string]bool{},
		put: func(c change) { look(c.node); settle() },
		drop: func(name string) {
			drop(intent.Key{Kind: intent.KindNode, Name: name})
			past.Forget(name)
			settle()
		},
	}
}

// deliver hands on n entries of each kind, and writes what they make.
func (c *controller) deliver(n int) error {
	for range n {
		c.nodes.deliver()
		c.pods.deliver()
	}
	if err := c.shell.Settle(); err != nil {
		return fmt.Errorf("the global zone's controller: %w", err)
	}
	if c.nodes.behind()+c.pods.behind() == 0 {
		c.uptodate = time.Now()
	}
	return nil
}

func (c *controller) settle() error { return c.deliver(len(c.world.api.log) + 1) }

// kinds are the product's, and one that every zone has an interest of: an address
// set for each pod, as policies will make them. Its rows are in every zone that
// has heard of the pod.
func kinds() []engine.UnitKind {
	return append(productKinds(), engine.UnitKind{
		Name:  "peer",
		Spawn: map[intent.Kind]func(intent.Object) string{intent.KindPod: func(o intent.Object) string { return o.Key().Name }},
		Compile: func(v *intent.View, key string) (out rows.Output) {
			p, ok := intent.Get[*intent.Pod](v, intent.Key{Kind: intent.KindPod, Name: key})
			if !ok {
				return out
			}
			at, ok := p.Attachment(intent.DefaultNetwork)
			if !ok {
				return out
			}
			var addresses []string
			for _, a := range at.Addresses {
				addresses = append(addresses, a.Addr().String())
			}
			out.Add(rows.New("NB:Address_Set", "peer/"+key+"/"+p.UID, map[string]rows.Value{
				"name": rows.Str("peer_" + p.Name), "addresses": rows.Strings(addresses...),
				"external_ids": rows.Map(map[string]string{"uid": p.UID}),
			}))
			return out
		},
	})
}

// allocated is told of every allocation before anybody else is, and of those that
// an agent takes up at its start.
func (w *world) allocated(m *machine, at cni.Attachment) {
	w.count++
	resting := 0
	held, _ := m.journal.List()
	for _, h := range held {
		if !h.Freed.IsZero() && time.Since(h.Freed) < alloc.DefaultQuarantine {
			resting++
		}
	}
	if u := m.agent.pool.Usage()[0]; uint64(u.Used+resting) > u.Size {
		return // without room an address rests no longer: docs/limits.md
	}
	for _, p := range at.Addresses {
		if who := w.listed(m, p.Addr(), at.Pod); who != "" && w.failed == nil {
			w.failed = fmt.Errorf("pod %s (%s) is given %s by %s, but %s", at.Pod.Name, at.Pod.UID, p.Addr(), m.name, who)
		}
	}
}
