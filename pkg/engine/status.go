package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Statuses lists the groups that are not written as they should be, and why.
func (e *Engine) Statuses() []Status {
	var out []Status
	for _, db := range e.cfg.Databases {
		l := e.ledgers[db]
		for _, name := range slices.Sorted(maps.Keys(l.groups)) {
			g := l.groups[name]
			if len(g.parked) == 0 && g.failure.Err == "" {
				continue
			}
			out = append(out, Status{Group: name, DB: db, Waiting: g.parked, Failure: g.failure, Retry: g.retry, Since: g.since})
		}
	}
	return out
}

// Refusal says why a group cannot be written before somebody changes something,
// for the one who has to; ok is false while it only waits, or may yet succeed.
func (s Status) Refusal() (message string, ok bool) {
	if w, ok := s.stranger(); ok {
		return fmt.Sprintf("in %s, %s: remove that row or give it another name", s.DB, w), true
	}
	if s.Failure.Class == Constraint {
		return fmt.Sprintf("%s refused it, and it is tried again within 5 minutes: %s", s.DB, s.Failure.Err), true
	}
	return "", false
}

// Blocked reports whether a row of somebody else keeps the group from being written:
// that it goes, nobody tells, so the database has to be read again.
func (s Status) Blocked() bool {
	_, ok := s.stranger()
	return ok
}

func (s Status) stranger() (string, bool) {
	i := slices.IndexFunc(s.Waiting, func(w string) bool { return strings.Contains(w, heldByStranger) })
	if i < 0 {
		return "", false
	}
	return s.Waiting[i], true
}

// Marks reports how far a group has come in every database: committed, when
// nothing of it is pending or under way; installed, when every chassis of the
// zone has installed its last commit. A group that nothing is known of is both:
// what it once had is gone.
func (e *Engine) Marks(group string) (committed, installed bool) {
	committed, installed = e.synced, e.synced
	for _, db := range e.cfg.Databases {
		l := e.ledgers[db]
		if !l.live {
			return false, false
		}
		if l.flight.carries(group) {
			return false, false
		}
		g := l.groups[group]
		if g == nil {
			continue
		}
		if g.pending() {
			return false, false
		}
		installed = installed && g.cfg <= l.installed
	}
	return committed, installed
}

// Settled reports whether every database is known and holds all that it can: what
// is still pending waits for something else, or was refused.
func (e *Engine) Settled() bool {
	if !e.synced {
		return false
	}
	for _, db := range e.cfg.Databases {
		l := e.ledgers[db]
		if !l.live || l.flight != nil {
			return false
		}
		for _, g := range l.ready {
			if g.pending() && len(g.parked) == 0 && g.failure.Err == "" {
				return false
			}
		}
	}
	return true
}

// Problems lists what units found wrong with what users asked for, by object.
func (e *Engine) Problems() []rows.Problem {
	var out []rows.Problem
	for _, u := range e.units {
		out = append(out, u.problems...)
	}
	slices.SortFunc(out, func(a, b rows.Problem) int {
		return strings.Compare(a.Object+a.Field+a.Message, b.Object+b.Field+b.Message)
	})
	return slices.Compact(out)
}

// Explanation says where a row or a unit comes from.
type Explanation struct {
	Unit  string
	Group string
	Reads []string
	Rows  []rows.Row
	Edges []rows.Edge
	// Problems are those that the unit found.
	Problems []rows.Problem
}

// Explain tells what a unit has read and said; ok is false for an unknown unit.
func (e *Engine) Explain(u Unit) (Explanation, bool) {
	x := e.units[u]
	if x == nil {
		return Explanation{}, false
	}
	ex := Explanation{Unit: u.String(), Group: x.group, Rows: x.rows, Edges: x.edges, Problems: x.problems}
	for _, d := range x.deps {
		ex.Reads = append(ex.Reads, d.String())
	}
	slices.Sort(ex.Reads)
	return ex, true
}

// Owner names the unit that says a row.
func (e *Engine) Owner(ref rows.Ref) (Unit, bool) {
	l := e.ledgers[ref.Table.DB()]
	if l == nil || l.rows[ref] == nil || len(l.rows[ref].by) == 0 {
		return Unit{}, false
	}
	return l.rows[ref].by[0].unit.Unit, true
}

// Desired returns all that units want in a database, sorted: the text of
// scripts, and the left side of every oracle.
func (e *Engine) Desired(db rows.DB) ([]rows.Row, []rows.Edge) {
	l := e.ledgers[db]
	var rs []rows.Row
	for _, s := range l.rows {
		if want := s.want(); want != nil {
			rs = append(rs, *want)
		}
	}
	slices.SortFunc(rs, compareRows)
	var es []rows.Edge
	for slot, s := range l.edges {
		if v, ok := s.wants(); ok {
			slot.Value = v
			es = append(es, slot)
		}
	}
	slices.SortFunc(es, rows.Edge.Compare)
	return rs, es
}

// Committed returns what the ledger says a database holds of ours, sorted.
func (e *Engine) Committed(db rows.DB) ([]rows.Row, []rows.Edge) {
	l := e.ledgers[db]
	var rs []rows.Row
	for _, s := range l.rows {
		if s.have != nil {
			rs = append(rs, *s.have)
		}
	}
	slices.SortFunc(rs, compareRows)
	var es []rows.Edge
	for slot, s := range l.edges {
		if s.have {
			slot.Value = s.value
			es = append(es, slot)
		}
	}
	slices.SortFunc(es, rows.Edge.Compare)
	return rs, es
}

// Now is the tick of the last step, in milliseconds since the driver began.
func (e *Engine) Now() int64 { return e.now }

// Units lists the live units in compile order.
func (e *Engine) Units() []Unit {
	us := slices.SortedFunc(maps.Values(e.units), (*unit).compare)
	out := make([]Unit, len(us))
	for i, u := range us {
		out[i] = u.Unit
	}
	return out
}

// Object returns one intent object, for dumps.
func (e *Engine) Object(k intent.Key) (intent.Object, bool) { return e.store.Object(k) }

// Sayers lists the groups of the units that say an edge.
func (e *Engine) Sayers(edge rows.Edge) []string {
	l := e.ledgers[edge.Row.Table.DB()]
	if l == nil || l.edges[edge.Slot()] == nil {
		return nil
	}
	var out []string
	for _, c := range l.edges[edge.Slot()].by {
		out = append(out, c.unit.group)
	}
	return out
}
