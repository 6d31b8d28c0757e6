package engine

import (
	"strings"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// index answers questions about committed rows: who hangs under a row, who
// points at it, who uses and who provides a name, who holds a unique value.
type index struct {
	children map[rows.Ref]map[rows.Ref]struct{}  // parent -> rows that live by it
	pointers map[rows.Ref]map[rows.Ref]bool      // target -> holders; true: a strong reference
	edgesOn  map[rows.Ref]map[rows.Edge]struct{} // row -> committed slots in its columns
	edgesTo  map[rows.Ref]map[rows.Edge]struct{} // target -> committed slots that refer to it
	names    map[rows.Name]rows.Ref
	users    map[rows.Name]map[rows.Ref]struct{}
	unique   map[string]rows.Ref
}

func newIndex() index {
	return index{
		children: map[rows.Ref]map[rows.Ref]struct{}{}, pointers: map[rows.Ref]map[rows.Ref]bool{},
		edgesOn: map[rows.Ref]map[rows.Edge]struct{}{}, edgesTo: map[rows.Ref]map[rows.Edge]struct{}{},
		names: map[rows.Name]rows.Ref{}, users: map[rows.Name]map[rows.Ref]struct{}{}, unique: map[string]rows.Ref{},
	}
}

func (x *index) addRow(r *rows.Row) {
	if !r.Parent.Row.IsZero() {
		put(x.children, r.Parent.Row, r.Ref)
	}
	eachReference(r, func(target rows.Ref, strong bool) {
		if x.pointers[target] == nil {
			x.pointers[target] = map[rows.Ref]bool{}
		}
		x.pointers[target][r.Ref] = x.pointers[target][r.Ref] || strong
	})
	if n, ok := r.Provides(); ok {
		x.names[n] = r.Ref
	}
	for _, n := range r.Uses {
		put(x.users, n, r.Ref)
	}
	for _, k := range uniqueKeys(r) {
		x.unique[k] = r.Ref
	}
}

func (x *index) dropRow(r *rows.Row) {
	if !r.Parent.Row.IsZero() {
		drop(x.children, r.Parent.Row, r.Ref)
	}
	eachReference(r, func(target rows.Ref, _ bool) {
		delete(x.pointers[target], r.Ref)
		if len(x.pointers[target]) == 0 {
			delete(x.pointers, target)
		}
	})
	if n, ok := r.Provides(); ok && x.names[n] == r.Ref {
		delete(x.names, n)
	}
	for _, n := range r.Uses {
		drop(x.users, n, r.Ref)
	}
	for _, k := range uniqueKeys(r) {
		if x.unique[k] == r.Ref {
			delete(x.unique, k)
		}
	}
}

func (x *index) addEdge(slot rows.Edge) {
	put(x.edgesOn, slot.Row, slot)
	if slot.Key.Kind == rows.Reference {
		put(x.edgesTo, slot.Key.Ref, slot)
	}
}

func (x *index) dropEdge(slot rows.Edge) {
	drop(x.edgesOn, slot.Row, slot)
	if slot.Key.Kind == rows.Reference {
		drop(x.edgesTo, slot.Key.Ref, slot)
	}
}

// eachReference calls fn for every row that r's columns point at.
func eachReference(r *rows.Row, fn func(target rows.Ref, strong bool)) {
	schema, _ := rows.SchemaOf(r.Table)
	for _, c := range r.Columns {
		col, _ := schema.Column(c.Name)
		if col.Key != rows.Reference && col.Value != rows.Reference {
			continue
		}
		for _, p := range c.Value {
			if p.Key.Kind == rows.Reference {
				fn(p.Key.Ref, col.Strong)
			}
			if p.Value.Kind == rows.Reference {
				fn(p.Value.Ref, col.ValueStrong)
			}
		}
	}
}

// uniqueKeys lists the row's values in its table's unique indexes.
func uniqueKeys(r *rows.Row) []string {
	schema, _ := rows.SchemaOf(r.Table)
	var keys []string
	for _, ix := range schema.Indexes {
		parts := make([]string, 0, len(ix)+1)
		parts = append(parts, string(r.Table))
		for _, name := range ix {
			v, _ := r.Column(name)
			text := ""
			for _, p := range v {
				text += p.Key.String()
			}
			parts = append(parts, text)
		}
		keys = append(keys, strings.Join(parts, "/"))
	}
	return keys
}

func put[K, E comparable](m map[K]map[E]struct{}, k K, e E) {
	if m[k] == nil {
		m[k] = make(map[E]struct{}, 1)
	}
	m[k][e] = struct{}{}
}

func drop[K, E comparable](m map[K]map[E]struct{}, k K, e E) {
	delete(m[k], e)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
