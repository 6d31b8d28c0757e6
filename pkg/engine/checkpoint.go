package engine

import (
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Checkpoint is an engine between two steps: an engine that is resumed from it
// answers every further step as the first one does. What units make of the
// objects is not in it, for they make it again; of rows and edges, only those that
// are not as their units want them. It shares values with the engine, none of
// which is ever changed, so it is cheap to take and may be read on any goroutine.
type Checkpoint struct {
	Objects []intent.Object // those that were put, in order of key
	Synced  bool
	Now     int64
	Txn     uint64
	Stats   Stats
	Early   []Snapshot // that came before Synced
	Ledgers []LedgerState
}

// LedgerState is what is known of one database.
type LedgerState struct {
	DB        rows.DB
	Live      bool
	Broken    bool
	NbCfg     int64
	Installed int64
	Strangers map[string]string
	Rows      []RowState  // that are not as wanted, in order
	Edges     []EdgeState // that are not as wanted, in order
	Groups    []GroupState
	Marks     []MarkState
	Flight    *FlightState // nil: no transaction is under way
}

// RowState is a row that is not as its unit wants it.
type RowState struct {
	Ref    rows.Ref
	Have   *rows.Row // as the database holds it; nil: not at all
	Holder string    // external_ids portolan/owner of Have
	UUID   string    // of Have, when it is not the derived one
	Group  string    // that the change belongs to
}

// EdgeState is a slot that is not as units want it.
type EdgeState struct {
	Slot   rows.Edge
	Have   bool
	Value  rows.Atom // of Have
	Groups []string  // that the change belongs to
}

// GroupState is a group that has something to do, or a commit to be installed.
type GroupState struct {
	Name    string
	Parked  []string
	Failure Failure
	Tries   int
	Retry   int64
	Since   int64
	Cfg     int64
}

// MarkState is a group's commit that is not installed yet.
type MarkState struct {
	Cfg   int64
	Group string
}

// FlightState is a transaction under way and what its commit makes true.
type FlightState struct {
	ID     uint64
	Cfg    int64
	Groups []WrittenState
}

// WrittenState is one group of a transaction under way.
type WrittenState struct {
	Group string
	Rows  []WrittenRow
	Edges []EdgeState // without Groups
}

// WrittenRow is a row as it will be; Row nil: gone.
type WrittenRow struct {
	Ref    rows.Ref
	Row    *rows.Row
	Holder string
}

// derived are the kinds that a store makes by itself.
func derived(k intent.Kind) bool { return k == intent.KindSet || k == intent.KindMember }

// Checkpoint takes the engine's state. Between steps only.
func (e *Engine) Checkpoint() Checkpoint {
	c := Checkpoint{Synced: e.synced, Now: e.now, Txn: e.txn, Stats: e.stats}
	for _, k := range e.store.Keys() {
		if o, _ := e.store.Object(k); !derived(k.Kind) {
			c.Objects = append(c.Objects, o)
		}
	}
	for _, db := range e.cfg.Databases {
		if s := e.early[db]; s != nil {
			c.Early = append(c.Early, *s)
		}
		c.Ledgers = append(c.Ledgers, e.ledgers[db].state())
	}
	return c
}

func (l *ledger) state() LedgerState {
	s := LedgerState{DB: l.db, Live: l.live, Broken: l.broken, NbCfg: l.nbCfg, Installed: l.installed, Strangers: maps.Clone(l.strangers), Flight: l.flight.state()}
	for ref, r := range l.rows {
		if !r.settled() {
			s.Rows = append(s.Rows, RowState{ref, r.have, r.holder, r.uuid, r.group})
		}
	}
	slices.SortFunc(s.Rows, func(a, b RowState) int { return a.Ref.Compare(b.Ref) })
	for slot, x := range l.edges {
		if !x.settled() {
			s.Edges = append(s.Edges, EdgeState{slot, x.have, x.value, slices.Clone(x.groups)})
		}
	}
	slices.SortFunc(s.Edges, func(a, b EdgeState) int { return a.Slot.Compare(b.Slot) })
	for _, name := range slices.Sorted(maps.Keys(l.groups)) {
		g := l.groups[name]
		s.Groups = append(s.Groups, GroupState{name, slices.Clone(g.parked), g.failure, g.tries, g.retry, g.since, g.cfg})
	}
	for _, m := range l.marks {
		s.Marks = append(s.Marks, MarkState{m.cfg, m.group})
	}
	return s
}

func (f *flight) state() *FlightState {
	if f == nil {
		return nil
	}
	s := &FlightState{ID: f.id, Cfg: f.cfg}
	for _, name := range slices.Sorted(maps.Keys(f.groups)) {
		w := WrittenState{Group: name}
		for _, r := range f.groups[name].rows {
			w.Rows = append(w.Rows, WrittenRow{r.ref, r.row, r.holder})
		}
		for _, x := range f.groups[name].edges {
			w.Edges = append(w.Edges, EdgeState{Slot: x.slot, Have: x.have, Value: x.value})
		}
		s.Groups = append(s.Groups, w)
	}
	return s
}

// Resume makes an engine that goes on from a checkpoint. The configuration must
// be that of the engine it was taken from, or its answers will differ.
func Resume(cfg Config, c Checkpoint) *Engine {
	e := New(cfg)
	for _, o := range c.Objects {
		e.store.Put(o)
	}
	e.synced = c.Synced
	e.settle()
	for _, s := range c.Ledgers {
		if l := e.ledgers[s.DB]; l != nil {
			l.resume(s)
		}
	}
	for i := range c.Early {
		e.early[c.Early[i].DB] = &c.Early[i]
	}
	e.now, e.txn, e.stats = c.Now, c.Txn, c.Stats
	return e
}

// resume brings a ledger, which knows what units want and nothing else, to a
// state: what the state does not name is as wanted.
func (l *ledger) resume(s LedgerState) {
	l.live, l.broken = s.Live, s.Broken
	l.nbCfg, l.installed, l.strangers = s.NbCfg, s.Installed, maps.Clone(s.Strangers)
	l.flight = s.Flight.flight()
	l.groups, l.ready, l.waiters = map[string]*group{}, map[string]*group{}, map[string]map[*group]struct{}{}
	for _, r := range l.rows {
		r.have, r.holder, r.group = r.want(), r.owner(), r.by[0].unit.group
	}
	for _, x := range l.edges {
		x.value, x.have = x.wants()
		x.groups = nil
	}
	for _, g := range s.Groups {
		n := l.group(g.Name)
		n.failure, n.tries, n.retry, n.since, n.cfg = g.Failure, g.Tries, g.Retry, g.Since, g.Cfg
	}
	for _, r := range s.Rows {
		if l.rows[r.Ref] == nil {
			l.rows[r.Ref] = &rowState{}
		}
		x := l.rows[r.Ref]
		x.have, x.holder, x.uuid, x.group = r.Have, r.Holder, r.UUID, r.Group
		l.group(r.Group).rows[r.Ref] = struct{}{}
	}
	for _, r := range s.Edges {
		if l.edges[r.Slot] == nil {
			l.edges[r.Slot] = &edgeState{}
		}
		x := l.edges[r.Slot]
		x.have, x.value, x.groups = r.Have, r.Value, slices.Clone(r.Groups)
		for _, name := range r.Groups {
			l.group(name).edges[r.Slot] = struct{}{}
		}
	}
	for _, m := range s.Marks {
		l.marks = append(l.marks, mark{m.Cfg, m.Group})
	}
	l.reindex(s.Groups)
}

// reindex makes again what follows from rows, edges and groups.
func (l *ledger) reindex(groups []GroupState) {
	for _, ref := range slices.SortedFunc(maps.Keys(l.rows), rows.Ref.Compare) {
		if have := l.rows[ref].have; have != nil {
			l.have.addRow(have)
		}
	}
	for slot, x := range l.edges {
		if x.have {
			l.have.addEdge(slot)
		}
	}
	for _, s := range groups {
		g := l.groups[s.Name]
		if len(s.Parked) > 0 {
			l.wait(g, slices.Clone(s.Parked))
		}
		if g.pending() {
			l.ready[g.name] = g
		}
	}
}

func (s *FlightState) flight() *flight {
	if s == nil {
		return nil
	}
	f := &flight{id: s.ID, cfg: s.Cfg, groups: map[string]*written{}}
	for _, g := range s.Groups {
		w := &written{}
		for _, r := range g.Rows {
			w.rows = append(w.rows, rowWrite{r.Ref, r.Row, r.Holder})
		}
		for _, x := range g.Edges {
			w.edges = append(w.edges, edgeWrite{x.Slot, x.Have, x.Value})
		}
		f.groups[g.Group] = w
	}
	return f
}
