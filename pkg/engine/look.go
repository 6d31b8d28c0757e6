package engine

import (
	"cmp"
	"slices"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// RowInfo is one wanted row and where it stands.
type RowInfo struct {
	Row     rows.Row
	Unit    Unit // that owns it
	Written bool // the database is known to hold it so
}

// EdgeInfo is one wanted edge and where it stands.
type EdgeInfo struct {
	Edge    rows.Edge
	Units   []Unit // that say it, the first decides the value
	Written bool
}

// Databases are those that the engine writes.
func (e *Engine) Databases() []rows.DB { return slices.Clone(e.cfg.Databases) }

// UnitInfo is one live unit in short.
type UnitInfo struct {
	Unit        Unit
	Group       string
	Rows, Edges int // that it says
}

// UnitInfos lists the live units, in any order.
func (e *Engine) UnitInfos() []UnitInfo {
	out := make([]UnitInfo, 0, len(e.units))
	for _, u := range e.units {
		out = append(out, UnitInfo{Unit: u.Unit, Group: u.group, Rows: len(u.rows), Edges: len(u.edges)})
	}
	return out
}

// Rows returns what units want in a database, in any order: sorting is left to
// who asks, so that the driver's loop is not kept.
func (e *Engine) Rows(db rows.DB) []RowInfo {
	l := e.ledgers[db]
	if l == nil {
		return nil
	}
	out := make([]RowInfo, 0, len(l.rows))
	for _, s := range l.rows {
		if want := s.want(); want != nil {
			out = append(out, RowInfo{Row: *want, Unit: s.by[0].unit.Unit, Written: s.settled()})
		}
	}
	return out
}

// Edges returns the edges that units want in a database, in any order.
func (e *Engine) Edges(db rows.DB) []EdgeInfo {
	l := e.ledgers[db]
	if l == nil {
		return nil
	}
	out := make([]EdgeInfo, 0, len(l.edges))
	for slot, s := range l.edges {
		if _, ok := s.wants(); ok {
			out = append(out, s.info(slot))
		}
	}
	return out
}

// Row returns one wanted row.
func (e *Engine) Row(ref rows.Ref) (RowInfo, bool) {
	l := e.ledgers[ref.Table.DB()]
	if l == nil || l.rows[ref] == nil || l.rows[ref].want() == nil {
		return RowInfo{}, false
	}
	s := l.rows[ref]
	return RowInfo{Row: *s.want(), Unit: s.by[0].unit.Unit, Written: s.settled()}, true
}

// Edge returns one wanted edge, found by its slot.
func (e *Engine) Edge(edge rows.Edge) (EdgeInfo, bool) {
	l := e.ledgers[edge.Row.Table.DB()]
	if l == nil || l.edges[edge.Slot()] == nil || len(l.edges[edge.Slot()].by) == 0 {
		return EdgeInfo{}, false
	}
	return l.edges[edge.Slot()].info(edge.Slot()), true
}

func (s *edgeState) info(slot rows.Edge) EdgeInfo {
	slot.Value, _ = s.wants()
	info := EdgeInfo{Edge: slot, Written: s.settled()}
	for _, c := range s.by {
		info.Units = append(info.Units, c.unit.Unit)
	}
	return info
}

// Spawners lists the objects that a unit lives by. It asks every object of the
// kinds that can spawn it.
func (e *Engine) Spawners(u Unit) []intent.Key {
	i, ok := e.kinds[u.Kind]
	if !ok {
		return nil
	}
	var out []intent.Key
	for _, k := range e.store.Keys() {
		spawn := e.cfg.Kinds[i].Spawn[k.Kind]
		if spawn == nil {
			continue
		}
		if o, _ := e.store.Object(k); spawn(o) == u.Key {
			out = append(out, k)
		}
	}
	return out
}

// Spawned lists the live units that an object spawns, in compile order.
func (e *Engine) Spawned(k intent.Key) []Unit {
	o, ok := e.store.Object(k)
	if !ok {
		return nil
	}
	var out []Unit
	for _, kind := range e.cfg.Kinds {
		spawn := kind.Spawn[k.Kind]
		if spawn == nil {
			continue
		}
		u := Unit{kind.Name, spawn(o)}
		if e.units[u] != nil && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}

// Expectation is what units want in one database at one moment. It may be used
// on any goroutine, while the engine goes on.
type Expectation struct {
	l       *ledger
	pending map[rows.Ref]bool
	slots   map[rows.Edge]bool
}

// Expect takes what is wanted now, for a comparison.
func (e *Engine) Expect(db rows.DB) (*Expectation, bool) {
	l := e.ledgers[db]
	if l == nil {
		return nil, false
	}
	x := &Expectation{l: newLedger(db), pending: map[rows.Ref]bool{}, slots: map[rows.Edge]bool{}}
	for ref, s := range l.rows {
		if len(s.by) > 0 {
			x.l.rows[ref] = &rowState{by: slices.Clone(s.by)}
		}
		if !s.settled() {
			x.pending[ref] = true
		}
	}
	for slot, s := range l.edges {
		x.l.edges[slot] = &edgeState{by: slices.Clone(s.by)}
		if !s.settled() {
			x.slots[slot] = true
		}
	}
	return x, true
}

// DifferenceKind tells in what way a database is not as wanted.
type DifferenceKind uint8

// The kinds of difference.
const (
	Missing   DifferenceKind = iota + 1 // wanted, not found
	Different                           // found with another value
	Surplus                             // found under our tag, wanted by nobody
)

// Difference is a row, a column of one, or an edge that is not as wanted.
type Difference struct {
	Kind   DifferenceKind
	Ref    rows.Ref
	Unit   string // that wants it, or under whose tag it was found
	Column string // of Different, and of edges; "parent", "uuid" and "owner" are the row's own
	Want   string // text
	Found  string
	// Pending says that the engine knows it and has not written it yet.
	Pending bool
}

// Size is how many rows and edges are wanted.
func (x *Expectation) Size() (rs, es int) {
	for _, s := range x.l.rows {
		if len(s.by) > 0 {
			rs++
		}
	}
	for _, s := range x.l.edges {
		if len(s.by) > 0 {
			es++
		}
	}
	return rs, es
}

// Compare reads a snapshot as the engine reads one, and returns in order what it
// would write. It may be called once.
func (x *Expectation) Compare(snap Snapshot) []Difference {
	x.l.restore(snap)
	var out []Difference
	for ref, s := range x.l.rows {
		if s.settled() {
			continue
		}
		for _, d := range s.differences(ref) {
			d.Ref, d.Pending = ref, x.pending[ref]
			out = append(out, d)
		}
	}
	for slot, s := range x.l.edges {
		if !s.settled() {
			d := s.difference(slot)
			d.Pending = x.slots[slot]
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b Difference) int {
		return cmp.Or(a.Ref.Compare(b.Ref), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Want+a.Found, b.Want+b.Found))
	})
	return out
}

func (s *rowState) differences(ref rows.Ref) []Difference {
	want, have := s.want(), s.have
	switch {
	case want == nil:
		return []Difference{{Kind: Surplus, Unit: s.holder, Found: rows.FormatRow(*have)}}
	case have == nil:
		return []Difference{{Kind: Missing, Unit: s.owner(), Want: rows.FormatRow(*want)}}
	}
	var out []Difference
	differs := func(column, w, f string) {
		if w != f {
			out = append(out, Difference{Kind: Different, Unit: s.owner(), Column: column, Want: w, Found: f})
		}
	}
	differs("uuid", ref.UUID(), cmp.Or(s.uuid, ref.UUID()))
	differs("owner", s.owner(), s.holder)
	differs("parent", parentText(want.Parent), parentText(have.Parent))
	diff(have.Columns, want.Columns, compareColumns, func(f, w *rows.Column) {
		var found, wanted rows.Value
		if f != nil {
			found = f.Value
		}
		if w != nil {
			wanted = w.Value
		}
		differs(cmp.Or(w, f).Name, rows.FormatValue(wanted), rows.FormatValue(found))
	})
	return out
}

func parentText(p rows.Parent) string {
	if p.Row.IsZero() {
		return ""
	}
	return rows.FormatRef(p.Row) + "." + p.Column
}

func (s *edgeState) difference(slot rows.Edge) Difference {
	d := Difference{Kind: Different, Ref: slot.Row, Column: slot.Column}
	text := func(v rows.Atom) string { return rows.FormatValue(rows.Value{{Key: slot.Key, Value: v}}) }
	v, wants := s.wants()
	if wants {
		d.Want, d.Unit = text(v), s.by[0].unit.String()
	}
	if s.have {
		d.Found = text(s.value)
	}
	switch {
	case !s.have:
		d.Kind = Missing
	case !wants:
		d.Kind = Surplus
	}
	return d
}
