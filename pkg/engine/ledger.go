package engine

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// ledger is one database: what units want in it and what it is known to have.
// The difference lies in pending, by group.
type ledger struct {
	db        rows.DB
	live      bool // a snapshot has been taken and the connection has not been lost since
	broken    bool // the connection has been lost since the last snapshot
	rows      map[rows.Ref]*rowState
	edges     map[rows.Edge]*edgeState // by slot
	groups    map[string]*group        // groups with something pending, parked, or marked
	ready     map[string]*group        // those of groups that have something pending and may not be parked, and some more
	flight    *flight                  // the transaction under way, nil: none
	have      index
	waiters   map[string]map[*group]struct{} // what is missing -> groups parked for it
	strangers map[string]string              // unique values that others hold
	marks     []mark                         // commits not yet installed, oldest first

	suspectRows  map[rows.Ref]struct{} // that more than one unit has said in this batch
	suspectEdges map[rows.Edge]struct{}

	nbCfg     int64
	installed int64
}

// mark says that a group's commit carries an NbCfg.
type mark struct {
	cfg   int64
	group string
}

// rowState is one row: wanted by at most one unit, had by the database or not.
type rowState struct {
	by     []claim   // sorted by unit; the first is the owner
	have   *rows.Row // as committed, in the owner's columns
	holder string    // external_ids portolan/owner as committed
	uuid   string    // of have, when it is not the derived one
	group  string    // that the pending change belongs to
}

type claim struct {
	unit *unit
	row  *rows.Row
}

// want is the row as its owner says it, nil when nobody does.
func (s *rowState) want() *rows.Row {
	if len(s.by) == 0 {
		return nil
	}
	return s.by[0].row
}

func (s *rowState) owner() string { return s.by[0].unit.String() }

// edgeState is one slot: an element or key of one column of one row.
type edgeState struct {
	by    []contribution // sorted by unit; the first decides the value
	have  bool
	value rows.Atom // as committed
	// groups are those that the pending change belongs to: of all contributors, for
	// none is whole without it; or, when nobody says it any more, of the last.
	groups []string
}

type contribution struct {
	unit  *unit
	value rows.Atom
}

// compare orders by unit; a unit that says two values has a bug, and the same one
// of them has its way in every run.
func (c contribution) compare(o contribution) int {
	return cmp.Or(c.unit.compare(o.unit), c.value.Compare(o.value))
}

// group is the pending work of one group in this database.
type group struct {
	name    string
	rows    map[rows.Ref]struct{}
	edges   map[rows.Edge]struct{}
	parked  []string // what it waits for; empty: runnable
	failure Failure
	tries   int
	retry   int64 // not before this tick; 0: now
	since   int64 // the tick since which it waits or fails; 0: it does neither
	cfg     int64 // NbCfg of its last commit
}

func newLedger(db rows.DB) *ledger {
	return &ledger{
		db: db, rows: map[rows.Ref]*rowState{}, edges: map[rows.Edge]*edgeState{}, groups: map[string]*group{},
		ready: map[string]*group{}, have: newIndex(), waiters: map[string]map[*group]struct{}{},
		suspectRows: map[rows.Ref]struct{}{}, suspectEdges: map[rows.Edge]struct{}{},
	}
}

// contributeRow takes what u now says of a row; nil ends it.
func (l *ledger) contributeRow(u *unit, ref rows.Ref, now *rows.Row) {
	s := l.rows[ref]
	if s == nil {
		s = &rowState{}
		l.rows[ref] = s
	}
	s.by = slices.DeleteFunc(s.by, func(c claim) bool { return c.unit == u })
	if now != nil {
		i, _ := slices.BinarySearchFunc(s.by, u, func(c claim, u *unit) int { return c.unit.compare(u) })
		s.by = slices.Insert(s.by, i, claim{u, now})
		if len(s.by) > 1 {
			l.suspectRows[ref] = struct{}{}
		}
	}
	name := u.group
	if len(s.by) > 0 {
		name = s.by[0].unit.group
	}
	l.touchRow(ref, s, name)
	l.stirred(ref)
	l.hurry(u.group)
}

// contributeEdge takes one edge that u no longer says, or says now.
func (l *ledger) contributeEdge(u *unit, edge rows.Edge, said bool) {
	slot := edge.Slot()
	s := l.edges[slot]
	if s == nil {
		s = &edgeState{}
		l.edges[slot] = s
	}
	c := contribution{u, edge.Value}
	if said {
		i, _ := slices.BinarySearchFunc(s.by, c, contribution.compare)
		s.by = slices.Insert(s.by, i, c)
		if len(s.by) > 1 {
			l.suspectEdges[slot] = struct{}{}
		}
	} else {
		s.by = slices.DeleteFunc(s.by, func(o contribution) bool { return o == c })
	}
	l.touchEdge(slot, s, u.group)
	l.hurry(u.group)
	if slot.Key.Kind == rows.Reference {
		l.came(releasedBy + slot.Row.String())
	}
}

// hurry ends a group's back-off and waiting: what failed or lacked something is
// not what is wanted now.
func (l *ledger) hurry(name string) {
	if g := l.groups[name]; g != nil {
		g.retry = 0
		l.unpark(g)
	}
}

// stirred wakes whoever waits for a row, for its name, or for what it holds.
func (l *ledger) stirred(ref rows.Ref) {
	if len(l.waiters) == 0 {
		return
	}
	l.came(ref.String())
	l.came(heldBy + ref.String())
	l.came(releasedBy + ref.String())
	if s := l.rows[ref]; s != nil {
		if n, ok := provides(s.want()); ok {
			l.came(n.String())
			l.came(takeoverOf + n.String())
		}
	}
}

// conflicts lists, after a batch, what two units say differently, and forgets
// the suspicion. The first unit in registry order has its way.
func (l *ledger) conflicts() []error {
	var errs []error
	for ref := range l.suspectRows {
		if s := l.rows[ref]; s != nil && len(s.by) > 1 {
			errs = append(errs, fmt.Errorf("row %v is said by %s and by %s", ref, s.by[0].unit, s.by[1].unit))
		}
	}
	for slot := range l.suspectEdges {
		s := l.edges[slot]
		for i := 1; s != nil && i < len(s.by); i++ {
			if a, b := s.by[0], s.by[i]; a.value != b.value {
				errs = append(errs, fmt.Errorf("%v %s[%v] is %v by %s and %v by %s", slot.Row, slot.Column, slot.Key, a.value, a.unit, b.value, b.unit))
			}
		}
	}
	clear(l.suspectRows)
	clear(l.suspectEdges)
	return errs
}

// wants reports whether a slot is wanted, and its value.
func (s *edgeState) wants() (rows.Atom, bool) {
	if len(s.by) == 0 {
		return rows.Atom{}, false
	}
	return s.by[0].value, true
}

func (s *edgeState) settled() bool {
	v, want := s.wants()
	return want == s.have && (!want || v == s.value)
}

func (s *rowState) settled() bool {
	want := s.want()
	if want == nil {
		return s.have == nil
	}
	return s.have != nil && s.uuid == "" && s.holder == s.owner() && s.have.Equal(*want)
}

// touchRow files the row's difference under a group, or takes it off the list.
func (l *ledger) touchRow(ref rows.Ref, s *rowState, name string) {
	if g := l.groups[s.group]; g != nil {
		delete(g.rows, ref)
	}
	if s.settled() {
		s.have = s.want() // equal, and in memory once
		if s.have == nil {
			delete(l.rows, ref)
		}
		l.tidy(s.group)
		return
	}
	old := s.group
	s.group = name
	g := l.group(name)
	g.rows[ref] = struct{}{}
	l.ready[name] = g
	l.unpark(g)
	if old != name {
		l.tidy(old)
	}
}

// touchEdge files the slot's difference under the groups of its contributors, or
// under last when it has none, or takes it off the lists.
func (l *ledger) touchEdge(slot rows.Edge, s *edgeState, last string) {
	old := s.groups
	for _, name := range old {
		if g := l.groups[name]; g != nil {
			delete(g.edges, slot)
		}
	}
	s.groups = nil
	if s.settled() {
		if !s.have {
			delete(l.edges, slot)
		}
	} else {
		for _, c := range s.by {
			if !slices.Contains(s.groups, c.unit.group) {
				s.groups = append(s.groups, c.unit.group)
			}
		}
		if len(s.by) == 0 {
			s.groups = []string{last}
		}
	}
	for _, name := range s.groups {
		g := l.group(name)
		g.edges[slot] = struct{}{}
		l.ready[name] = g
		l.unpark(g)
	}
	for _, name := range old {
		l.tidy(name)
	}
}

// lastGroup is the group that a pending removal is filed under.
func (s *edgeState) lastGroup() string {
	if len(s.groups) == 0 {
		return ""
	}
	return s.groups[0]
}

func (l *ledger) group(name string) *group {
	g := l.groups[name]
	if g == nil {
		g = &group{name: name, rows: map[rows.Ref]struct{}{}, edges: map[rows.Edge]struct{}{}}
		l.groups[name] = g
	}
	return g
}

func (g *group) pending() bool { return len(g.rows)+len(g.edges) > 0 }

// tidy forgets a group that has nothing pending and whose commit is installed.
func (l *ledger) tidy(name string) {
	g := l.groups[name]
	if g == nil || g.pending() {
		return
	}
	l.unpark(g)
	g.well()
	if g.cfg <= l.installed && !l.flight.carries(name) {
		delete(l.groups, name)
	}
}

// well forgets a group's failures and how long it has waited.
func (g *group) well() { g.failure, g.tries, g.retry, g.since = Failure{}, 0, 0, 0 }

// ill notes since when a group waits or fails.
func (g *group) ill(now int64) {
	if g.since == 0 {
		g.since = max(now, 1)
	}
}

// park sets a group aside until one of the things it waits for comes.
func (l *ledger) park(g *group, waits []string, now int64) {
	l.unpark(g)
	g.ill(now)
	l.wait(g, waits)
	if slices.ContainsFunc(waits, func(w string) bool { return strings.Contains(w, heldByStranger) }) {
		g.failure = Failure{} // the database's refusal is understood now, and said better
	}
}

func (l *ledger) wait(g *group, waits []string) {
	g.parked = waits
	for _, w := range waits {
		if l.waiters[w] == nil {
			l.waiters[w] = map[*group]struct{}{}
		}
		l.waiters[w][g] = struct{}{}
	}
}

func (l *ledger) unpark(g *group) {
	for _, w := range g.parked {
		delete(l.waiters[w], g)
		if len(l.waiters[w]) == 0 {
			delete(l.waiters, w)
		}
	}
	if g.parked != nil {
		l.ready[g.name] = g
	}
	g.parked = nil
}

// came wakes the groups that wait for w.
func (l *ledger) came(w string) {
	for g := range l.waiters[w] {
		l.unpark(g)
	}
}
