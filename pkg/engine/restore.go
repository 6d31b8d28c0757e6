package engine

import (
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// restore replaces the ledger by what the database was found to hold, and files
// every difference from what is wanted. A row or element of ours that nobody
// wants becomes a pending removal in the group of its recorded owner. On a new
// connection what failed for want of one is tried at once; on the old one it backs
// off, or a database that refuses everything for its own reasons would be read and
// written without pause.
func (l *ledger) restore(s Snapshot) {
	l.live, l.flight, l.strangers = true, nil, s.Strangers
	l.have = newIndex()
	for _, r := range l.rows {
		r.have, r.holder, r.uuid = nil, "", ""
	}
	for _, e := range l.edges {
		e.have, e.value = false, rows.Atom{}
	}
	if s.DB == rows.NB {
		l.nbCfg = max(l.nbCfg, s.NbCfg)
		l.installed = max(l.installed, s.HvCfg)
	}
	children := map[rows.Ref]rows.Parent{}
	for _, r := range s.Rows {
		if !r.Parent.Row.IsZero() {
			children[r.Ref] = r.Parent
		}
	}
	for _, r := range s.Rows {
		if r.ID != rows.Singleton && l.rows[r.Ref] == nil {
			l.rows[r.Ref] = &rowState{group: r.Owner}
		}
	}
	for _, r := range s.Rows {
		l.restoreRow(r, children)
	}
	for _, ref := range slices.SortedFunc(maps.Keys(l.rows), rows.Ref.Compare) {
		l.touchRow(ref, l.rows[ref], l.rows[ref].groupName())
	}
	for _, slot := range slices.SortedFunc(maps.Keys(l.edges), rows.Edge.Compare) {
		e := l.edges[slot]
		l.touchEdge(slot, e, e.lastGroup())
	}
	for _, g := range l.groups {
		l.unpark(g)
		if g.failure.Class == IO && l.broken {
			g.retry = 0
		}
	}
	l.broken = false
}

// restoreRow takes one actual row apart: elements that units contribute as edges
// become committed edges, references that keep children alive belong to the
// children, references to rows of others are theirs, and the rest is the owner's.
func (l *ledger) restoreRow(a ActualRow, children map[rows.Ref]rows.Parent) {
	schema, _ := rows.SchemaOf(a.Table)
	have := rows.Row{Ref: a.Ref, Parent: a.Parent}
	for _, c := range a.Columns {
		col, ok := schema.Column(c.Name)
		if !ok {
			continue
		}
		var own rows.Value
		for _, p := range c.Value {
			slot := rows.Edge{Row: a.Ref, Column: c.Name, Key: p.Key}
			switch e := l.edges[slot]; {
			case p.Key.Kind == rows.Reference && children[p.Key.Ref] == rows.Parent{Row: a.Ref, Column: c.Name}:
			case e != nil && !col.Scalar:
				e.have, e.value = true, p.Value
				l.have.addEdge(slot)
			case p.Key.Kind == rows.Reference && !l.known(p.Key.Ref):
			case col.Map && shared(a.Table, c.Name) && !l.says(a.Ref, c.Name, p.Key):
			default:
				own = append(own, p)
			}
		}
		if len(own) > 0 && !col.IsDefault(own) {
			have.Columns = append(have.Columns, rows.Column{Name: c.Name, Value: own})
		}
	}
	if a.ID == rows.Singleton {
		return
	}
	s := l.rows[a.Ref]
	// What a row uses is not in the database. If it is as wanted, neither differ
	// the names; else they are read from its strings, or the last user of a name
	// would be forgotten by a restart, and a deny opened.
	if want := s.want(); want != nil && slices.EqualFunc(want.Columns, have.Columns, equalColumns) {
		have.Uses = want.Uses
	} else {
		have.Uses = usesOf(&have)
	}
	s.have, s.holder = &have, a.Owner
	if schema, _ := rows.SchemaOf(a.Table); !schema.ExternalIDs && s.want() != nil {
		s.holder = s.owner()
	}
	if a.UUID != a.Ref.UUID() {
		s.uuid = a.UUID
	}
	l.have.addRow(s.have)
}

func equalColumns(a, b rows.Column) bool { return a.Name == b.Name && a.Value.Equal(b.Value) }

// shared reports whether others keep keys of their own in a map column of rows
// that we own: ovn-controller writes ct-zone-* on br-int and ovn-installed on
// interfaces, people write external_ids everywhere. There only the keys that we
// say are ours; one that an earlier release said and this one does not, stays.
func shared(t rows.Table, column string) bool {
	return column == "external_ids" || t.DB() == rows.OVS
}

// says reports whether the row's owner gives a map column this key.
func (l *ledger) says(ref rows.Ref, column string, key rows.Atom) bool {
	s := l.rows[ref]
	if s == nil || s.want() == nil {
		return false
	}
	v, _ := s.want().Column(column)
	_, ok := v.Get(key)
	return ok
}

// known reports whether a referenced row is one of ours: wanted, or under our
// tag. References to rows of others are left alone.
func (l *ledger) known(ref rows.Ref) bool {
	return l.rows[ref] != nil
}
