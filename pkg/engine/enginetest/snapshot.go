package enginetest

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// rawRef starts the ID of a Ref that carries a UUID, as pkg/ovsdb writes it.
const rawRef = "?"

// Snapshot reads the database as the engine wants it: rows of ours and the
// singleton, references resolved, our tags taken off, children left out of the
// column that keeps them alive.
func (d *DB) Snapshot() engine.Snapshot {
	s := engine.Snapshot{DB: d.name, Strangers: map[string]string{}, NbCfg: d.NbCfg, HvCfg: d.HvCfg}
	parents := d.parents()
	for _, r := range d.sorted() {
		ref, owner := d.refOf(r.uuid)
		if owner == "" && ref.ID != rows.Singleton && strings.HasPrefix(ref.ID, rawRef) {
			for _, key := range r.unique() {
				s.Strangers[key] = fmt.Sprintf("%s row %s without our tag", r.table, r.uuid)
			}
			continue
		}
		a := engine.ActualRow{Ref: ref, Owner: owner, UUID: r.uuid, Parent: parents[r.uuid]}
		a.Columns = d.columns(r, ref, parents)
		s.Rows = append(s.Rows, a)
	}
	slices.SortFunc(s.Rows, func(a, b engine.ActualRow) int { return a.Ref.Compare(b.Ref) })
	return s
}

func (d *DB) sorted() []*row {
	return slices.SortedFunc(maps.Values(d.rows), func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.uuid, b.uuid))
	})
}

// refOf names a row: by our tag, by its natural ID, or by its UUID. Rows of ours
// in a table without external_ids have no owner and yet a name.
func (d *DB) refOf(id string) (ref rows.Ref, owner string) {
	r := d.rows[id]
	ref = rows.Ref{Table: r.table, ID: rawRef + id}
	if id == d.root {
		ref.ID = rows.Singleton
		return ref, ""
	}
	schema, _ := rows.SchemaOf(r.table)
	if !schema.ExternalIDs {
		natural := rows.Ref{Table: r.table, ID: schema.NaturalID(columnsOf(r))}
		if natural.UUID() == id {
			return natural, ""
		}
		return ref, ""
	}
	o, _ := r.cols["external_ids"].Get(rows.S(engine.OwnerKey))
	name, ok := r.cols["external_ids"].Get(rows.S(engine.IDKey))
	if !ok || o.Str == "" {
		return ref, ""
	}
	ref.ID = name.Str
	return ref, o.Str
}

func columnsOf(r *row) []rows.Column {
	var out []rows.Column
	for _, name := range slices.Sorted(maps.Keys(r.cols)) {
		out = append(out, rows.Column{Name: name, Value: r.cols[name]})
	}
	return out
}

// parents finds what keeps each row of a non-root table alive.
func (d *DB) parents() map[string]rows.Parent {
	out := map[string]rows.Parent{}
	for _, r := range d.sorted() {
		holder, _ := d.refOf(r.uuid)
		r.each(func(column string, target rows.Ref, strong bool) {
			schema, _ := rows.SchemaOf(target.Table)
			if _, known := out[target.ID]; strong && !schema.Root && !known {
				out[target.ID] = rows.Parent{Row: holder, Column: column}
			}
		})
	}
	return out
}

// columns are a row's values without our tags, defaults and children.
func (d *DB) columns(r *row, ref rows.Ref, parents map[string]rows.Parent) []rows.Column {
	schema, _ := rows.SchemaOf(r.table)
	var out []rows.Column
	for _, c := range columnsOf(r) {
		col, _ := schema.Column(c.Name)
		self := rows.Parent{Row: ref, Column: c.Name}
		v := make(rows.Value, 0, len(c.Value))
		for _, p := range c.Value {
			if c.Name == "external_ids" && strings.HasPrefix(p.Key.Str, "portolan/") {
				continue
			}
			if p.Key.Kind == rows.Reference && parents[p.Key.Ref.ID] == self {
				continue
			}
			v = append(v, rows.Pair{Key: d.symbol(p.Key), Value: d.symbol(p.Value)})
		}
		if !col.IsDefault(v) {
			out = append(out, rows.Column{Name: c.Name, Value: sorted(v)})
		}
	}
	return out
}

func (d *DB) symbol(a rows.Atom) rows.Atom {
	if a.Kind == rows.Reference && d.rows[a.Ref.ID] != nil {
		ref, _ := d.refOf(a.Ref.ID)
		return rows.R(ref)
	}
	return a
}

// Others is the text of everything that is not ours: rows, and what is in the
// singleton. A test compares it before and after.
func (d *DB) Others() string {
	var out []rows.Row
	for _, r := range d.sorted() {
		ref, owner := d.refOf(r.uuid)
		if owner != "" || (ref.ID != rows.Singleton && !strings.HasPrefix(ref.ID, rawRef)) {
			continue
		}
		row := rows.Row{Ref: ref}
		for _, c := range columnsOf(r) {
			v := make(rows.Value, 0, len(c.Value))
			for _, p := range c.Value {
				v = append(v, rows.Pair{Key: d.symbol(p.Key), Value: d.symbol(p.Value)})
			}
			if len(v) > 0 {
				row.Columns = append(row.Columns, rows.Column{Name: c.Name, Value: sorted(v)})
			}
		}
		out = append(out, row)
	}
	return rows.Format(out, nil)
}

// reference finds the names that a match resolves: $address_set and @port_group.
var reference = regexp.MustCompile(`([$@])([A-Za-z_][A-Za-z_0-9.]*)`)

// Dangling lists names in the matches of ACLs and router policies that no row
// provides: OVN drops such a rule whole, and traffic passes.
func (d *DB) Dangling() []string {
	names := map[string]bool{}
	for _, r := range d.rows {
		switch r.table {
		case "NB:Address_Set":
			names["$"+text(r.cols["name"])] = true
		case "NB:Port_Group":
			names["@"+text(r.cols["name"])] = true
		}
	}
	var out []string
	for _, r := range d.sorted() {
		for _, m := range reference.FindAllString(text(r.cols["match"]), -1) {
			if !names[m] {
				ref, _ := d.refOf(r.uuid)
				out = append(out, fmt.Sprintf("%v uses %s, which is not there", ref, m))
			}
		}
	}
	return out
}

func text(v rows.Value) string {
	if len(v) != 1 {
		return ""
	}
	return v[0].Key.Str
}
