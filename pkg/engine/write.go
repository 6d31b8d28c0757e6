package engine

import (
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// write turns a group's difference into operations, and says what their commit
// makes true.
func (p *planner) write(g *group) ([]Op, *written) {
	var ops []Op
	w := &written{}
	for _, ref := range slices.SortedFunc(maps.Keys(g.rows), rows.Ref.Compare) {
		s := p.l.rows[ref]
		want := s.want()
		if want == nil {
			if !p.parentGoes(s.have) {
				ops = append(ops, Op{Kind: Delete, Row: rows.Row{Ref: ref, Parent: s.have.Parent}, UUID: s.uuid})
			}
			w.rows = append(w.rows, rowWrite{ref: ref})
			continue
		}
		w.rows = append(w.rows, rowWrite{ref, want, s.owner()})
		switch {
		case s.have == nil:
			ops = append(ops, Op{Kind: Insert, Owner: s.owner(), Row: *want})
		case s.uuid != "":
			ops = append(ops, Op{Kind: Delete, Row: rows.Row{Ref: ref, Parent: s.have.Parent}, UUID: s.uuid},
				Op{Kind: Insert, Owner: s.owner(), Row: *want})
		default:
			ops = append(ops, p.update(s, want)...)
		}
	}
	for _, slot := range slices.SortedFunc(maps.Keys(g.edges), rows.Edge.Compare) {
		s := p.l.edges[slot]
		value, wants := s.wants()
		w.edges = append(w.edges, edgeWrite{slot, wants, value})
		ops = append(ops, p.change(slot, s)...)
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return opRank(a) - opRank(b) })
	return ops, w
}

// opRank orders a group's operations; a replaced row is deleted before it is
// inserted again under its own UUID.
func opRank(o Op) int {
	if o.Kind == Delete && o.UUID != "" {
		return 0
	}
	return int(o.Kind)
}

// goes reports whether this transaction ends a row.
func (p *planner) goes(ref rows.Ref) bool {
	s := p.l.rows[ref]
	if s == nil || s.want() != nil || s.have == nil {
		return false
	}
	_, in := p.in[s.group]
	return in
}

// parentGoes reports whether the row goes with its parent, without being told to.
func (p *planner) parentGoes(r *rows.Row) bool {
	parent := r.Parent.Row
	return !parent.IsZero() && (p.goes(parent) || p.absent(parent))
}

func (p *planner) absent(ref rows.Ref) bool {
	s := p.l.rows[ref]
	return ref.ID != rows.Singleton && (s == nil || s.have == nil)
}

// change makes the operations of one edge. Edges of a row that is gone or going
// cost nothing, nor do weak references to one.
func (p *planner) change(slot rows.Edge, s *edgeState) []Op {
	value, wants := s.wants()
	old, now := slot, slot
	old.Value, now.Value = s.value, value
	var ops []Op
	if s.have && !p.goes(slot.Row) && !p.absent(slot.Row) && !p.dropsItself(slot) {
		ops = append(ops, Op{Kind: Remove, Edge: old})
	}
	if wants {
		ops = append(ops, Op{Kind: Add, Edge: now})
	}
	return ops
}

// dropsItself reports whether the database removes a weak reference by itself,
// because this transaction deletes its target.
func (p *planner) dropsItself(slot rows.Edge) bool {
	if slot.Key.Kind != rows.Reference || !p.goes(slot.Key.Ref) {
		return false
	}
	schema, _ := rows.SchemaOf(slot.Row.Table)
	col, _ := schema.Column(slot.Column)
	return !col.Strong
}

// update makes the operations that turn a committed row into the wanted one.
// Sets and maps change by element, so that other contributors' elements stay.
func (p *planner) update(s *rowState, want *rows.Row) []Op {
	have := s.have
	var ops []Op
	if have.Parent != want.Parent {
		self := rows.R(want.Ref)
		if old := have.Parent; !old.Row.IsZero() && !p.goes(old.Row) && !p.absent(old.Row) {
			ops = append(ops, Op{Kind: Remove, Edge: rows.Member(old.Row, old.Column, self)})
		}
		if now := want.Parent; !now.Row.IsZero() {
			ops = append(ops, Op{Kind: Add, Edge: rows.Member(now.Row, now.Column, self)})
		}
	}
	schema, _ := rows.SchemaOf(want.Table)
	scalars := rows.Row{Ref: want.Ref}
	diff(have.Columns, want.Columns, compareColumns, func(a, b *rows.Column) {
		var before, after rows.Value
		name := ""
		if a != nil {
			before, name = a.Value, a.Name
		}
		if b != nil {
			after, name = b.Value, b.Name
		}
		if before.Equal(after) {
			return
		}
		if col, _ := schema.Column(name); col.Scalar {
			scalars.Columns = append(scalars.Columns, rows.Column{Name: name, Value: after})
			return
		}
		ops = append(ops, p.elements(want.Ref, name, before, after)...)
	})
	if len(scalars.Columns) > 0 {
		ops = append(ops, Op{Kind: Update, Row: scalars})
	}
	if owner := s.owner(); s.holder != owner && schema.ExternalIDs {
		ops = append(ops, Op{Kind: Remove, Edge: rows.Entry(want.Ref, "external_ids", OwnerKey, s.holder)},
			Op{Kind: Add, Edge: rows.Entry(want.Ref, "external_ids", OwnerKey, owner)})
	}
	return ops
}

// OwnerKey, IDKey and ZoneKey are the tags of our rows in external_ids.
const (
	OwnerKey = "portolan/owner"
	IDKey    = "portolan/id"
	ZoneKey  = "portolan/zone"
)

// elements changes a set or map column of a row's owner. An element that
// another unit also contributes stays.
func (p *planner) elements(ref rows.Ref, column string, before, after rows.Value) []Op {
	var ops []Op
	diff(before, after, comparePairs, func(a, b *rows.Pair) {
		if a != nil && b != nil {
			return
		}
		if a != nil {
			edge := rows.Edge{Row: ref, Column: column, Key: a.Key, Value: a.Value}
			if s := p.l.edges[edge.Slot()]; s == nil || len(s.by) == 0 {
				ops = append(ops, Op{Kind: Remove, Edge: edge})
			}
			return
		}
		ops = append(ops, Op{Kind: Add, Edge: rows.Edge{Row: ref, Column: column, Key: b.Key, Value: b.Value}})
	})
	return ops
}

func compareColumns(a, b rows.Column) int {
	if a.Name < b.Name {
		return -1
	}
	if a.Name > b.Name {
		return 1
	}
	return 0
}

func comparePairs(a, b rows.Pair) int {
	if c := a.Key.Compare(b.Key); c != 0 {
		return c
	}
	return a.Value.Compare(b.Value)
}
