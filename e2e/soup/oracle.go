package soup

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

func productKinds() []engine.UnitKind { return compile.Kinds() }

// fresh is how far behind a zone may be that is called live: less than addresses
// rest.
const fresh = 50 * time.Second

// listed says who else has an address: a sandbox, a zone that is live, or the zone
// of the machine that allocates, however stale, once its compiler has begun: what an
// earlier life's database has too much goes in the batch that brings the new pod's
// row. "" is nobody.
func (w *world) listed(by *machine, a netip.Addr, pod cni.Pod) string {
	for _, m := range w.list() {
		for _, uid := range slices.Sorted(maps.Keys(m.sandbox)) {
			if s := m.sandbox[uid]; uid != pod.UID && has(m.links.In("/run/netns/"+s.id), a) {
				return fmt.Sprintf("the sandbox of pod %s (%s) on %s has it", s.pod, uid, m.name)
			}
		}
		if who := holder(m.dbs[rows.NB], a, pod); who != "" && (m == by && m.agent.begun || time.Since(m.uptodate) < fresh) {
			return fmt.Sprintf("%s's zone lists it for %s", m.name, who)
		}
	}
	if w.central != nil && time.Since(w.central.uptodate) < fresh {
		if who := holder(w.central.dbs[rows.NB], a, pod); who != "" {
			return "the global zone lists it for " + who
		}
	}
	return ""
}

// holder names the pod that a northbound database gives an address to, if it is
// another.
func holder(db *database, a netip.Addr, pod cni.Pod) string {
	if db == nil {
		return ""
	}
	for _, r := range read(db) {
		switch r.Table {
		case "NB:Logical_Switch_Port":
			words := strings.Fields(text(r, "addresses"))
			if uid := entry(r, "options", "iface-id-ver"); uid != "" && uid != pod.UID && slices.Contains(words, a.String()) {
				return "port " + text(r, "name") + " of " + uid
			}
		case "NB:Address_Set":
			v, _ := r.Column("addresses")
			if uid := entry(r, "external_ids", "uid"); uid != pod.UID && slices.ContainsFunc(v, func(p rows.Pair) bool { return p.Key.Str == a.String() }) {
				return "pod " + uid
			}
		}
	}
	return ""
}

// read is all that is ours in a database.
func read(db *database) []rows.Row {
	var out []rows.Row
	for _, a := range db.DB.Snapshot().Rows {
		out = append(out, rows.Row{Ref: a.Ref, Parent: a.Parent, Columns: a.Columns})
	}
	return out
}

func text(r rows.Row, column string) string {
	v, ok := r.Column(column)
	if !ok || len(v) == 0 {
		return ""
	}
	if v[0].Key.Kind == rows.Reference {
		return v[0].Key.Ref.ID
	}
	return v[0].Key.Str
}

func entry(r rows.Row, column, key string) string {
	v, _ := r.Column(column)
	got, _ := v.Get(rows.S(key))
	return got.Str
}

// check is what must hold whenever all has settled.
func (w *world) check() error {
	errs := []error{w.unique(), w.lasting()}
	for _, z := range w.zones() {
		errs = append(errs, z.check())
	}
	return errors.Join(append(errs, w.reachable())...)
}

// unique refuses an id, a subnet or an address that is held twice.
func (w *world) unique() error {
	held := map[string]string{}
	var errs []error
	hold := func(what, who string) {
		if other, ok := held[what]; ok {
			errs = append(errs, fmt.Errorf("%s and %s both have %s", other, who, what))
		}
		held[what] = who
	}
	for _, name := range slices.Sorted(maps.Keys(w.api.nodes)) {
		n := w.api.nodes[name]
		hold("id "+n.Annotations[kube.AnnotationNodeID], "node "+name)
		hold("subnet "+n.Annotations[kube.AnnotationNodeSubnets], "node "+name)
	}
	for _, name := range slices.Sorted(maps.Keys(w.api.pods)) {
		if p, _ := kube.ParsePod(w.api.pods[name]); p != nil && w.api.nodes[p.Node] != nil {
			for _, at := range p.Attachments {
				hold("address "+at.Addresses[0].Addr().String(), "pod "+name)
			}
		}
	}
	return errors.Join(errs...)
}

// lasting refuses a Node that has another id or subnet than it had.
func (w *world) lasting() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(w.api.nodes)) {
		n := w.api.nodes[name]
		has := n.Annotations[kube.AnnotationNodeID] + " " + n.Annotations[kube.AnnotationNodeSubnets]
		if had, known := w.has[n.UID]; known && had != has {
			errs = append(errs, fmt.Errorf("node %s has %s, and had %s", name, has, had))
		}
		w.has[n.UID] = has
	}
	return errors.Join(errs...)
}

// zone is one compiler with its databases, and what it should know.
type zone struct {
	name    string
	shell   *script.Shell
	dbs     zoneDBs
	objects []intent.Object
}

func (w *world) zones() []zone {
	var out []zone
	for _, m := range w.list() {
		if w.api.nodes[m.node] != nil {
			out = append(out, zone{m.node, m.agent.shell, m.dbs, w.truth(m)})
		}
	}
	if w.central != nil {
		out = append(out, zone{"global", w.central.shell, w.central.dbs, w.truth(nil)})
	}
	return out
}

// truth is what the API server and the machine say now, as intent: nil for the
// controller of the global zone.
func (w *world) truth(m *machine) []intent.Object {
	zoneName := "global"
	var out []intent.Object
	if m != nil {
		zoneName = m.node
		o, _ := m.agent.shell.Engine().Object(intent.Key{Kind: intent.KindHost, Name: m.node})
		out = append(out, o)
	}
	out = append(out, cluster(zoneName, w.opts.global))
	for _, name := range slices.Sorted(maps.Keys(w.api.nodes)) {
		n, _ := kube.ParseNode(w.api.nodes[name], zoning(w.opts.global))
		if m != nil && name == m.node {
			n = m.agent.own(n)
		}
		out = append(out, n)
	}
	for _, name := range slices.Sorted(maps.Keys(w.api.pods)) {
		if p, _ := kube.ParsePod(w.api.pods[name]); p != nil {
			out = append(out, p)
		}
	}
	return out
}

// check compares a zone with one that is made anew from what is true now, and a
// compiler that starts on its databases with one that has nothing to do.
func (z zone) check() error {
	clean, again := zoneDBs{}, zoneDBs{}
	for name, db := range z.dbs {
		clean[name], again[name] = &database{DB: enginetest.New(name)}, &database{DB: db.DB.Clone()}
		if len(db.Lost) > 0 {
			return fmt.Errorf("zone %s: %s: written and silently lost: %v", z.name, name, db.Lost)
		}
		if names := db.Dangling(); len(names) > 0 {
			return fmt.Errorf("zone %s: %s: %v", z.name, name, names)
		}
	}
	if _, err := z.play(clean); err != nil {
		return err
	}
	for name, db := range z.dbs {
		if d := difference(rows.Format(read(clean[name]), nil), rows.Format(read(db), nil)); d != "" {
			return fmt.Errorf("zone %s: %s: a fresh install's rows (-) and these (+) differ:\n%s", z.name, name, d)
		}
	}
	ops, err := z.play(again)
	if err == nil && len(ops) > 0 {
		err = fmt.Errorf("zone %s: a restart writes:\n%s", z.name, ops[0])
	}
	return err
}

// play compiles what is true into databases, and returns what it wrote.
func (z zone) play(dbs zoneDBs) ([]engine.Txn, error) {
	sh := script.New(script.Config{Kinds: kinds(), Databases: dbs.list()})
	for _, o := range z.objects {
		sh.Put(o)
	}
	err := sh.Settle()
	return sh.Ops(), err
}

func difference(want, got string) string {
	if want == got {
		return ""
	}
	var out []string
	for _, l := range strings.Split(cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")), "\n") {
		if t := strings.TrimSpace(l); strings.HasPrefix(t, "-") || strings.HasPrefix(t, "+") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}
