package rows

import (
	"cmp"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// DB is one of the databases that the engine drives.
type DB string

// The databases, by the short names used in text and code. Their OVSDB names
// are OVN_Northbound, OVN_Southbound and Open_vSwitch.
const (
	NB  DB = "NB"
	SB  DB = "SB"
	OVS DB = "OVS"
)

// Table names a table with its database: "NB:Logical_Switch".
type Table string

// DB is the table's database.
func (t Table) DB() DB {
	db, _, _ := strings.Cut(string(t), ":")
	return DB(db)
}

// Name is the table's OVSDB name.
func (t Table) Name() string {
	_, name, _ := strings.Cut(string(t), ":")
	return name
}

// Singleton is the ID of the one row of a table that has exactly one and that
// we do not own: NB_Global, SB_Global, Open_vSwitch.
const Singleton = "."

// Ref identifies a row. ID is unique in its table and stable over releases:
// changing how one is formed is a migration.
type Ref struct {
	Table Table
	ID    string
}

// namespace is the root of every derived UUID; it never changes.
var namespace = uuid.MustParse("5b0e7c1e-6d0c-5a57-9a7e-8f3b1d0c2a44")

// UUID is the row's UUID: UUIDv5 over "Table/ID" (decision 2).
func (r Ref) UUID() string {
	return uuid.NewSHA1(namespace, []byte(string(r.Table)+"/"+r.ID)).String()
}

// IsZero reports whether r names no row.
func (r Ref) IsZero() bool { return r == Ref{} }

// Compare orders refs by table, then ID.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Table, o.Table), cmp.Compare(r.ID, o.ID))
}

// String is the ref's text form: NB:Logical_Switch(node1).
func (r Ref) String() string {
	if r.IsZero() {
		return ""
	}
	return string(r.Table) + "(" + r.ID + ")"
}

// Parent is the one reference that keeps a row of a non-root table alive.
type Parent struct {
	Row    Ref
	Column string
}

// NameKind is a kind of name that OVN resolves inside strings, where a missing
// one fails open (decision 3).
type NameKind string

// The kinds of names.
const (
	AddressSet NameKind = "address-set"
	PortGroup  NameKind = "port-group"
	Meter      NameKind = "meter"
	RouterPort NameKind = "router-port"
	Template   NameKind = "template"
)

// Name is a name in one database that rows use and rows provide.
type Name struct {
	DB   DB
	Kind NameKind
	Name string
}

// String is the name's text form: NB/meter/arp-rate-limiter.
func (n Name) String() string { return string(n.DB) + "/" + string(n.Kind) + "/" + n.Name }

// Column is one column's value as the row's owner gives it.
type Column struct {
	Name  string
	Value Value
}

// Row is a row owned by the unit that emits it.
type Row struct {
	Ref
	Parent  Parent   // zero for rows of root tables
	Uses    []Name   // names inside strings that must exist before the row does
	Columns []Column // sorted by name; a column absent here is at its default
}

// New makes a row of a root table from its columns.
func New(table Table, id string, columns map[string]Value) Row {
	return Row{Ref: Ref{table, id}, Columns: sortColumns(columns)}
}

// Child makes a row of a non-root table that hangs in parent's column.
func Child(table Table, id string, parent Ref, column string, columns map[string]Value) Row {
	r := New(table, id, columns)
	r.Parent = Parent{Row: parent, Column: column}
	return r
}

// Using returns the row with names that it uses added.
func (r Row) Using(names ...Name) Row {
	r.Uses = append(slices.Clone(r.Uses), names...)
	slices.SortFunc(r.Uses, func(a, b Name) int { return cmp.Compare(a.String(), b.String()) })
	r.Uses = slices.Compact(r.Uses)
	return r
}

// Column returns the value that the owner gives a column.
func (r Row) Column(name string) (Value, bool) {
	i, ok := slices.BinarySearchFunc(r.Columns, name, func(c Column, n string) int { return cmp.Compare(c.Name, n) })
	if !ok {
		return nil, false
	}
	return r.Columns[i].Value, true
}

// provided tells which tables' name columns OVN resolves from strings.
var provided = map[Table]NameKind{
	"NB:Address_Set": AddressSet, "NB:Port_Group": PortGroup, "NB:Meter": Meter, "NB:Logical_Router_Port": RouterPort,
}

// Provides is the name that other rows' strings may use, and whether the row has one.
func (r Row) Provides() (Name, bool) {
	kind, ok := provided[r.Table]
	if !ok {
		return Name{}, false
	}
	v, ok := r.Column("name")
	if !ok || len(v) == 0 {
		return Name{}, false
	}
	return Name{DB: r.Table.DB(), Kind: kind, Name: v[0].Key.Str}, true
}

// Equal reports whether both rows are the same in every part.
func (r Row) Equal(o Row) bool {
	return r.Ref == o.Ref && r.Parent == o.Parent && slices.Equal(r.Uses, o.Uses) &&
		slices.EqualFunc(r.Columns, o.Columns, func(a, b Column) bool { return a.Name == b.Name && a.Value.Equal(b.Value) })
}

// Edge is one element of a shared set column, or one entry of a shared map
// column, of a row owned by anybody.
type Edge struct {
	Row    Ref
	Column string
	Key    Atom
	Value  Atom // absent for sets
}

// Slot is what at most one value may occupy: the edge without its value.
func (e Edge) Slot() Edge {
	e.Value = Atom{}
	return e
}

// Compare orders edges by row, column, key, value.
func (e Edge) Compare(o Edge) int {
	return cmp.Or(e.Row.Compare(o.Row), cmp.Compare(e.Column, o.Column), e.Key.Compare(o.Key), e.Value.Compare(o.Value))
}

// Member makes an edge that puts an element into a set.
func Member(row Ref, column string, element Atom) Edge {
	return Edge{Row: row, Column: column, Key: element}
}

// Entry makes an edge that sets one key of a map of strings.
func Entry(row Ref, column, key, value string) Edge {
	return Edge{Row: row, Column: column, Key: S(key), Value: S(value)}
}

// Severity says who has to act on a Problem.
type Severity string

// The severities: an Error leaves something the user asked for undone.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	// Repaired is no mistake: something was not as it should be, and is now.
	Repaired Severity = "repaired"
)

// Problem is a mistake in what the user asked for, found while compiling: it
// becomes a condition on the object and an Event.
type Problem struct {
	Object   string // intent kind and key: "Pod/ns/name"
	Field    string // the field at fault, as the user wrote it: "spec.subnets[1]"
	Severity Severity
	Message  string // what was asked, what was found, what to do
}

// Output is all that one unit says.
type Output struct {
	Rows     []Row
	Edges    []Edge
	Problems []Problem
}

// Add appends a row and returns its ref.
func (o *Output) Add(r Row) Ref {
	o.Rows = append(o.Rows, r)
	return r.Ref
}

// Link appends an edge.
func (o *Output) Link(e Edge) { o.Edges = append(o.Edges, e) }

func sortColumns(m map[string]Value) []Column {
	cs := make([]Column, 0, len(m))
	for n, v := range m {
		if len(v) == 0 {
			continue // the default: leaving it out and giving it empty are one
		}
		cs = append(cs, Column{Name: n, Value: v})
	}
	slices.SortFunc(cs, func(a, b Column) int { return cmp.Compare(a.Name, b.Name) })
	return cs
}
