package engine_test

import (
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// An edge of a group that sorts before the group that writes the edge's row is
// committed with it, not written again.
func TestEdgeLandsWithItsRowInOneTransaction(t *testing.T) {
	kinds := toy()
	pg := rows.Ref{Table: "NB:Port_Group", ID: "all"}
	kinds[0].Compile = func(_ *intent.View, key string) (out rows.Output) {
		out.Add(rows.New("NB:Logical_Switch", key, map[string]rows.Value{"name": rows.Str(key)}))
		out.Add(rows.New(pg.Table, pg.ID, map[string]rows.Value{"name": rows.Str("all")}))
		return out
	}
	kinds[0].Group = func(key string) string { return "z/" + key }
	compile := kinds[1].Compile
	kinds[1].Compile = func(v *intent.View, key string) rows.Output {
		out := compile(v, key)
		out.Link(rows.Member(pg, "ports", rows.R(out.Rows[0].Ref)))
		return out
	}
	e := engine.New(engine.Config{Kinds: kinds, Databases: []rows.DB{rows.NB}, Strict: true})
	r := e.Step([]engine.Event{{Put: &intent.Pod{Namespace: "a", Name: "b", Node: "n1"}}, {Put: &intent.Node{Name: "n1"}}, {Synced: true},
		{Snapshot: &engine.Snapshot{DB: rows.NB}}})
	if len(r.Txns) != 1 {
		t.Fatalf("got %+v", r)
	}
	r = e.Step([]engine.Event{{Result: &engine.Result{DB: rows.NB, Txn: r.Txns[0].ID}}})
	if len(r.Txns) != 0 {
		t.Fatalf("written again: %+v", r.Txns)
	}
}

// A commit is installed when hv_cfg reaches its NbCfg, not before.
func TestInstalledWaitsForHvCfg(t *testing.T) {
	e := engine.New(engine.Config{Kinds: toy(), Databases: []rows.DB{rows.NB}, Strict: true})
	r := e.Step([]engine.Event{{Put: &intent.Node{Name: "n1"}}, {Synced: true}, {Snapshot: &engine.Snapshot{DB: rows.NB}}})
	e.Step([]engine.Event{{Result: &engine.Result{DB: rows.NB, Txn: r.Txns[0].ID}}})
	if c, i := e.Marks("node/n1"); !c || i {
		t.Fatalf("committed %v, installed %v; wanted committed only", c, i)
	}
	e.Step([]engine.Event{{Installed: r.Txns[0].NbCfg}})
	if c, i := e.Marks("node/n1"); !c || !i {
		t.Fatalf("committed %v, installed %v; wanted both", c, i)
	}
}
