package ovsdb

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func switchRef(name string) rows.Ref { return rows.Ref{Table: "NB:Logical_Switch", ID: name} }
func portRef(name string) rows.Ref   { return rows.Ref{Table: "NB:Logical_Switch_Port", ID: name} }
func groupRef(name string) rows.Ref  { return rows.Ref{Table: "NB:Port_Group", ID: name} }

func switchRow(name string) rows.Row {
	return rows.New("NB:Logical_Switch", name, map[string]rows.Value{"name": rows.Str(name)})
}

func portRow(name, on string) rows.Row {
	return rows.Child("NB:Logical_Switch_Port", name, switchRef(on), "ports", map[string]rows.Value{
		"name": rows.Str(name), "addresses": rows.Strings("0a:58:0a:f4:01:05 10.244.1.5"),
		"options": rows.Map(map[string]string{"requested-chassis": "node1"}),
	})
}

func insert(owner string, r rows.Row) engine.Op {
	return engine.Op{Kind: engine.Insert, Owner: owner, Row: r}
}

func group(name string, ops ...engine.Op) engine.GroupOps {
	return engine.GroupOps{Group: name, Ops: ops}
}

func switchGroup(name, sw string) engine.GroupOps {
	return group(name, insert("node/"+name, switchRow(sw)))
}

func portGroup(pod, on string) engine.GroupOps {
	return group("pod/"+pod, insert("pod/"+pod, portRow(pod, on)))
}

func edge(kind engine.OpKind, e rows.Edge) engine.Op { return engine.Op{Kind: kind, Edge: e} }

func txnOf(groups ...engine.GroupOps) engine.Txn {
	return engine.Txn{DB: rows.NB, ID: 1, Groups: groups}
}

func mustCommit(t *testing.T, c *Conn, groups ...engine.GroupOps) {
	t.Helper()
	txn := txnOf(groups...)
	txn.DB = c.DB()
	res := c.Apply(testContext(t), txn)
	if res.Lost || len(res.Failed) > 0 {
		t.Fatalf("not committed: %+v", res)
	}
}

func refs(s engine.Snapshot) []string {
	var out []string
	for _, r := range s.Rows {
		out = append(out, r.Ref.String())
	}
	slices.Sort(out)
	return out
}

// nbPair is a fresh database and a connection to it.
func nbPair(t *testing.T) (*ovsdbtest.Server, *Conn) {
	t.Helper()
	s := nbServer(t)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint})
	return s, c
}

// raw sends operations as they are and returns the results.
func raw(t *testing.T, c *Conn, ops ...string) []result {
	t.Helper()
	r, _, err := c.session(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	params := []any{databaseName(c.DB())}
	for _, op := range ops {
		params = append(params, json.RawMessage(op))
	}
	var res []result
	if err := r.call(testContext(t), "transact", params, &res); err != nil {
		t.Fatal(err)
	}
	return res
}

// TestServerLosesSilently holds the facts behind decision 1: each of these is a
// success to the server. If one fails some day, decision 1 can be relaxed.
func TestServerLosesSilently(t *testing.T) {
	_, c := nbPair(t)
	const ghost = "11111111-2222-5333-8444-555555555555"
	t.Run("orphan child", func(t *testing.T) {
		res := raw(t, c, `{"op":"insert","table":"Logical_Switch_Port","row":{"name":"orphan"}}`)
		if e := errorOf(res); e != "" {
			t.Fatal(e)
		}
		res = raw(t, c, `{"op":"select","table":"Logical_Switch_Port","where":[["name","==","orphan"]]}`)
		if len(res[0].Rows) != 0 {
			t.Fatal("the orphan is there")
		}
	})
	t.Run("weak reference to nothing", func(t *testing.T) {
		res := raw(t, c, `{"op":"insert","table":"Port_Group","row":{"name":"pg","ports":["uuid","`+ghost+`"]}}`)
		if e := errorOf(res); e != "" {
			t.Fatal(e)
		}
		res = raw(t, c, `{"op":"select","table":"Port_Group","where":[],"columns":["ports"]}`)
		if got := string(res[0].Rows[0]["ports"]); got != `["set",[]]` {
			t.Fatalf("ports is %s", got)
		}
	})
	t.Run("mutate of nothing", func(t *testing.T) {
		res := raw(t, c, `{"op":"mutate","table":"Logical_Switch","where":[["_uuid","==",["uuid","`+ghost+`"]]],"mutations":[["other_config","insert",["map",[["a","b"]]]]]}`)
		if e := errorOf(res); e != "" || res[0].Count != 0 {
			t.Fatalf("error %q, count %d", e, res[0].Count)
		}
	})
	t.Run("map insert does not overwrite", func(t *testing.T) {
		raw(t, c, `{"op":"update","table":"NB_Global","where":[],"row":{"options":["map",[["k","old"]]]}}`)
		raw(t, c, `{"op":"mutate","table":"NB_Global","where":[],"mutations":[["options","insert",["map",[["k","new"]]]]]}`)
		res := raw(t, c, `{"op":"select","table":"NB_Global","where":[],"columns":["options"]}`)
		if got := string(res[0].Rows[0]["options"]); got != `["map",[["k","old"]]]` {
			t.Fatalf("options is %s", got)
		}
	})
	t.Run("one uuid deleted and inserted", func(t *testing.T) {
		ins := `{"op":"insert","table":"Logical_Switch","uuid":"` + ghost + `","row":{"name":"x"}}`
		raw(t, c, ins)
		res := raw(t, c, `{"op":"delete","table":"Logical_Switch","where":[["_uuid","==",["uuid","`+ghost+`"]]]}`, ins)
		if errorOf(res) == "" {
			t.Fatal("accepted: a replaced row need not keep its uuid any more")
		}
	})
}

func TestInsertCarriesDerivedUUIDAndTags(t *testing.T) {
	s, c := nbPair(t)
	mustCommit(t, c, switchGroup("n1", "n1"), portGroup("web", "n1"))
	want := portRef("web").UUID()
	if out := s.Dump("OVN_Northbound", "Logical_Switch_Port", "_uuid"); !strings.Contains(out, want) {
		t.Fatalf("found %s, wanted %s", out, want)
	}
	snap := snapshot(t, c)
	i := slices.IndexFunc(snap.Rows, func(r engine.ActualRow) bool { return r.Ref == portRef("web") })
	row := portRow("web", "n1")
	if diff := cmp.Diff(engine.ActualRow{
		Ref: row.Ref, Owner: "pod/web", UUID: want, Parent: row.Parent, Columns: row.Columns,
	}, snap.Rows[i]); diff != "" {
		t.Fatal(diff)
	}
	out := s.Dump("OVN_Northbound", "Logical_Switch_Port", "external_ids")
	for _, tag := range []string{`""portolan/id""=web`, `""portolan/owner""=""pod/web""`, `""portolan/zone""=z1`} {
		if !strings.Contains(out, tag) {
			t.Errorf("external_ids %s lacks %s", out, tag)
		}
	}
}

func TestMutateOfAMissingRowIsVanished(t *testing.T) {
	_, c := nbPair(t)
	res := c.Apply(testContext(t), txnOf(
		switchGroup("a", "s1"),
		group("b", edge(engine.Add, rows.Entry(switchRef("ghost"), "other_config", "k", "v"))),
		portGroup("lost", "ghost"),
	))
	if len(res.Failed) != 2 || res.Failed["b"].Class != engine.Vanished || res.Failed["pod/lost"].Class != engine.Vanished {
		t.Fatalf("found %+v, wanted b and pod/lost vanished", res)
	}
	res = c.Apply(testContext(t), txnOf(group("c",
		engine.Op{Kind: engine.Update, Row: rows.New("NB:Logical_Switch", "ghost", map[string]rows.Value{"name": rows.Str("x")})}),
		group("d", engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: switchRef("ghost")}})))
	if res.Failed["c"].Class != engine.Vanished || res.Failed["d"].Class != engine.Vanished {
		t.Fatalf("found %+v, wanted c and d vanished", res)
	}
}

func TestMapEntryIsReplacedInOneMutate(t *testing.T) {
	_, c := nbPair(t)
	global := rows.Ref{Table: "NB:NB_Global", ID: rows.Singleton}
	raw(t, c, `{"op":"update","table":"NB_Global","where":[],"row":{"options":["map",[["theirs","1"]]]}}`)
	entry := func(v string) rows.Edge { return rows.Entry(global, "options", "k", v) }
	mustCommit(t, c, group("g", edge(engine.Add, entry("old"))))
	mustCommit(t, c, group("g", edge(engine.Remove, entry("old")), edge(engine.Add, entry("new"))))
	res := raw(t, c, `{"op":"select","table":"NB_Global","where":[],"columns":["options"]}`)
	if got := string(res[0].Rows[0]["options"]); got != `["map",[["k","new"],["theirs","1"]]]` {
		t.Fatalf("options is %s", got)
	}
}

// A key may be there that the engine does not know as its own: another program's, or
// one that was read while no unit wanted its row.
func TestMapEntryIsWrittenOverOneThatIsThere(t *testing.T) {
	_, c := nbPair(t)
	global := rows.Ref{Table: "NB:NB_Global", ID: rows.Singleton}
	raw(t, c, `{"op":"update","table":"NB_Global","where":[],"row":{"options":["map",[["k","stale"],["theirs","1"]]]}}`)
	mustCommit(t, c, group("g", edge(engine.Add, rows.Entry(global, "options", "k", "new"))))
	res := raw(t, c, `{"op":"select","table":"NB_Global","where":[],"columns":["options"]}`)
	if got := string(res[0].Rows[0]["options"]); got != `["map",[["k","new"],["theirs","1"]]]` {
		t.Fatalf("options is %s", got)
	}
}

func TestRequiredSetChangesItsOnlyElement(t *testing.T) {
	_, c := nbPair(t)
	meter := rows.New("NB:Meter", "m", map[string]rows.Value{"name": rows.Str("m"), "unit": rows.Str("kbps")})
	band := func(id string) rows.Row {
		return rows.Child("NB:Meter_Band", id, meter.Ref, "bands", map[string]rows.Value{
			"action": rows.Str("drop"), "rate": rows.Num(100), "burst_size": rows.Num(0)})
	}
	mustCommit(t, c, group("g", insert("m", meter), insert("m", band("b1"))))
	mustCommit(t, c, group("g", insert("m", band("b2")), engine.Op{Kind: engine.Delete, Row: band("b1")}))
	want := []string{"NB:Meter(m)", "NB:Meter_Band(b2)", "NB:NB_Global(.)"}
	if diff := cmp.Diff(want, refs(snapshot(t, c))); diff != "" {
		t.Fatal(diff)
	}
}

func TestUpdateResetsToDefault(t *testing.T) {
	_, c := nbPair(t)
	p := portRow("web", "n1")
	mustCommit(t, c, switchGroup("n1", "n1"), portGroup("web", "n1"))
	update := rows.Row{Ref: p.Ref, Columns: []rows.Column{
		{Name: "enabled", Value: rows.Flag(false)}, {Name: "tag_request", Value: rows.Num(7)}, {Name: "type", Value: rows.Str("router")}}}
	mustCommit(t, c, group("pod/web", engine.Op{Kind: engine.Update, Row: update}))
	for i := range update.Columns {
		update.Columns[i].Value = nil
	}
	mustCommit(t, c, group("pod/web", engine.Op{Kind: engine.Update, Row: update}))
	snap := snapshot(t, c)
	i := slices.IndexFunc(snap.Rows, func(r engine.ActualRow) bool { return r.Ref == p.Ref })
	if diff := cmp.Diff(p.Columns, snap.Rows[i].Columns); diff != "" {
		t.Fatal(diff)
	}
}

func TestBisectIsolatesTheGroupAtFault(t *testing.T) {
	s, c := nbPair(t)
	var stats TxnStats
	c.cfg.Observe = func(st TxnStats) { stats = st }
	mustCommit(t, c, switchGroup("n1", "n1"))
	raw(t, c, `{"op":"insert","table":"Logical_Switch_Port","uuid-name":"p","row":{"name":"pod37","external_ids":["map",[["who","someone"]]]}}`,
		`{"op":"insert","table":"Logical_Switch","row":{"name":"theirs","ports":["named-uuid","p"]}}`)
	var groups []engine.GroupOps
	for i := range 64 {
		groups = append(groups, portGroup(fmt.Sprintf("pod%d", i), "n1"))
	}
	res := c.Apply(testContext(t), txnOf(groups...))
	f, ok := res.Failed["pod/pod37"]
	if len(res.Failed) != 1 || !ok || f.Class != engine.Constraint {
		t.Fatalf("found %+v, wanted pod/pod37 alone", res)
	}
	for _, part := range []string{"NB:Logical_Switch_Port(pod37)", `name "pod37" without our tag`, "who=someone", "identical values"} {
		if !strings.Contains(f.Err, part) {
			t.Errorf("message %q lacks %q", f.Err, part)
		}
	}
	if n := strings.Count(s.Dump("OVN_Northbound", "Logical_Switch_Port", "name"), "\n"); n != 64 {
		t.Errorf("%d ports, wanted 63 and the stranger's", n)
	}
	if stats.Tries > 2*6+1 {
		t.Errorf("%d tries for one bad group in 64, wanted at most 13", stats.Tries)
	}
}

func TestGroupsThatHangOnARefusedOneFailWithIt(t *testing.T) {
	_, c := nbPair(t)
	raw(t, c, `{"op":"insert","table":"Port_Group","row":{"name":"pg"}}`)
	pg := rows.New("NB:Port_Group", "pg", map[string]rows.Value{"name": rows.Str("pg")})
	res := c.Apply(testContext(t), txnOf(
		switchGroup("n1", "n1"),
		group("set", insert("set", pg)),
		portGroup("a", "n1"),
		group("pod/b", insert("pod/b", portRow("b", "n1")), edge(engine.Add, rows.Member(pg.Ref, "ports", rows.R(portRef("b"))))),
	))
	if len(res.Failed) != 2 || res.Failed["set"].Class != engine.Constraint || !strings.Contains(res.Failed["pod/b"].Err, "needs NB:Port_Group(pg)") {
		t.Fatalf("found %+v, wanted set refused and pod/b with it", res)
	}
	if diff := cmp.Diff([]string{"NB:Logical_Switch(n1)", "NB:Logical_Switch_Port(a)", "NB:NB_Global(.)"}, refs(snapshot(t, c))); diff != "" {
		t.Fatal(diff)
	}
}

func TestUniqueNameChangesHandsBesideAFault(t *testing.T) {
	_, c := nbPair(t)
	old := rows.New("NB:Port_Group", "old", map[string]rows.Value{"name": rows.Str("name")})
	now := rows.New("NB:Port_Group", "now", map[string]rows.Value{"name": rows.Str("name")})
	mustCommit(t, c, group("old", insert("old", old)))
	res := c.Apply(testContext(t), txnOf(
		group("now", insert("now", now)), // tried before "old" lets go, once the pack is bisected
		group("bad", insert("bad", rows.New("NB:Meter", "m", map[string]rows.Value{"name": rows.Str("m"), "unit": rows.Str("furlongs")}))),
		group("old", engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: old.Ref}}),
	))
	if _, bad := res.Failed["bad"]; !bad || len(res.Failed) != 1 {
		t.Fatalf("found %+v, wanted bad alone", res)
	}
	if !strings.Contains(res.Failed["bad"].Err, "NB:Meter(m)") {
		t.Errorf("message %q does not name the row", res.Failed["bad"].Err)
	}
}

func TestReferenceErrorNamesRows(t *testing.T) {
	_, c := nbPair(t)
	acl := rows.Child("NB:ACL", "a", switchRef("n1"), "acls", map[string]rows.Value{
		"action": rows.Str("drop"), "direction": rows.Str("to-lport"), "match": rows.Str("1"), "priority": rows.Num(1)})
	group1 := rows.New("NB:Load_Balancer_Group", "g", map[string]rows.Value{"name": rows.Str("g")})
	sw := switchRow("n1")
	sw.Columns = append([]rows.Column{{Name: "load_balancer_group", Value: rows.Set(rows.R(group1.Ref))}}, sw.Columns...)
	mustCommit(t, c, group("n1", insert("n1", group1), insert("n1", sw), insert("n1", acl)))
	res := c.Apply(testContext(t), txnOf(group("x", engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: group1.Ref}})))
	if f := res.Failed["x"]; f.Class != engine.Constraint || !strings.Contains(f.Err, "NB:Load_Balancer_Group(g)") {
		t.Fatalf("found %+v, wanted a refusal that names the row", res)
	}
}
