package scripttest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// Check holds a shell at rest against everything that must be true of it.
func Check(sh *script.Shell) error {
	return errors.Join(anew(sh), held(sh), silent(sh))
}

// events puts a shell's whole intent.
func events(sh *script.Shell) []engine.Event {
	objects := sh.Objects()
	var evs []engine.Event
	for _, k := range slices.SortedFunc(maps.Keys(objects), intent.Key.Compare) {
		evs = append(evs, engine.Event{Put: objects[k]})
	}
	return evs
}

func names(sh *script.Shell) []rows.DB {
	var out []rows.DB
	for _, d := range sh.Databases() {
		out = append(out, d.Name())
	}
	return out
}

func fresh(sh *script.Shell) *engine.Engine {
	return engine.New(engine.Config{Kinds: sh.Kinds(), Databases: names(sh), Strict: true})
}

// anew compares what units want with what they want when all is compiled anew.
func anew(sh *script.Shell) error {
	e := fresh(sh)
	e.Step(append(events(sh), engine.Event{Synced: true}))
	for _, name := range names(sh) {
		want := rows.Format(e.Desired(name))
		got := rows.Format(sh.Engine().Desired(name))
		if d := diff(want, got); d != "" {
			return fmt.Errorf("%s: compiled anew (-) and step by step (+) differ:\n%s", name, d)
		}
	}
	if d := cmp.Diff(e.Problems(), sh.Engine().Problems()); d != "" {
		return fmt.Errorf("problems found anew (-) and step by step (+) differ:\n%s", d)
	}
	return nil
}

func diff(want, got string) string {
	if want == got {
		return ""
	}
	return cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n"))
}

// held compares the databases with what units want, and a fresh engine's view
// of them with no operation. Where a group waits only the second can be said.
func held(sh *script.Shell) error {
	waiting := map[rows.DB]bool{}
	for _, st := range sh.Engine().Statuses() {
		waiting[st.DB] = true
	}
	restarted := append(events(sh), engine.Event{Synced: true})
	for _, d := range sh.Databases() {
		snap, err := d.Snapshot()
		if err != nil {
			return err
		}
		restarted = append(restarted, engine.Event{Snapshot: &snap})
		if waiting[d.Name()] {
			continue
		}
		if err := same(sh.Engine(), snap); err != nil {
			return err
		}
	}
	if r := fresh(sh).Step(restarted); len(r.Txns) > 0 {
		return fmt.Errorf("a restart writes:\n%s", r.Txns[0])
	}
	return nil
}

// same compares one database with what units want of it.
func same(e *engine.Engine, snap engine.Snapshot) error {
	rs, es := e.Desired(snap.DB)
	want, shared := fold(rs, es)
	got := script.HeldRows(snap)
	if d := diff(rows.Format(want, nil), rows.Format(got, nil)); d != "" {
		return fmt.Errorf("%s: wanted (-) and held (+) differ:\n%s", snap.DB, d)
	}
	for _, a := range snap.Rows {
		if a.ID != rows.Singleton {
			continue
		}
		row := rows.Row{Columns: a.Columns}
		for _, ed := range shared {
			v, _ := row.Column(ed.Column)
			if value, ok := v.Get(ed.Key); !ok || value != ed.Value {
				return fmt.Errorf("%s is not there", rows.FormatEdge(ed))
			}
		}
	}
	return nil
}

// fold puts edges into their rows, as a database holds them; those of singletons
// come back apart. What rows use is not in a database.
func fold(rs []rows.Row, es []rows.Edge) (folded []rows.Row, shared []rows.Edge) {
	at := map[rows.Ref]map[string][]rows.Pair{}
	for _, e := range es {
		if e.Row.ID == rows.Singleton {
			shared = append(shared, e)
			continue
		}
		if at[e.Row] == nil {
			at[e.Row] = map[string][]rows.Pair{}
		}
		at[e.Row][e.Column] = append(at[e.Row][e.Column], rows.Pair{Key: e.Key, Value: e.Value})
	}
	for _, r := range rs {
		cols := map[string]rows.Value{}
		for _, c := range r.Columns {
			cols[c.Name] = slices.Clone(c.Value)
		}
		for name, pairs := range at[r.Ref] {
			for _, p := range pairs {
				if _, ok := cols[name].Get(p.Key); !ok {
					i, _ := slices.BinarySearchFunc(cols[name], p.Key, func(q rows.Pair, k rows.Atom) int { return q.Key.Compare(k) })
					cols[name] = slices.Insert(cols[name], i, p)
				}
			}
		}
		f := rows.New(r.Table, r.ID, cols)
		f.Parent = r.Parent
		folded = append(folded, f)
	}
	return folded, shared
}

// silent reports what simulated databases lost without a word, and names that
// are used and not there.
func silent(sh *script.Shell) error {
	for _, d := range sh.Databases() {
		s, ok := d.(Simulated)
		if !ok {
			continue
		}
		if len(s.Lost) > 0 {
			return fmt.Errorf("%s: written and silently lost: %v", d.Name(), s.Lost)
		}
		if names := s.Dangling(); len(names) > 0 {
			return fmt.Errorf("%s: %v", d.Name(), names)
		}
	}
	return nil
}

// Empty reports what is left of ours in databases after everything is deleted.
func Empty(sh *script.Shell) error {
	for _, d := range sh.Databases() {
		snap, err := d.Snapshot()
		if err != nil {
			return err
		}
		if left := script.HeldRows(snap); len(left) > 0 {
			return fmt.Errorf("%s: all is deleted, and this is left:\n%s", d.Name(), rows.Format(left, nil))
		}
	}
	return nil
}
