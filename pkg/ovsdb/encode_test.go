package ovsdb

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// text is the operations of a transaction, one a line, with UUIDs of the given
// refs replaced by them.
func text(t *testing.T, steps []step, known ...rows.Ref) string {
	t.Helper()
	var b strings.Builder
	for _, s := range steps {
		line, err := json.Marshal(s.operation)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	out := b.String()
	for _, ref := range known {
		out = strings.ReplaceAll(out, `["uuid","`+ref.UUID()+`"]`, ref.ID)
		out = strings.ReplaceAll(out, ref.UUID(), ref.ID)
	}
	return out
}

func golden(t *testing.T, got string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n")+"\n", got); diff != "" {
		t.Fatal(diff)
	}
}

// TestOnePodIsThreeOperations is the cost of a pod: one row, one element, the
// configuration number; and the lock's assertion where there is one.
func TestOnePodIsThreeOperations(t *testing.T) {
	p, sw := portRef("web"), switchRef("n1")
	golden(t, text(t, encode([]engine.GroupOps{portGroup("web", "n1")}, "z", LockName, 5), p, sw),
		`{"op":"assert","lock":"portolan"}`,
		`{"op":"insert","table":"Logical_Switch_Port","uuid":"web","row":{"addresses":["set",["0a:58:0a:f4:01:05 10.244.1.5"]],"external_ids":["map",[["portolan/id","web"],["portolan/owner","pod/web"],["portolan/zone","z"]]],"name":"web","options":["map",[["requested-chassis","node1"]]]}}`,
		`{"op":"mutate","table":"Logical_Switch","where":[["_uuid","==",n1]],"mutations":[["ports","insert",["set",[web]]]]}`,
		`{"op":"update","table":"NB_Global","where":[],"row":{"nb_cfg":5}}`,
	)
}

func TestChangesOfOneRowAreOneMutate(t *testing.T) {
	sw := switchRef("n1")
	groups := []engine.GroupOps{portGroup("a", "n1"), portGroup("b", "n1")}
	for i := range groups {
		groups[i].Ops[0].Row.Columns = nil
	}
	groups = append(groups,
		group("n1", edge(engine.Add, rows.Entry(sw, "other_config", "k", "new")), edge(engine.Remove, rows.Entry(sw, "other_config", "k", "old"))),
		group("c", engine.Op{Kind: engine.Delete, Row: portRow("c", "n1")}))
	golden(t, text(t, encode(groups, "z", "", 0)[2:], sw, portRef("a"), portRef("b"), portRef("c")),
		`{"op":"mutate","table":"Logical_Switch","where":[["_uuid","==",n1]],"mutations":[["other_config","delete",["set",["k"]]],["other_config","insert",["map",[["k","new"]]]],["ports","delete",["set",[c]]],["ports","insert",["set",[a,b]]]]}`,
	)
}

func TestChangesOfANewRowAreInItsInsert(t *testing.T) {
	sw, pg := switchRef("n1"), groupRef("g")
	steps := encode([]engine.GroupOps{
		portGroup("a", "n1"),
		switchGroup("n1", "n1"),
		group("g", insert("g", rows.New(pg.Table, "g", map[string]rows.Value{"name": rows.Str("g")}))),
		group("x", edge(engine.Add, rows.Member(pg, "ports", rows.R(portRef("a")))), edge(engine.Add, rows.Entry(sw, "other_config", "k", "v"))),
	}, "z", "", 0)
	for i := range steps {
		delete(steps[i].Row, "external_ids")
	}
	golden(t, text(t, steps[1:], sw, pg, portRef("a")),
		`{"op":"insert","table":"Logical_Switch","uuid":"n1","row":{"name":"n1","other_config":["map",[["k","v"]]],"ports":["set",[a]]}}`,
		`{"op":"insert","table":"Port_Group","uuid":"g","row":{"name":"g","ports":["set",[a]]}}`,
	)
}

func TestDeletions(t *testing.T) {
	sw := switchRef("n1")
	golden(t, text(t, encode([]engine.GroupOps{
		group("a", engine.Op{Kind: engine.Delete, Row: portRow("a", "n1")}),
		group("n1", engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: sw}}),
		group("b", engine.Op{Kind: engine.Delete, Row: portRow("b", "n2"), UUID: "11111111-2222-4333-8444-555555555555"}),
	}, "z", "", 0), sw, switchRef("n2")),
		`{"op":"mutate","table":"Logical_Switch","where":[["_uuid","==",n2]],"mutations":[["ports","delete",["set",[["uuid","11111111-2222-4333-8444-555555555555"]]]]]}`,
		`{"op":"delete","table":"Logical_Switch","where":[["_uuid","==",n1]]}`,
	)
}

func TestRowsOfOthersByUUID(t *testing.T) {
	const id = "11111111-2222-4333-8444-555555555555"
	theirs := rows.Ref{Table: "NB:Logical_Switch_Port", ID: rawRef + id}
	golden(t, text(t, encode([]engine.GroupOps{
		group("a", edge(engine.Remove, rows.Member(groupRef("g"), "ports", rows.R(theirs)))),
	}, "z", "", 0), groupRef("g")),
		`{"op":"mutate","table":"Port_Group","where":[["_uuid","==",g]],"mutations":[["ports","delete",["set",[["uuid","`+id+`"]]]]]}`,
	)
}
