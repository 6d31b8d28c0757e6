package inspect

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Plan says what applying a manifest would change or, with remove, what deleting
// its objects would. A second engine compiles a copy of the intent and then the
// manifest; the databases are not asked.
func (s *Server) Plan(ctx context.Context, text []byte, remove bool) (Plan, error) {
	p := planner{node: s.src.Identity.Node, out: Plan{Objects: []PlannedObject{}, Rows: []PlannedRow{}, Edges: []PlannedEdge{}, Costs: []Cost{}}}
	if s.src.Door == nil {
		return p.out, refuse(http.StatusNotFound, "this process makes no plans")
	}
	manifest, problems := s.src.Door(text)
	for _, x := range problems {
		p.out.Problems = append(p.out.Problems, problemOf(x))
	}
	if len(manifest) == 0 && len(problems) == 0 {
		return p.out, refuse(http.StatusBadRequest, "the manifest holds no object that Portolan reads")
	}
	var have []intent.Object
	var dbs []rows.DB
	if err := s.src.Driver.Do(ctx, func() { have, dbs = objectsOf(s.src.Engine), s.src.Engine.Databases() }); err != nil {
		return p.out, err
	}
	e := engine.New(engine.Config{Kinds: s.src.Kinds, Databases: dbs})
	events := make([]engine.Event, 0, len(have)+len(dbs)+1)
	p.have = map[intent.Key]intent.Object{}
	for _, o := range have {
		p.have[o.Key()] = o
		events = append(events, engine.Event{Put: o})
	}
	events = append(events, engine.Event{Synced: true})
	for _, db := range dbs {
		events = append(events, engine.Event{Snapshot: &engine.Snapshot{DB: db}})
	}
	settle(e, events)
	if s.src.Foresee != nil {
		f := s.src.Foresee(have, manifest, remove)
		p.out.Notes = f.Notes
		for _, x := range f.Problems {
			p.out.Problems = append(p.out.Problems, problemOf(x))
		}
		p.foreseen = f
	}
	before, known := e.Problems(), newState(e, dbs)
	if remove {
		events = p.deletions(manifest)
	} else {
		events = p.puts(manifest)
	}
	txns := settle(e, append(events, p.foreseenEvents()...))
	known.compare(newState(e, dbs), &p.out)
	p.account(txns)
	for _, x := range e.Problems() {
		if !slices.Contains(before, x) {
			p.out.Problems = append(p.out.Problems, problemOf(x))
		}
	}
	p.out.Waiting = groupsOf(e)
	return p.out, nil
}

// objectsOf lists what was put into an engine's store.
func objectsOf(e *engine.Engine) []intent.Object {
	kinds := intent.Kinds()
	var out []intent.Object
	for _, k := range e.Store().Keys() {
		if o, ok := e.Object(k); ok && kinds[k.Kind] != nil {
			out = append(out, o)
		}
	}
	return out
}

// settle steps an engine, every transaction of which succeeds, until it is at rest.
func settle(e *engine.Engine, events []engine.Event) []engine.Txn {
	var all []engine.Txn
	for {
		ready := e.Step(events)
		if len(ready.Txns) == 0 {
			return all
		}
		all = append(all, ready.Txns...)
		events = nil
		for _, t := range ready.Txns {
			events = append(events, engine.Event{Result: &engine.Result{DB: t.DB, Txn: t.ID}})
		}
	}
}

// planner turns a manifest into events, and their consequences into a Plan.
type planner struct {
	node  string // that pods are assumed to come to; "": of a zone of many nodes
	have  map[intent.Key]intent.Object
	pools map[string]*alloc.Pool // by node, once made
	out   Plan

	foreseen Foresight
}

// foreseenEvents are what follows from the manifest.
func (p *planner) foreseenEvents() []engine.Event {
	var events []engine.Event
	for _, o := range p.foreseen.Objects {
		change := "added"
		if p.have[o.Key()] != nil {
			change = "changed"
		}
		p.out.Objects = append(p.out.Objects, PlannedObject{o.Key().String(), change})
		events = append(events, engine.Event{Put: o})
	}
	for _, k := range p.foreseen.Gone {
		p.out.Objects = append(p.out.Objects, PlannedObject{k.String(), "removed"})
		events = append(events, engine.Event{Delete: &k})
	}
	return events
}

func (p *planner) deletions(manifest []intent.Object) []engine.Event {
	var events []engine.Event
	for _, o := range manifest {
		k := o.Key()
		change := "removed"
		if p.have[k] == nil {
			change = "same"
		}
		p.out.Objects = append(p.out.Objects, PlannedObject{k.String(), change})
		events = append(events, engine.Event{Delete: &k})
	}
	return events
}

func (p *planner) puts(manifest []intent.Object) []engine.Event {
	var events []engine.Event
	for _, o := range manifest {
		old := p.have[o.Key()]
		o = merge(old, o)
		if pod, ok := o.(*intent.Pod); ok {
			o = p.complete(pod)
		}
		change := "changed"
		switch {
		case old == nil:
			change = "added"
		case old.Equal(o):
			change = "same"
		}
		p.out.Objects = append(p.out.Objects, PlannedObject{o.Key().String(), change})
		events = append(events, engine.Event{Put: o})
	}
	return events
}

// merge keeps what others than the manifest's author have written into an object
// that is there: applying a manifest leaves it alone.
func merge(old, o intent.Object) intent.Object {
	switch o := o.(type) {
	case *intent.Pod:
		was, ok := old.(*intent.Pod)
		if !ok {
			return o
		}
		now := *o
		now.UID, now.Node = cmp.Or(o.UID, was.UID), cmp.Or(o.Node, was.Node)
		if len(o.Attachments) == 0 {
			now.Attachments = was.Attachments
		}
		return &now
	case *intent.Node:
		was, ok := old.(*intent.Node)
		if !ok {
			return o
		}
		now := *o
		now.ID, now.Chassis, now.MgmtMAC = cmp.Or(o.ID, was.ID), cmp.Or(o.Chassis, was.Chassis), cmp.Or(o.MgmtMAC, was.MgmtMAC)
		if len(o.Subnets) == 0 {
			now.Subnets = was.Subnets
		}
		if len(o.EncapIPs) == 0 {
			now.EncapIPs = was.EncapIPs
		}
		if o.Gateway.Equal(intent.Gateway{}) {
			now.Gateway = was.Gateway
		}
		return &now
	}
	return o
}

// complete gives a pod the node and the address that the cluster would choose
// later, and says so.
func (p *planner) complete(pod *intent.Pod) *intent.Pod {
	now := *pod
	assume := func(format string, args ...any) {
		p.out.Assumed = append(p.out.Assumed, pod.Key().String()+": "+fmt.Sprintf(format, args...))
	}
	if now.Node == "" {
		if p.node == "" {
			assume("it has no node, and no node is named to assume: nothing would be written for it")
			return &now
		}
		now.Node = p.node
		assume("node %s, for the scheduler has not chosen one", p.node)
	}
	if _, ok := now.Attachment(intent.DefaultNetwork); ok || p.node != "" && now.Node != p.node {
		return &now
	}
	addresses, err := p.allocate(now.Node, now.Key().Name)
	if err != nil {
		assume("no address: %v", err)
		return &now
	}
	now.Attachments = append(slices.Clone(now.Attachments), intent.Attachment{
		Network: intent.DefaultNetwork, MAC: rows.MAC(addresses[0].Addr()), Addresses: addresses,
	})
	slices.SortFunc(now.Attachments, func(a, b intent.Attachment) int { return cmp.Compare(a.Network, b.Network) })
	assume("address %s, a free one of the node's", joined(addresses))
	return &now
}

func joined(ps []netip.Prefix) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.String()
	}
	return strings.Join(words, " and ")
}

// allocate finds addresses that no pod of the node has.
func (p *planner) allocate(of, owner string) ([]netip.Prefix, error) {
	if p.pools[of] == nil {
		node, ok := p.have[intent.Key{Kind: intent.KindNode, Name: of}].(*intent.Node)
		if !ok || len(node.Subnets) == 0 {
			return nil, fmt.Errorf("node %s has no subnet", of)
		}
		pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: node.Subnets})
		if err != nil {
			return nil, err
		}
		for k, o := range p.have {
			pod, ok := o.(*intent.Pod)
			if !ok || pod.Node != of {
				continue
			}
			if a, ok := pod.Attachment(intent.DefaultNetwork); ok {
				_ = pool.Reserve(k.Name, a.Addresses) // two that have one address are a problem of theirs
			}
		}
		if p.pools == nil {
			p.pools = map[string]*alloc.Pool{}
		}
		p.pools[of] = pool
	}
	return p.pools[of].Allocate(owner)
}

// state is all that an engine's units want.
type state struct {
	rows  map[rows.Ref]engine.RowInfo
	edges map[rows.Edge]bool
}

func newState(e *engine.Engine, dbs []rows.DB) state {
	s := state{map[rows.Ref]engine.RowInfo{}, map[rows.Edge]bool{}}
	for _, db := range dbs {
		for _, r := range e.Rows(db) {
			s.rows[r.Row.Ref] = r
		}
		for _, x := range e.Edges(db) {
			s.edges[x.Edge] = true
		}
	}
	return s
}

// compare adds what differs between s and now to a plan, in order.
func (s state) compare(now state, p *Plan) {
	for ref, r := range now.rows {
		old, ok := s.rows[ref]
		switch {
		case !ok:
			p.Rows = append(p.Rows, plannedRow("added", r, rows.Row{}, r.Row))
		case !old.Row.Equal(r.Row):
			p.Rows = append(p.Rows, plannedRow("changed", r, old.Row, r.Row))
		}
	}
	for ref, r := range s.rows {
		if _, ok := now.rows[ref]; !ok {
			p.Rows = append(p.Rows, plannedRow("removed", r, r.Row, rows.Row{}))
		}
	}
	for x := range now.edges {
		if !s.edges[x] {
			p.Edges = append(p.Edges, PlannedEdge{"added", strings.TrimPrefix(rows.FormatEdge(x), "edge ")})
		}
	}
	for x := range s.edges {
		if !now.edges[x] {
			p.Edges = append(p.Edges, PlannedEdge{"removed", strings.TrimPrefix(rows.FormatEdge(x), "edge ")})
		}
	}
	slices.SortFunc(p.Rows, func(a, b PlannedRow) int { return cmp.Or(cmp.Compare(a.Row, b.Row), cmp.Compare(a.Change, b.Change)) })
	slices.SortFunc(p.Edges, func(a, b PlannedEdge) int {
		return cmp.Or(cmp.Compare(a.Edge, b.Edge), cmp.Compare(a.Change, b.Change))
	})
}

func plannedRow(change string, info engine.RowInfo, before, after rows.Row) PlannedRow {
	p := PlannedRow{Change: change, Row: rows.FormatRef(info.Row.Ref), Unit: info.Unit.String()}
	differs := func(name, b, a string) {
		if b != a {
			p.Columns = append(p.Columns, PlannedColumn{name, b, a})
		}
	}
	differs("parent", parentText(before), parentText(after))
	names := map[string]bool{}
	for _, c := range slices.Concat(before.Columns, after.Columns) {
		if names[c.Name] {
			continue
		}
		names[c.Name] = true
		b, _ := before.Column(c.Name)
		a, _ := after.Column(c.Name)
		differs(c.Name, rows.FormatValue(b), rows.FormatValue(a))
	}
	slices.SortStableFunc(p.Columns, func(a, b PlannedColumn) int { return cmp.Compare(a.Name, b.Name) })
	return p
}

func parentText(r rows.Row) string {
	if r.Parent.Row.IsZero() {
		return ""
	}
	return rows.FormatRef(r.Parent.Row) + "." + r.Parent.Column
}
