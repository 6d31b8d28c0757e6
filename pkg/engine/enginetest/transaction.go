package enginetest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// transaction is a copy on write of a database's rows. A nil row is deleted.
type transaction struct {
	db       *DB
	rows     map[string]*row
	inserted []inserted
	foreign  map[rows.Ref]string // refs that stand for rows of others; nil: all are ours
}

// chosen lists columns whose value must be one of a few, of which "" is none.
var chosen = map[rows.Table][]string{
	"NB:ACL": {"action", "direction"}, "NB:NAT": {"type"}, "NB:Meter": {"unit"}, "NB:Meter_Band": {"action"},
	"NB:Logical_Router_Policy": {"action"},
}

// inserted is something written that must still be there after the commit.
type inserted struct {
	uuid   string // of the row, or of the holder of a reference
	column string // of a reference
	target string // of a reference; "": the row itself
	text   string
}

func (tx *transaction) at(id string) *row {
	if r, ok := tx.rows[id]; ok {
		return r
	}
	return tx.db.rows[id]
}

// writable returns a row that may be written to.
func (tx *transaction) writable(id string) *row {
	if r := tx.rows[id]; r != nil {
		return r
	}
	r := tx.db.rows[id].clone()
	tx.rows[id] = r
	return r
}

// uuidOf is where a ref lives: the singleton, a foreign row, a row that the
// snapshot could only name by its UUID ("?UUID"), or a derived UUID.
func (tx *transaction) uuidOf(ref rows.Ref) string {
	if ref.ID == rows.Singleton && ref.Table == singletons[tx.db.name] {
		return tx.db.root
	}
	if id, ok := strings.CutPrefix(ref.ID, rawRef); ok {
		return id
	}
	if id, ok := tx.foreign[ref]; ok {
		return id
	}
	if id := foreignUUID(ref); tx.foreign != nil && tx.at(id) != nil {
		return id
	}
	return ref.UUID()
}

func (tx *transaction) atom(a rows.Atom) rows.Atom {
	if a.Kind == rows.Reference {
		a.Ref.ID = tx.uuidOf(a.Ref)
	}
	return a
}

func (tx *transaction) value(v rows.Value) rows.Value {
	out := make(rows.Value, len(v))
	for i, p := range v {
		out[i] = rows.Pair{Key: tx.atom(p.Key), Value: tx.atom(p.Value)}
	}
	return sorted(out)
}

// change does everything but insert and delete rows; false: it met no row.
func (tx *transaction) change(op engine.Op) (bool, error) {
	switch op.Kind {
	case engine.Insert:
		if p := op.Row.Parent; !p.Row.IsZero() {
			return tx.mutate(rows.Member(p.Row, p.Column, rows.R(op.Row.Ref)), true)
		}
	case engine.Update:
		return tx.update(op.Row)
	case engine.Add:
		return tx.mutate(op.Edge, true)
	case engine.Remove:
		return tx.mutate(op.Edge, false)
	}
	return true, nil
}

func (tx *transaction) insert(op engine.Op) (bool, error) {
	if op.Kind != engine.Insert {
		return true, nil
	}
	r := op.Row
	schema, ok := rows.SchemaOf(r.Table)
	if !ok {
		return false, fmt.Errorf("no table %s", r.Table)
	}
	id := tx.uuidOf(r.Ref)
	if _, touched := tx.rows[id]; touched || tx.db.rows[id] != nil {
		return false, errors.New("the UUID is there already, or deleted in this transaction")
	}
	made := &row{table: r.Table, uuid: id, cols: map[string]rows.Value{}}
	for _, c := range r.Columns {
		if err := check(schema, c.Name, c.Value); err != nil {
			return false, err
		}
		made.cols[c.Name] = tx.value(c.Value)
		tx.expect(made, c.Name, c.Value)
	}
	if tx.foreign == nil && schema.ExternalIDs {
		tags := rows.Map(map[string]string{engine.OwnerKey: op.Owner, engine.IDKey: r.ID})
		made.cols["external_ids"] = sorted(append(tags, made.cols["external_ids"]...))
	}
	for _, name := range chosen[r.Table] {
		if len(made.cols[name]) == 0 {
			return false, fmt.Errorf("constraint violation: %q is not one of the allowed values of %s", "", name)
		}
	}
	tx.rows[id] = made
	tx.inserted = append(tx.inserted, inserted{uuid: id, text: rows.FormatRef(r.Ref)})
	return true, nil
}

// expect notes the references of a column, which must not be dropped.
func (tx *transaction) expect(holder *row, column string, v rows.Value) {
	for _, p := range v {
		for _, a := range []rows.Atom{p.Key, p.Value} {
			if a.Kind == rows.Reference {
				text := fmt.Sprintf("%s %s.%s -> %v", holder.table, holder.uuid, column, a.Ref)
				tx.inserted = append(tx.inserted, inserted{holder.uuid, column, tx.uuidOf(a.Ref), text})
			}
		}
	}
}

func (tx *transaction) update(r rows.Row) (bool, error) {
	schema, _ := rows.SchemaOf(r.Table)
	id := tx.uuidOf(r.Ref)
	if tx.at(id) == nil {
		return false, nil
	}
	for _, c := range r.Columns {
		col, _ := schema.Column(c.Name)
		if col.Immutable {
			return false, fmt.Errorf("column %s cannot change", c.Name)
		}
		if err := check(schema, c.Name, c.Value); err != nil {
			return false, err
		}
		changed := tx.writable(id)
		changed.cols[c.Name] = tx.value(c.Value)
		tx.expect(changed, c.Name, c.Value)
	}
	return true, nil
}

// mutate inserts or deletes an element. As in ovsdb-server a key that is there
// keeps its value, and what is not there is deleted without a word.
func (tx *transaction) mutate(e rows.Edge, add bool) (bool, error) {
	schema, _ := rows.SchemaOf(e.Row.Table)
	p := rows.Pair{Key: e.Key, Value: e.Value}
	if err := check(schema, e.Column, rows.Value{p}); err != nil {
		return false, err
	}
	id := tx.uuidOf(e.Row)
	if tx.at(id) == nil {
		return false, nil
	}
	r := tx.writable(id)
	p.Key, p.Value = tx.atom(p.Key), tx.atom(p.Value)
	old := r.cols[e.Column]
	i := slices.IndexFunc(old, func(q rows.Pair) bool { return q.Key == p.Key })
	switch {
	case add && i < 0:
		r.cols[e.Column] = sorted(append(slices.Clone(old), p))
		tx.expect(r, e.Column, rows.Value{{Key: e.Key, Value: e.Value}})
	case !add && i >= 0 && old[i].Value == p.Value:
		r.cols[e.Column] = slices.Delete(slices.Clone(old), i, i+1)
	}
	col, _ := schema.Column(e.Column)
	if col.Scalar && len(r.cols[e.Column]) > 1 {
		return false, fmt.Errorf("column %s: more than one element", e.Column)
	}
	return true, nil
}

// remove ends a row: one of a root table is deleted, of another is let go by its
// parent, which may have ended before it.
func (tx *transaction) remove(op engine.Op) (bool, error) {
	if op.Kind != engine.Delete {
		return true, nil
	}
	id := tx.uuidOf(op.Row.Ref)
	if op.UUID != "" {
		id = op.UUID
	}
	if parent := op.Row.Parent; !parent.Row.IsZero() {
		if r, touched := tx.rows[tx.uuidOf(parent.Row)]; touched && r == nil {
			return true, nil
		}
		self := rows.R(rows.Ref{Table: op.Row.Table, ID: rawRef + id})
		return tx.mutate(rows.Member(parent.Row, parent.Column, self), false)
	}
	if tx.at(id) == nil {
		return false, nil
	}
	tx.rows[id] = nil
	return true, nil
}

func check(schema rows.TableSchema, column string, v rows.Value) error {
	col, ok := schema.Column(column)
	if !ok {
		return fmt.Errorf("no column %s", column)
	}
	if err := col.Fits(v); err != nil {
		return fmt.Errorf("column %s: %w", column, err)
	}
	return nil
}

// close does what a server does before a commit, and gives all rows after it
// with what has been lost on the way.
func (tx *transaction) close() (map[string]*row, []string, error) {
	after := maps.Clone(tx.db.rows)
	for id, r := range tx.rows {
		if r == nil {
			delete(after, id)
		} else {
			after[id] = r
		}
	}
	if err := refer(after); err != nil {
		return nil, nil, err
	}
	collect(after)
	forget(after)
	if err := cmp.Or(full(after), distinct(after)); err != nil {
		return nil, nil, err
	}
	var lost []string
	for _, in := range tx.inserted {
		r := after[in.uuid]
		if in.target == "" && r == nil {
			lost = append(lost, in.text)
		}
		if in.target != "" && tx.at(in.uuid) != nil && r != nil && holds(tx.at(in.uuid).cols[in.column], in.target) && after[in.target] == nil {
			lost = append(lost, in.text)
		}
	}
	return after, lost, nil
}
