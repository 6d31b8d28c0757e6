package rows

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// TableSchema is what the engine and the database layer need to know of a table.
// Tables and columns that somebody else writes are absent (see schemagen's list
// of reasons), so no unit can name them.
type TableSchema struct {
	// Root tables keep their rows; a row of another lives while its Parent refers to it.
	Root bool
	// Indexes are sets of columns whose values are unique in the table.
	Indexes [][]string
	// ExternalIDs tells whether our tags can be written on the row itself.
	ExternalIDs bool
	// Columns are sorted by name.
	Columns []ColumnSchema
}

// ColumnSchema is one column's type, RFC 7047 §3.2 reduced to what we use.
type ColumnSchema struct {
	Name  string
	Key   Kind // of an element, or of a map's key
	Value Kind // of a map's value; None: not a map
	// RefTable is where Key points when it is a Reference; Strong tells whether
	// the reference keeps its target alive and forbids its deletion.
	RefTable Table
	Strong   bool
	// ValueRefTable and ValueStrong say the same of Value.
	ValueRefTable Table
	ValueStrong   bool
	Scalar        bool // at most one element, and not a map
	Map           bool
	Optional      bool // may be empty
	Immutable     bool // cannot change after the insert: another value is another row
}

// SchemaOf returns a table's schema, and whether there is such a table. The
// slices are shared and must not be changed.
func SchemaOf(t Table) (TableSchema, bool) {
	s, ok := schema[t]
	return s, ok
}

// Tables lists every table of a database that has a schema here, sorted.
func Tables(db DB) []Table {
	var ts []Table
	for t := range schema {
		if t.DB() == db {
			ts = append(ts, t)
		}
	}
	slices.Sort(ts)
	return ts
}

// Column finds a column by name.
func (s TableSchema) Column(name string) (ColumnSchema, bool) {
	i, ok := slices.BinarySearchFunc(s.Columns, name, func(c ColumnSchema, n string) int { return cmp.Compare(c.Name, n) })
	if !ok {
		return ColumnSchema{}, false
	}
	return s.Columns[i], true
}

// IsDefault reports whether v is what the column holds when an insert leaves it
// out: nothing, or, where there must be a value, "", 0 or false.
func (c ColumnSchema) IsDefault(v Value) bool {
	if len(v) == 0 {
		return true
	}
	return c.Scalar && !c.Optional && len(v) == 1 && v[0] == Pair{Key: Atom{Kind: c.Key}}
}

// Fits reports whether v can be stored in the column, and if not, why.
func (c ColumnSchema) Fits(v Value) error {
	if c.Scalar && len(v) > 1 {
		return fmt.Errorf("%d elements, wanted one", len(v))
	}
	for _, p := range v {
		if err := errors.Join(fits("key", p.Key, c.Key, c.RefTable), fits("value", p.Value, c.Value, c.ValueRefTable)); err != nil {
			return err
		}
	}
	return nil
}

// Validate reports columns that do not exist, values of the wrong kind, and a
// parent that is missing, not wanted, or cannot hold the row. Each is a bug in
// the unit that made the row.
func (r Row) Validate() error {
	s, ok := SchemaOf(r.Table)
	if !ok {
		return fmt.Errorf("%v: no table %q, or one that others write", r.Ref, r.Table)
	}
	var errs []error
	for _, col := range r.Columns {
		errs = append(errs, s.validate(r.Ref, col.Name, col.Value))
	}
	if !s.ExternalIDs {
		if id := s.NaturalID(r.Columns); r.ID != id {
			errs = append(errs, fmt.Errorf("%v: id %q found, wanted %q: the table has no external_ids, its first index is the id", r.Ref, r.ID, id))
		}
	}
	switch {
	case s.Root && !r.Parent.Row.IsZero():
		errs = append(errs, fmt.Errorf("%v: parent %v given, wanted none: the table is a root table", r.Ref, r.Parent.Row))
	case !s.Root && r.Parent.Row.IsZero():
		errs = append(errs, fmt.Errorf("%v: no parent: the row would be lost", r.Ref))
	case !s.Root:
		errs = append(errs, r.Parent.validate(r.Ref))
	}
	return errors.Join(errs...)
}

// validate reports a parent column that is not a strong reference to child's table.
func (p Parent) validate(child Ref) error {
	s, ok := SchemaOf(p.Row.Table)
	if !ok {
		return fmt.Errorf("%v: parent %v: no such table", child, p.Row)
	}
	c, ok := s.Column(p.Column)
	if !ok || c.Map || !c.Strong || c.RefTable != child.Table {
		return fmt.Errorf("%v: parent %v column %q is not a strong reference to %s", child, p.Row, p.Column, child.Table)
	}
	return nil
}

// Validate reports an edge into a table or column that does not exist or cannot
// hold it: a bug in the unit that made the edge.
func (e Edge) Validate() error {
	s, ok := SchemaOf(e.Row.Table)
	if !ok {
		return fmt.Errorf("edge into %v: no table %q, or one that others write", e.Row, e.Row.Table)
	}
	if c, ok := s.Column(e.Column); ok && c.Scalar && !c.Optional {
		return fmt.Errorf("%v column %q: an edge found, wanted a set or map column: a scalar belongs to the row's owner", e.Row, e.Column)
	}
	return s.validate(e.Row, e.Column, Value{{Key: e.Key, Value: e.Value}})
}

func (s TableSchema) validate(row Ref, column string, v Value) error {
	c, ok := s.Column(column)
	if !ok {
		return fmt.Errorf("%v: no column %q, or one that others write", row, column)
	}
	if err := c.Fits(v); err != nil {
		return fmt.Errorf("%v column %q: %w", row, column, err)
	}
	return nil
}

func fits(part string, a Atom, want Kind, ref Table) error {
	if a.Kind != want {
		return fmt.Errorf("%s %s found, wanted %s", part, a.Kind, want)
	}
	if want == Reference && a.Ref.Table != ref {
		return fmt.Errorf("%s refers to %s, wanted %s", part, a.Ref.Table, ref)
	}
	return nil
}

// String is the kind's OVSDB name.
func (k Kind) String() string {
	switch k {
	case String:
		return "string"
	case Int:
		return "integer"
	case Bool:
		return "boolean"
	case Reference:
		return "uuid"
	}
	return "none"
}

// NaturalID is the ID that a row of a table without external_ids must have: the
// values of its first unique index, joined by "/". A database cannot hold our
// tags there, so the row is known by this ID and the UUID derived from it.
func (s TableSchema) NaturalID(columns []Column) string {
	parts := make([]string, 0, 2)
	for _, name := range s.Indexes[0] {
		part := ""
		i, ok := slices.BinarySearchFunc(columns, name, func(c Column, n string) int { return cmp.Compare(c.Name, n) })
		for j := 0; ok && j < len(columns[i].Value); j++ {
			switch a := columns[i].Value[j].Key; a.Kind {
			case String:
				part += a.Str
			default:
				part += a.String()
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "/")
}
