package ovsdb

import (
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// step is an operation with the groups that it is for: those to blame when it
// counts no row.
type step struct {
	operation
	groups []string
	count  bool // the reply's count must be 1
}

// encoder turns groups into the operations of one transaction. All changes of
// one row become one update and one mutate, and changes of a row that is
// inserted here become part of the insert, so a thousand pods on one switch cost
// it one mutate.
type encoder struct {
	zone    string
	inserts map[rows.Ref]*insertion
	deletes map[rows.Ref]bool
	changes map[rows.Ref]*change
	order   []rows.Ref // of changes, by first mention
	born    []rows.Ref // of inserts
	dying   []deletion
}

type insertion struct {
	owner  string
	group  string
	values map[string]rows.Value
}

type deletion struct {
	ref   rows.Ref
	uuid  string
	group string
}

// change is what happens to a row that is there already.
type change struct {
	groups  []string
	columns map[string]rows.Value // for update
	slots   map[string]*slots     // for mutate
}

type slots struct{ remove, insert rows.Value }

// encode makes a transaction's operations. nbCfg is written when it is not 0;
// lock is asserted when it is not "".
func encode(groups []engine.GroupOps, zone, lock string, nbCfg int64) []step {
	e := &encoder{
		zone: zone, inserts: map[rows.Ref]*insertion{}, deletes: map[rows.Ref]bool{}, changes: map[rows.Ref]*change{},
	}
	e.find(groups)
	for _, g := range groups {
		for _, op := range g.Ops {
			e.add(g.Group, op)
		}
	}
	var steps []step
	if lock != "" {
		steps = append(steps, step{operation: operation{Op: "assert", Lock: lock}})
	}
	for _, ref := range e.born {
		steps = append(steps, e.insert(ref))
	}
	for _, ref := range e.order {
		steps = append(steps, e.change(ref)...)
	}
	for _, d := range e.dying {
		steps = append(steps, step{
			operation: operation{Op: "delete", Table: d.ref.Table.Name(), Where: rowWithUUID(d.uuid)},
			groups:    []string{d.group}, count: true,
		})
	}
	if nbCfg != 0 {
		cfg := columnValue{schema: rows.ColumnSchema{Key: rows.Int, Scalar: true}, value: rows.Num(nbCfg)}
		steps = append(steps, step{operation: operation{
			Op: "update", Table: "NB_Global", Where: everyRow(), Row: map[string]columnValue{"nb_cfg": cfg},
		}})
	}
	return steps
}

// find notes which rows are inserted and deleted, before any change is filed.
func (e *encoder) find(groups []engine.GroupOps) {
	for _, g := range groups {
		for _, op := range g.Ops {
			switch op.Kind {
			case engine.Insert:
				in := &insertion{owner: op.Owner, group: g.Group, values: map[string]rows.Value{}}
				for _, c := range op.Row.Columns {
					in.values[c.Name] = slices.Clip(c.Value) // appending must not write into the op's own
				}
				e.inserts[op.Row.Ref] = in
				e.born = append(e.born, op.Row.Ref)
			case engine.Delete:
				e.deletes[op.Row.Ref] = true
			}
		}
	}
}

// add files one operation.
func (e *encoder) add(group string, op engine.Op) {
	ref := op.Row.Ref
	switch op.Kind {
	case engine.Insert:
		if p := op.Row.Parent; !p.Row.IsZero() {
			e.link(group, p, rows.R(ref))
		}
	case engine.Update:
		e.set(group, op)
	case engine.Add:
		e.link(group, rows.Parent{Row: op.Edge.Row, Column: op.Edge.Column}, op.Edge.Key, op.Edge.Value)
	case engine.Remove:
		if e.inserts[op.Edge.Row] != nil {
			return // it is not there yet
		}
		e.slot(group, op.Edge.Row, op.Edge.Column).drop(rows.Pair{Key: op.Edge.Key})
	case engine.Delete:
		e.delete(group, op)
	}
}

// set files scalars for an update.
func (e *encoder) set(group string, op engine.Op) {
	ref := op.Row.Ref
	if in := e.inserts[ref]; in != nil {
		for _, c := range op.Row.Columns {
			in.values[c.Name] = slices.Clip(c.Value)
		}
		return
	}
	ch := e.at(group, ref)
	for _, c := range op.Row.Columns {
		ch.columns[c.Name] = c.Value
	}
}

// link files an element or entry (key, and a value for a map) to be added.
func (e *encoder) link(group string, to rows.Parent, key rows.Atom, value ...rows.Atom) {
	pair := rows.Pair{Key: key}
	if len(value) > 0 {
		pair.Value = value[0]
	}
	if in := e.inserts[to.Row]; in != nil {
		in.values[to.Column] = append(in.values[to.Column], pair)
		return
	}
	s := e.slot(group, to.Row, to.Column)
	s.insert = append(s.insert, pair)
}

// delete files the end of a row. A row of a non-root table ends by its parent
// letting go, unless the parent ends here too.
func (e *encoder) delete(group string, op engine.Op) {
	id := op.UUID
	if id == "" {
		id = uuidOf(op.Row.Ref)
	}
	parent := op.Row.Parent
	switch {
	case parent.Row.IsZero():
		e.dying = append(e.dying, deletion{op.Row.Ref, id, group})
	case e.deletes[parent.Row] && e.inserts[parent.Row] == nil:
	case e.inserts[parent.Row] != nil:
	default:
		gone := rows.R(rows.Ref{Table: op.Row.Table, ID: rawRef + id})
		e.slot(group, parent.Row, parent.Column).drop(rows.Pair{Key: gone})
	}
}

func (e *encoder) at(group string, ref rows.Ref) *change {
	ch := e.changes[ref]
	if ch == nil {
		ch = &change{columns: map[string]rows.Value{}, slots: map[string]*slots{}}
		e.changes[ref] = ch
		e.order = append(e.order, ref)
	}
	if n := len(ch.groups); n == 0 || ch.groups[n-1] != group { // a group's operations come together
		ch.groups = append(ch.groups, group)
	}
	return ch
}

func (e *encoder) slot(group string, ref rows.Ref, column string) *slots {
	ch := e.at(group, ref)
	if ch.slots[column] == nil {
		ch.slots[column] = &slots{}
	}
	return ch.slots[column]
}

func (s *slots) drop(p rows.Pair) { s.remove = append(s.remove, p) }

// canonical sorts pairs that were appended as they came; of equal keys the last
// holds.
func canonical(v rows.Value) rows.Value {
	slices.Reverse(v)
	slices.SortStableFunc(v, func(a, b rows.Pair) int { return a.Key.Compare(b.Key) })
	return slices.CompactFunc(v, func(a, b rows.Pair) bool { return a.Key == b.Key })
}

// insert makes the insert of a row, with our tags where the table can hold them.
func (e *encoder) insert(ref rows.Ref) step {
	in := e.inserts[ref]
	schema, _ := rows.SchemaOf(ref.Table)
	if schema.ExternalIDs {
		tag := map[string]string{engine.OwnerKey: in.owner, engine.IDKey: ref.ID}
		if ref.Table.DB() != rows.OVS {
			tag[engine.ZoneKey] = e.zone
		}
		in.values["external_ids"] = append(in.values["external_ids"], rows.Map(tag)...)
	}
	for name, v := range in.values {
		in.values[name] = canonical(slices.Clone(v))
	}
	op := operation{Op: "insert", Table: ref.Table.Name(), UUID: ref.UUID(), Row: columnsOf(schema, in.values)}
	return step{operation: op, groups: []string{in.group}}
}

// change makes the update and the mutate of a row that is there.
func (e *encoder) change(ref rows.Ref) []step {
	ch := e.changes[ref]
	schema, _ := rows.SchemaOf(ref.Table)
	where := everyRow()
	if ref.ID != rows.Singleton {
		where = rowWithUUID(uuidOf(ref))
	}
	var steps []step
	if len(ch.columns) > 0 {
		values := ch.columns
		op := operation{Op: "update", Table: ref.Table.Name(), Where: where, Row: columnsOf(schema, values)}
		steps = append(steps, step{operation: op, groups: ch.groups, count: true})
	}
	var ms []mutation
	for _, c := range schema.Columns {
		if s := ch.slots[c.Name]; s != nil {
			ms = append(ms, s.mutations(c)...)
		}
	}
	if len(ms) > 0 {
		op := operation{Op: "mutate", Table: ref.Table.Name(), Where: where, Mutations: ms}
		steps = append(steps, step{operation: op, groups: ch.groups, count: true})
	}
	return steps
}

// mutations removes and adds. A map's key must go before it comes, since an insert
// does not overwrite: the engine need not know that the key is there, where others
// have keys in the same map. A set that may not be empty must get its new elements
// before it loses the old, since the server checks after every mutation.
func (s *slots) mutations(c rows.ColumnSchema) []mutation {
	v := columnValue{schema: c, uuid: uuidOf}
	var remove, insert []mutation
	if c.Map {
		for _, p := range s.insert {
			s.drop(rows.Pair{Key: p.Key})
		}
	}
	s.remove, s.insert = canonical(s.remove), canonical(s.insert)
	if len(s.remove) > 0 {
		remove = []mutation{{c.Name, "delete", v.elements(s.remove)}}
	}
	switch {
	case len(s.insert) == 0:
	case c.Map:
		insert = []mutation{{c.Name, "insert", v.entries(s.insert)}}
	default:
		insert = []mutation{{c.Name, "insert", v.elements(s.insert)}}
	}
	if !c.Map && !c.Scalar && !c.Optional {
		return append(insert, remove...)
	}
	return append(remove, insert...)
}

func columnsOf(schema rows.TableSchema, values map[string]rows.Value) map[string]columnValue {
	out := make(map[string]columnValue, len(values))
	for name, v := range values {
		c, _ := schema.Column(name)
		out[name] = columnValue{schema: c, value: v, uuid: uuidOf}
	}
	return out
}

// uuidOf is the UUID of a row: derived, unless the ref carries one.
func uuidOf(ref rows.Ref) string {
	if id, ok := strings.CutPrefix(ref.ID, rawRef); ok {
		return id
	}
	return ref.UUID()
}
