package engine_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

// atRest holds the database against the model. What is not of a waiting group is
// there exactly, nothing is there that nobody says, and no group waits in vain.
func atRest(sh *script.Shell, db *watched) error {
	waiting := map[string]string{}
	for _, st := range sh.Engine().Statuses() {
		waiting[st.Group] = st.String()
	}
	rs, es := sh.Engine().Desired(rows.NB)
	if len(waiting) == 0 {
		return scripttest.Check(sh)
	}
	snap := db.DB.Snapshot()
	held := map[rows.Ref]engine.ActualRow{}
	for _, a := range snap.Rows {
		held[a.Ref] = a
	}
	for _, r := range rs {
		u, _ := sh.Engine().Owner(r.Ref)
		a, ok := held[r.Ref]
		if waiting[groupOf(u)] == "" && (!ok || a.Parent != r.Parent || !subset(r.Columns, a.Columns)) {
			return fmt.Errorf("%sis wanted, nothing waits, and it is there as %+v", rows.FormatRow(r), a)
		}
	}
	wanted := map[rows.Ref]bool{}
	for _, r := range rs {
		wanted[r.Ref] = true
	}
	for ref, a := range held {
		if ref.ID != rows.Singleton && !wanted[ref] && waiting[groupOf(unitOf(a.Owner))] == "" {
			return fmt.Errorf("%v of %s is there and wanted by nobody; waiting: %v", ref, a.Owner, waiting)
		}
	}
	if err := inVain(sh, db, rs, es, waiting); err != nil {
		return err
	}
	return nil
}

func groupOf(u engine.Unit) string {
	if _, group, ok := strings.Cut(u.Key, "@"); ok {
		return group
	}
	return u.String()
}

func unitOf(text string) engine.Unit {
	kind, key, _ := strings.Cut(text, "/")
	return engine.Unit{Kind: kind, Key: key}
}

func subset(want, have []rows.Column) bool {
	for _, c := range want {
		v, _ := rows.Row{Columns: have}.Column(c.Name)
		for _, p := range c.Value {
			if !slices.Contains(v, p) {
				return false
			}
		}
	}
	return true
}

// inVain tries to write what waits, group by group and all at once, on a copy of
// the database; a group that can be written waits in vain. The naive write
// inserts what is missing, replaces what differs, and deletes what is too much.
func inVain(sh *script.Shell, db *watched, rs []rows.Row, es []rows.Edge, waiting map[string]string) error {
	sets := []map[string]string{waiting}
	for g, why := range waiting {
		sets = append(sets, map[string]string{g: why})
	}
	for _, set := range sets {
		copied := db.Clone()
		if naive(sh, copied, rs, es, set) {
			return fmt.Errorf("these wait, and can be written: %v", set)
		}
	}
	return nil
}

func naive(sh *script.Shell, db *enginetest.DB, rs []rows.Row, es []rows.Edge, set map[string]string) bool {
	held := map[rows.Ref]engine.ActualRow{}
	for _, a := range db.Snapshot().Rows {
		held[a.Ref] = a
	}
	ours := func(u engine.Unit) bool { return set[groupOf(u)] != "" }
	var ops []engine.Op
	wanted, named := map[rows.Ref]bool{}, map[rows.Name]bool{}
	for _, r := range rs {
		wanted[r.Ref] = true
		n, ok := r.Provides()
		u, _ := sh.Engine().Owner(r.Ref)
		before, _ := rows.Row{Ref: r.Ref, Columns: held[r.Ref].Columns}.Provides()
		if ok && (before == n || ours(u)) {
			named[n] = true // held by whom it is to stay with, or to be taken over here
		}
	}
	for _, r := range rs {
		u, _ := sh.Engine().Owner(r.Ref)
		if !ours(u) {
			continue
		}
		for _, n := range r.Uses {
			if !named[n] {
				return false // what provides it now is to go
			}
		}
		for _, target := range targets(r) {
			if !wanted[target] {
				return false
			}
		}
		a, ok := held[r.Ref]
		if !ok {
			ops = append(ops, engine.Op{Kind: engine.Insert, Row: r, Owner: u.String()})
			continue
		}
		ops = append(ops, replace(a, r)...)
	}
	for _, e := range es {
		for name := range set {
			if slices.Contains(sh.Engine().Sayers(e), name) {
				for _, target := range []rows.Ref{e.Row, e.Key.Ref} {
					if !target.IsZero() && target.ID != rows.Singleton && !wanted[target] {
						return false
					}
				}
				ops = append(ops, engine.Op{Kind: engine.Add, Edge: e})
			}
		}
	}
	for ref, a := range held {
		if ref.ID != rows.Singleton && !wanted[ref] && ours(unitOf(a.Owner)) {
			ops = append(ops, engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: ref, Parent: a.Parent}})
		}
	}
	res := db.Apply(engine.Txn{DB: rows.NB, Groups: []engine.GroupOps{{Group: "naive", Ops: ops}}})
	return len(res.Failed) == 0 && len(db.Lost) == 0 && len(db.Dangling()) == 0
}

// replace makes a held row the wanted one.
func replace(a engine.ActualRow, r rows.Row) []engine.Op {
	update := engine.Op{Kind: engine.Update, Row: r}
	if a.Parent == r.Parent {
		return []engine.Op{update}
	}
	return []engine.Op{
		{Kind: engine.Remove, Edge: rows.Member(a.Parent.Row, a.Parent.Column, rows.R(r.Ref))},
		{Kind: engine.Add, Edge: rows.Member(r.Parent.Row, r.Parent.Column, rows.R(r.Ref))},
		update,
	}
}

func targets(r rows.Row) []rows.Ref {
	var out []rows.Ref
	if !r.Parent.Row.IsZero() {
		out = append(out, r.Parent.Row)
	}
	for _, c := range r.Columns {
		for _, p := range c.Value {
			if p.Key.Kind == rows.Reference {
				out = append(out, p.Key.Ref)
			}
		}
	}
	return out
}
