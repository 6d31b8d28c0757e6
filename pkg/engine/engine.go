package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Config is what an Engine is made from.
type Config struct {
	Kinds     []UnitKind // in registry order: the order of compiling, and of precedence between contributors
	Databases []rows.DB  // those to write; units' rows in others are discarded
	// Strict panics on bugs (invalid rows, two values for one slot), as tests
	// want; else they are counted and the first contributor wins.
	Strict bool
	// Bug is told of each, when not Strict; nil: they are only counted.
	Bug func(error)
	// MaxOps cuts a batch into transactions of about this many operations;
	// 0: 5,000.
	MaxOps int
}

// Stats counts what the engine has done since it began.
type Stats struct {
	Compiles uint64 // unit compilations
	Txns     uint64 // transactions handed out
	Ops      uint64 // operations in them
	Bugs     uint64 // invalid rows and conflicting contributions
}

// Engine is the state machine. One goroutine owns it.
type Engine struct {
	cfg     Config
	store   *intent.Store
	kinds   map[string]int // index into cfg.Kinds
	units   map[Unit]*unit
	readers map[intent.Dep]map[*unit]struct{}
	dirty   map[*unit]struct{}
	ledgers map[rows.DB]*ledger
	early   map[rows.DB]*Snapshot // that came before Synced
	synced  bool
	now     int64
	txn     uint64
	stats   Stats
}

// unit is one live unit and what it last said.
type unit struct {
	Unit
	order    int // of its kind in the registry
	group    string
	spawners int
	deps     []intent.Dep
	rows     []rows.Row  // sorted by Ref
	edges    []rows.Edge // sorted
	problems []rows.Problem
	since    int64 // tick from which on the problems are these
}

func (u *unit) compare(o *unit) int {
	return cmp.Or(cmp.Compare(u.order, o.order), cmp.Compare(u.Key, o.Key))
}

// New makes an engine with nothing in it.
func New(cfg Config) *Engine {
	if cfg.MaxOps == 0 {
		cfg.MaxOps = 5000
	}
	e := &Engine{
		cfg: cfg, store: intent.NewStore(), kinds: map[string]int{}, units: map[Unit]*unit{},
		readers: map[intent.Dep]map[*unit]struct{}{}, dirty: map[*unit]struct{}{}, ledgers: map[rows.DB]*ledger{},
		early: map[rows.DB]*Snapshot{},
	}
	for i, k := range cfg.Kinds {
		e.kinds[k.Name] = i
	}
	for _, db := range cfg.Databases {
		e.ledgers[db] = newLedger(db)
	}
	return e
}

// Step takes a batch of events and says what is to be done. Each dirty unit is
// compiled once, however many events made it so.
func (e *Engine) Step(events []Event) Ready {
	var ready Ready
	for _, ev := range events {
		e.take(ev, &ready)
	}
	e.settle()
	if !e.synced {
		return ready
	}
	for _, db := range e.cfg.Databases {
		l := e.ledgers[db]
		if t, ok := l.plan(e.now, e.cfg.MaxOps); ok {
			e.txn++
			t.ID = e.txn
			l.flight.id = t.ID
			e.stats.Txns++
			e.stats.Ops += uint64(t.Len())
			ready.Txns = append(ready.Txns, t)
		}
		if w := l.wake(); w != 0 && (ready.Wake == 0 || w < ready.Wake) {
			ready.Wake = w
		}
	}
	return ready
}

func (e *Engine) take(ev Event, ready *Ready) {
	switch {
	case ev.Put != nil:
		e.store.Put(ev.Put)
	case ev.Delete != nil:
		e.store.Delete(*ev.Delete)
	case ev.Synced:
		e.synced = true
		for _, db := range e.cfg.Databases {
			if s := e.early[db]; s != nil {
				e.restore(s)
			}
		}
		clear(e.early)
	case ev.Snapshot != nil:
		e.restore(ev.Snapshot)
	case ev.Result != nil:
		if l := e.ledgers[ev.Result.DB]; l != nil && l.finish(*ev.Result, e.now) {
			ready.Resync = append(ready.Resync, l.db)
		}
	case ev.Down != "":
		delete(e.early, ev.Down)
		if l := e.ledgers[ev.Down]; l != nil {
			l.down()
		}
	case ev.Installed != 0:
		if l := e.ledgers[rows.NB]; l != nil {
			l.install(ev.Installed)
		}
	case ev.Tick != 0:
		e.now = max(e.now, ev.Tick)
	}
}

// restore reads a snapshot against what is wanted, and so not before that is known.
func (e *Engine) restore(s *Snapshot) {
	l := e.ledgers[s.DB]
	if l == nil {
		return
	}
	if !e.synced {
		e.early[s.DB] = s
		return
	}
	e.settle()
	l.restore(*s)
}

// settle brings desired up to date with intent. Before Synced it only notes
// which units there will be: compiling half a cluster is wasted work.
func (e *Engine) settle() {
	changes := e.store.Take()
	e.spawn(changes.Objects)
	for d := range changes.Deps {
		for u := range e.readers[d] {
			e.dirty[u] = struct{}{}
		}
	}
	if e.synced {
		e.compile()
	}
}

// spawn begins and ends units as objects come and go.
func (e *Engine) spawn(changes []intent.Change) {
	for _, c := range changes {
		for i, k := range e.cfg.Kinds {
			fn := k.Spawn[c.Key.Kind]
			if fn == nil {
				continue
			}
			before, after := "", ""
			if c.Old != nil {
				before = fn(c.Old)
			}
			if c.New != nil {
				after = fn(c.New)
			}
			if before == after {
				continue
			}
			if after != "" {
				e.hold(i, after)
			}
			if before != "" {
				e.release(Unit{k.Name, before})
			}
		}
	}
}

func (e *Engine) hold(order int, key string) {
	k := e.cfg.Kinds[order]
	name := Unit{k.Name, key}
	u := e.units[name]
	if u == nil {
		u = &unit{Unit: name, order: order, group: name.String()}
		if k.Group != nil {
			u.group = k.Group(key)
		}
		e.units[name] = u
	}
	u.spawners++
	e.dirty[u] = struct{}{}
}

func (e *Engine) release(name Unit) {
	u := e.units[name]
	if u.spawners--; u.spawners == 0 {
		e.dirty[u] = struct{}{}
	}
}

// compile runs the dirty units, in registry order, and settles what they say
// into the ledgers. Units that nothing spawns any more say nothing.
func (e *Engine) compile() {
	for _, u := range slices.SortedFunc(maps.Keys(e.dirty), (*unit).compare) {
		if u.spawners == 0 {
			e.depend(u, nil)
			e.say(u, rows.Output{})
			delete(e.units, u.Unit)
			continue
		}
		v := intent.NewView(e.store)
		out := e.cfg.Kinds[u.order].Compile(v, u.Key)
		e.stats.Compiles++
		e.depend(u, v.Reads())
		e.say(u, out)
	}
	if len(e.dirty) > 0 {
		e.dirty = map[*unit]struct{}{} // one that was large stays slow to clear
	}
	for _, db := range e.cfg.Databases {
		for _, err := range e.ledgers[db].conflicts() {
			e.report(err)
		}
	}
}

// depend replaces the reads that make u dirty.
func (e *Engine) depend(u *unit, deps []intent.Dep) {
	for _, d := range u.deps {
		if m := e.readers[d]; len(m) == 1 {
			delete(e.readers, d)
		} else {
			delete(m, u)
		}
	}
	u.deps = slices.Clip(deps)
	for _, d := range deps {
		if e.readers[d] == nil {
			e.readers[d] = make(map[*unit]struct{}, 1)
		}
		e.readers[d][u] = struct{}{}
	}
}

// say replaces u's output and tells the ledgers what differs.
func (e *Engine) say(u *unit, out rows.Output) {
	out = e.normal(u, out)
	diff(u.rows, out.Rows, compareRows, func(old, now *rows.Row) {
		if old != nil && now != nil && old.Equal(*now) {
			return
		}
		ref := cmp.Or(now, old).Ref
		if l := e.ledgers[ref.Table.DB()]; l != nil {
			l.contributeRow(u, ref, now)
		}
	})
	diff(u.edges, out.Edges, rows.Edge.Compare, func(old, now *rows.Edge) {
		if old != nil && now != nil {
			return
		}
		edge := *cmp.Or(now, old)
		if l := e.ledgers[edge.Row.Table.DB()]; l != nil {
			l.contributeEdge(u, edge, now != nil)
		}
	})
	if !slices.Equal(u.problems, out.Problems) {
		u.since = e.now
	}
	u.rows, u.edges, u.problems = out.Rows, out.Edges, out.Problems
}

// normal sorts an output and drops values that equal the column's default, so
// that equal meanings are equal values.
func (e *Engine) normal(u *unit, out rows.Output) rows.Output {
	rs := out.Rows[:0:0]
	for _, r := range out.Rows {
		if err := r.Validate(); err != nil {
			e.report(fmt.Errorf("unit %s: %w", u, err))
			continue
		}
		schema, _ := rows.SchemaOf(r.Table)
		r.Columns = slices.DeleteFunc(slices.Clone(r.Columns), func(c rows.Column) bool {
			col, _ := schema.Column(c.Name)
			return col.IsDefault(c.Value)
		})
		rs = append(rs, r)
	}
	slices.SortFunc(rs, compareRows)
	es := out.Edges[:0:0]
	for _, ed := range out.Edges {
		if err := ed.Validate(); err != nil {
			e.report(fmt.Errorf("unit %s: %w", u, err))
			continue
		}
		es = append(es, ed)
	}
	slices.SortFunc(es, rows.Edge.Compare)
	out.Rows, out.Edges = rs, slices.Compact(es)
	return out
}

// report takes a bug: it panics when Strict, else counts.
func (e *Engine) report(err error) {
	if err == nil {
		return
	}
	if e.cfg.Strict {
		panic("engine: " + err.Error())
	}
	e.stats.Bugs++
	if e.cfg.Bug != nil {
		e.cfg.Bug(err)
	}
}

// Stats returns the counters.
func (e *Engine) Stats() Stats { return e.stats }

// Store gives read access to the intent, for dumps.
func (e *Engine) Store() *intent.Store { return e.store }

// diff walks two sorted lists and calls fn for every key in either.
func diff[T any](old, now []T, compare func(a, b T) int, fn func(old, now *T)) {
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		c := 0
		switch {
		case i == len(old):
			c = 1
		case j == len(now):
			c = -1
		default:
			c = compare(old[i], now[j])
		}
		switch {
		case c < 0:
			fn(&old[i], nil)
			i++
		case c > 0:
			fn(nil, &now[j])
			j++
		default:
			fn(&old[i], &now[j])
			i, j = i+1, j+1
		}
	}
}

func compareRows(a, b rows.Row) int { return a.Ref.Compare(b.Ref) }
