package engine

import (
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// Back-off of failed groups, in the driver's milliseconds.
const (
	retryFirst         = 1_000
	retryMost          = 60_000
	retryConstraintMax = 300_000
)

// finish takes the end of the transaction under way. True: the ledger is
// doubted, a snapshot is needed.
func (l *ledger) finish(r Result, now int64) bool {
	if l.flight == nil || l.flight.id != r.Txn {
		return false // of a connection that has been lost since
	}
	if r.Lost {
		l.down()
		return true
	}
	for name, f := range r.Failed {
		if g := l.groups[name]; g != nil && f.Class != Withheld {
			g.fail(f, now)
		}
	}
	l.land(r.Failed)
	if len(r.Failed) > 0 {
		l.live = false // what the database did by itself with the rest is not known
	}
	return !l.live
}

func (g *group) fail(f Failure, now int64) {
	g.failure = f
	g.ill(now)
	most := int64(retryMost)
	if f.Class == Constraint {
		most = retryConstraintMax
	}
	g.retry = now + min(int64(retryFirst)<<min(g.tries, 16), most)
	g.tries++
}

// land makes true what the flight's groups have written, but for the failed.
func (l *ledger) land(failed map[string]Failure) {
	f := l.flight
	l.flight = nil
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(f.groups)), func(name string) bool {
		_, bad := failed[name]
		return bad
	})
	// Marks first: a group that has nothing pending and no mark is forgotten.
	for _, name := range names {
		if g := l.groups[name]; g != nil {
			g.well()
			if f.cfg != 0 {
				g.cfg = f.cfg
				l.marks = append(l.marks, mark{f.cfg, name})
			}
		}
	}
	// All rows before any edge: another group may have written the edge's row.
	// Rows that go come last: a child may have moved away from one.
	for _, gone := range []bool{false, true} {
		for _, name := range names {
			for _, rw := range f.groups[name].rows {
				if (rw.row == nil) == gone {
					l.landRow(rw)
				}
			}
		}
	}
	for _, name := range names {
		for _, ew := range f.groups[name].edges {
			l.landEdge(ew)
		}
		l.tidy(name)
	}
}

func (l *ledger) landRow(w rowWrite) {
	s := l.rows[w.ref]
	if s == nil {
		s = &rowState{}
		l.rows[w.ref] = s
	}
	l.setRow(w.ref, s, w.row, w.holder)
}

// setRow makes a committed row known, or gone, with what the database does by
// itself: children of a row that is gone go too, and references to it vanish.
func (l *ledger) setRow(ref rows.Ref, s *rowState, row *rows.Row, holder string) {
	if s.have != nil {
		l.have.dropRow(s.have)
	}
	s.have, s.holder, s.uuid = row, holder, ""
	if row != nil {
		l.have.addRow(row)
	}
	l.touchRow(ref, s, s.groupName())
	l.stirred(ref)
	if row != nil {
		return
	}
	for child := range l.have.children[ref] {
		if cs := l.rows[child]; cs != nil && cs.have != nil {
			l.setRow(child, cs, nil, "")
		}
	}
	for holder, strong := range maps.Clone(l.have.pointers[ref]) {
		if !strong {
			l.forget(holder, ref)
		}
	}
	for slot := range maps.Clone(l.have.edgesOn[ref]) {
		l.landEdge(edgeWrite{slot: slot})
	}
	for slot := range maps.Clone(l.have.edgesTo[ref]) {
		l.landEdge(edgeWrite{slot: slot})
	}
}

// forget takes the weak references to a row that is gone out of a holder, as the
// database has done.
func (l *ledger) forget(holder, target rows.Ref) {
	s := l.rows[holder]
	if s == nil || s.have == nil {
		return
	}
	left := *s.have
	left.Columns = nil
	for _, c := range s.have.Columns {
		c.Value = slices.DeleteFunc(slices.Clone(c.Value), func(p rows.Pair) bool {
			return p.Key.Ref == target || p.Value.Ref == target
		})
		if len(c.Value) > 0 {
			left.Columns = append(left.Columns, c)
		}
	}
	l.have.dropRow(s.have)
	s.have = &left
	l.have.addRow(s.have)
	l.touchRow(holder, s, s.groupName())
}

// groupName is the group that a row's pending change belongs to.
func (s *rowState) groupName() string {
	if len(s.by) > 0 {
		return s.by[0].unit.group
	}
	return s.group
}

func (l *ledger) landEdge(w edgeWrite) {
	s := l.edges[w.slot]
	if s == nil {
		s = &edgeState{}
		l.edges[w.slot] = s
	}
	if w.have && l.orphaned(w.slot) {
		w.have = false // its row went in the same transaction
	}
	if s.have && !w.have {
		l.have.dropEdge(w.slot)
	}
	if !s.have && w.have {
		l.have.addEdge(w.slot)
	}
	s.have, s.value = w.have, w.value
	l.touchEdge(w.slot, s, s.lastGroup())
}

// orphaned reports whether an edge's row or target is not there.
func (l *ledger) orphaned(slot rows.Edge) bool {
	missing := func(ref rows.Ref) bool {
		s := l.rows[ref]
		return ref.ID != rows.Singleton && (s == nil || s.have == nil)
	}
	return missing(slot.Row) || slot.Key.Kind == rows.Reference && missing(slot.Key.Ref)
}

// down stops writing until a snapshot comes.
func (l *ledger) down() {
	l.live, l.broken, l.flight = false, true, nil
}

// install takes the NbCfg that every chassis has installed.
func (l *ledger) install(cfg int64) {
	l.installed = max(l.installed, cfg)
	for len(l.marks) > 0 && l.marks[0].cfg <= l.installed {
		name := l.marks[0].group
		l.marks = l.marks[1:]
		l.tidy(name)
	}
}

// wake is the earliest tick at which a failed group may be tried again.
func (l *ledger) wake() int64 {
	var at int64
	for _, g := range l.ready {
		if g.retry != 0 && g.pending() && len(g.parked) == 0 && (at == 0 || g.retry < at) {
			at = g.retry
		}
	}
	return at
}
