package enginetest

import (
	"fmt"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// each calls fn for every reference in a row.
func (r *row) each(fn func(column string, target rows.Ref, strong bool)) {
	schema, _ := rows.SchemaOf(r.table)
	for _, col := range schema.Columns {
		if col.Key != rows.Reference && col.Value != rows.Reference {
			continue
		}
		for _, p := range r.cols[col.Name] {
			if p.Key.Kind == rows.Reference {
				fn(col.Name, p.Key.Ref, col.Strong)
			}
			if p.Value.Kind == rows.Reference {
				fn(col.Name, p.Value.Ref, col.ValueStrong)
			}
		}
	}
}

// refer refuses strong references to rows that are not there: a deletion under
// a holder, or a holder of nothing.
func refer(all map[string]*row) error {
	var worst error
	for _, r := range all {
		r.each(func(column string, target rows.Ref, strong bool) {
			if strong && all[target.ID] == nil {
				err := fmt.Errorf("referential integrity violation: %s %s.%s refers to %s %s, which is not there",
					r.table, r.uuid, column, target.Table, target.ID)
				if worst == nil || err.Error() < worst.Error() {
					worst = err
				}
			}
		})
	}
	return worst
}

// collect drops rows of non-root tables that no row refers to strongly.
func collect(all map[string]*row) {
	for {
		alive := map[string]bool{}
		for _, r := range all {
			r.each(func(_ string, target rows.Ref, strong bool) {
				if strong && target.ID != r.uuid {
					alive[target.ID] = true
				}
			})
		}
		dropped := false
		for id, r := range all {
			if schema, _ := rows.SchemaOf(r.table); !schema.Root && !alive[id] {
				delete(all, id)
				dropped = true
			}
		}
		if !dropped {
			return
		}
	}
}

// forget drops weak references to rows that are not there.
func forget(all map[string]*row) {
	for id, r := range all {
		changed := map[string]bool{}
		r.each(func(column string, target rows.Ref, _ bool) {
			if all[target.ID] == nil {
				changed[column] = true
			}
		})
		if len(changed) == 0 {
			continue
		}
		r = r.clone()
		for column := range changed {
			r.cols[column] = slices.DeleteFunc(slices.Clone(r.cols[column]), func(p rows.Pair) bool {
				return p.Key.Kind == rows.Reference && all[p.Key.Ref.ID] == nil ||
					p.Value.Kind == rows.Reference && all[p.Value.Ref.ID] == nil
			})
		}
		all[id] = r
	}
}

// full refuses a set of references that may not be empty and is.
func full(all map[string]*row) error {
	for id, r := range all {
		schema, _ := rows.SchemaOf(r.table)
		for _, col := range schema.Columns {
			if !col.Optional && !col.Map && col.Key == rows.Reference && len(r.cols[col.Name]) == 0 {
				return fmt.Errorf("constraint violation: %s %s.%s is empty, and must not be", r.table, id, col.Name)
			}
		}
	}
	return nil
}

// distinct refuses two rows with one value of a unique index.
func distinct(all map[string]*row) error {
	taken := map[string]string{}
	for id, r := range all {
		for _, key := range r.unique() {
			if other, ok := taken[key]; ok {
				return fmt.Errorf("constraint violation: rows %s and %s have both %s", min(id, other), max(id, other), key)
			}
			taken[key] = id
		}
	}
	return nil
}

// unique lists a row's values in its table's indexes.
func (r *row) unique() []string {
	schema, _ := rows.SchemaOf(r.table)
	keys := make([]string, 0, len(schema.Indexes))
	for _, ix := range schema.Indexes {
		key := string(r.table)
		for _, name := range ix {
			key += "/"
			for _, p := range r.cols[name] {
				key += p.Key.String()
			}
		}
		keys = append(keys, key)
	}
	return keys
}

func holds(v rows.Value, target string) bool {
	return slices.ContainsFunc(v, func(p rows.Pair) bool { return p.Key.Ref.ID == target || p.Value.Ref.ID == target })
}

func sorted(v rows.Value) rows.Value {
	slices.SortFunc(v, func(a, b rows.Pair) int { return a.Key.Compare(b.Key) })
	return v
}
