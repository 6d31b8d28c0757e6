package engine_test

import (
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// toy compiles a switch per node and a port per pod: enough to exercise parents.
func toy() []engine.UnitKind {
	sw := func(n string) rows.Ref { return rows.Ref{Table: "NB:Logical_Switch", ID: n} }
	return []engine.UnitKind{
		{Name: "node", Spawn: map[intent.Kind]func(intent.Object) string{intent.KindNode: func(o intent.Object) string { return o.Key().Name }},
			Compile: func(_ *intent.View, key string) (out rows.Output) {
				out.Add(rows.New("NB:Logical_Switch", key, map[string]rows.Value{"name": rows.Str(key)}))
				return out
			}},
		{Name: "pod", Spawn: map[intent.Kind]func(intent.Object) string{intent.KindPod: func(o intent.Object) string { return o.Key().Name }},
			Compile: func(v *intent.View, key string) (out rows.Output) {
				p, _ := intent.Get[*intent.Pod](v, intent.Key{Kind: intent.KindPod, Name: key})
				out.Add(rows.Child("NB:Logical_Switch_Port", key, sw(p.Node), "ports", map[string]rows.Value{"name": rows.Str(key)}))
				return out
			}},
	}
}

func TestPortWaitsForItsSwitch(t *testing.T) {
	e := engine.New(engine.Config{Kinds: toy(), Databases: []rows.DB{rows.NB}, Strict: true})
	pod := &intent.Pod{Namespace: "a", Name: "b", Node: "n1"}
	r := e.Step([]engine.Event{{Put: pod}, {Synced: true}, {Snapshot: &engine.Snapshot{DB: rows.NB}}})
	if len(r.Txns) != 0 || len(e.Statuses()) != 1 {
		t.Fatalf("orphan written or not shown: %+v %v", r.Txns, e.Statuses())
	}
	r = e.Step([]engine.Event{{Put: &intent.Node{Name: "n1"}}})
	if len(r.Txns) != 1 || r.Txns[0].Len() != 2 {
		t.Fatalf("got %+v", r.Txns)
	}
	e.Step([]engine.Event{{Result: &engine.Result{DB: rows.NB, Txn: r.Txns[0].ID}}})
	if c, _ := e.Marks("pod/a/b"); !c {
		t.Fatal("not committed")
	}
	// The switch goes and comes back: the port is written again, though its unit did not change.
	k := intent.Key{Kind: intent.KindNode, Name: "n1"}
	r = e.Step([]engine.Event{{Delete: &k}})
	e.Step([]engine.Event{{Result: &engine.Result{DB: rows.NB, Txn: r.Txns[0].ID}}})
	r = e.Step([]engine.Event{{Put: &intent.Node{Name: "n1"}}})
	if len(r.Txns) != 1 || r.Txns[0].Len() != 2 {
		t.Fatalf("got %+v, statuses %v", r.Txns, e.Statuses())
	}
}
