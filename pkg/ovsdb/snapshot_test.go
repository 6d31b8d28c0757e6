package ovsdb

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func find(t *testing.T, s engine.Snapshot, ref rows.Ref) engine.ActualRow {
	t.Helper()
	i := slices.IndexFunc(s.Rows, func(r engine.ActualRow) bool { return r.Ref == ref })
	if i < 0 {
		t.Fatalf("no %v in %v", ref, refs(s))
	}
	return s.Rows[i]
}

// column is one column of a row, nil when it is at its default.
func column(r engine.ActualRow, name string) rows.Value {
	v, _ := rows.Row{Columns: r.Columns}.Column(name)
	return v
}

func TestSnapshotLeavesOthersOut(t *testing.T) {
	_, c := nbPair(t)
	pg := groupRef("g")
	mustCommit(t, c, switchGroup("n1", "n1"), portGroup("web", "n1"),
		group("g", insert("g", rows.New(pg.Table, "g", map[string]rows.Value{"name": rows.Str("g")})),
			edge(engine.Add, rows.Member(pg, "ports", rows.R(portRef("web"))))))
	res := raw(t, c,
		`{"op":"insert","table":"Logical_Switch_Port","uuid-name":"q","row":{"name":"foreign"}}`,
		`{"op":"mutate","table":"Logical_Switch","where":[["name","==","n1"]],"mutations":[["ports","insert",["named-uuid","q"]]]}`,
		`{"op":"mutate","table":"Port_Group","where":[["name","==","g"]],"mutations":[["ports","insert",["named-uuid","q"]]]}`,
		`{"op":"insert","table":"Load_Balancer_Group","row":{"name":"theirs"}}`,
		`{"op":"update","table":"NB_Global","where":[],"row":{"nb_cfg":41,"hv_cfg":40}}`)
	if e := errorOf(res); e != "" {
		t.Fatal(e)
	}
	s := snapshot(t, c)
	want := []string{"NB:Logical_Switch(n1)", "NB:Logical_Switch_Port(web)", "NB:NB_Global(.)", "NB:Port_Group(g)"}
	if diff := cmp.Diff(want, refs(s)); diff != "" {
		t.Fatal(diff)
	}
	if v := column(find(t, s, switchRef("n1")), "ports"); len(v) != 0 {
		t.Errorf("ports of our switch are %v, wanted none: ours say it by their parent, others are not ours to remove", v)
	}
	v := column(find(t, s, pg), "ports")
	if len(v) != 2 || v[0].Key.Ref.ID[:1] != rawRef || v[1].Key.Ref != portRef("web") {
		t.Errorf("ports of our group are %v, wanted web and a raw reference", v)
	}
	for key, part := range map[string]string{
		`NB:Logical_Switch_Port/"foreign"`: "without our tag",
		`NB:Load_Balancer_Group/"theirs"`:  `name "theirs"`,
	} {
		if !strings.Contains(s.Strangers[key], part) {
			t.Errorf("stranger %s is %q, wanted %q in it", key, s.Strangers[key], part)
		}
	}
	if len(s.Strangers) != 2 {
		t.Errorf("strangers are %v, wanted two", s.Strangers)
	}
	if s.NbCfg != 41 || s.HvCfg != 40 {
		t.Errorf("nb_cfg %d, hv_cfg %d, wanted 41 and 40", s.NbCfg, s.HvCfg)
	}
}

func TestSnapshotKnowsRowsWithoutTags(t *testing.T) {
	s := ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-sb"))
	s.Transact("OVN_Southbound", `{"op":"insert","table":"SB_Global","row":{}}`,
		`{"op":"insert","table":"Encap","uuid-name":"e","row":{"type":"geneve","ip":"10.0.0.9"}}`,
		`{"op":"insert","table":"Chassis","row":{"name":"local","encaps":["named-uuid","e"]}}`)
	c, _ := connect(t, Config{DB: rows.SB, Endpoint: s.Endpoint})
	chassis := rows.New("SB:Chassis", "remote", map[string]rows.Value{"name": rows.Str("remote"), "hostname": rows.Str("n2")})
	encap := rows.Child("SB:Encap", "geneve/10.0.0.2", chassis.Ref, "encaps", map[string]rows.Value{
		"type": rows.Str("geneve"), "ip": rows.Str("10.0.0.2"), "chassis_name": rows.Str("remote")})
	if err := encap.Validate(); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, c, group("node/n2", insert("node/n2", chassis), insert("node/n2", encap)))
	snap := snapshot(t, c)
	if diff := cmp.Diff([]string{"SB:Chassis(remote)", "SB:Encap(geneve/10.0.0.2)", "SB:SB_Global(.)"}, refs(snap)); diff != "" {
		t.Fatal(diff)
	}
	e := find(t, snap, encap.Ref)
	if diff := cmp.Diff(engine.ActualRow{Ref: encap.Ref, UUID: encap.UUID(), Parent: encap.Parent, Columns: encap.Columns}, e); diff != "" {
		t.Fatal(diff)
	}
	if _, ok := snap.Strangers[`SB:Encap/"geneve"/"10.0.0.9"`]; !ok {
		t.Errorf("strangers %v lack the local chassis' encap", snap.Strangers)
	}
	s.Transact("OVN_Southbound", `{"op":"update","table":"Encap","where":[["ip","==","10.0.0.2"]],"row":{"ip":"10.0.0.3"}}`)
	snap = snapshot(t, c)
	if got := find(t, snap, rows.Ref{Table: "SB:Encap", ID: rawRef + encap.UUID()}); got.Parent != encap.Parent {
		t.Errorf("a row of ours with a changed name is %+v", got)
	}
}

func TestSnapshotLeavesAttachmentsAlone(t *testing.T) {
	o := ovsdbtest.StartOVS(t, false)
	c, _ := connect(t, Config{DB: rows.OVS, Endpoint: o.Endpoint})
	root := rows.Ref{Table: "OVS:Open_vSwitch", ID: rows.Singleton}
	br := rows.Child("OVS:Bridge", "br-int", root, "bridges", map[string]rows.Value{"name": rows.Str("br-int"), "fail_mode": rows.Str("secure")})
	port := rows.Child("OVS:Port", "mp0", br.Ref, "ports", map[string]rows.Value{"name": rows.Str("mp0")})
	iface := rows.Child("OVS:Interface", "mp0", port.Ref, "interfaces", map[string]rows.Value{"name": rows.Str("mp0"), "type": rows.Str("internal")})
	mustCommit(t, c, group("node", insert("node", br), insert("node", port), insert("node", iface)))
	for _, p := range []string{"veth1", "patch1"} {
		o.Vsctl("--no-wait", "add-port", "br-int", p)
	}
	for _, table := range []string{"Port", "Interface"} {
		o.Vsctl("--no-wait", "set", table, "veth1", "external_ids:portolan/owner=attachment/uid/eth0", "external_ids:portolan/id=veth1")
	}
	s := snapshot(t, c)
	want := []string{"OVS:Bridge(br-int)", "OVS:Interface(mp0)", "OVS:Open_vSwitch(.)", "OVS:Port(mp0)"}
	if diff := cmp.Diff(want, refs(s)); diff != "" {
		t.Fatal(diff)
	}
	if v := column(find(t, s, br.Ref), "ports"); len(v) != 0 {
		t.Errorf("br-int's ports are %v, wanted none", v)
	}
	if _, ok := s.Strangers[`OVS:Port/"veth1"`]; !ok {
		t.Errorf("strangers %v lack the attachment's port name", s.Strangers)
	}
	// Their deletion is the CNI server's business, not drift.
	o.Vsctl("--no-wait", "del-port", "veth1")
	o.Vsctl("--no-wait", "del-port", "mp0")
	until(t, c, "drift by mp0", func(st State) bool { return st.Drift > 0 })
	if d := c.State().Drift; d != 1 {
		t.Errorf("drift is %d, wanted 1", d)
	}
}

func TestRowUnderAnotherUUIDIsReplaced(t *testing.T) {
	_, c := nbPair(t)
	raw(t, c, `{"op":"insert","table":"Logical_Switch","row":{"name":"n1","external_ids":["map",[["portolan/id","n1"],["portolan/owner","node/n1"],["portolan/zone","z1"]]]}}`)
	got := find(t, snapshot(t, c), switchRef("n1"))
	if got.UUID == switchRef("n1").UUID() || got.Owner != "node/n1" {
		t.Fatalf("found %+v", got)
	}
	mustCommit(t, c, group("node/n1",
		engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: switchRef("n1")}, UUID: got.UUID},
		insert("node/n1", switchRow("n1"))))
	if got = find(t, snapshot(t, c), switchRef("n1")); got.UUID != switchRef("n1").UUID() {
		t.Fatalf("found %+v, wanted the derived UUID", got)
	}
	// A second row with our tag: one is the row, the other nobody wants.
	raw(t, c, `{"op":"insert","table":"Logical_Switch","row":{"name":"n1","external_ids":["map",[["portolan/id","n1"],["portolan/owner","node/n1"],["portolan/zone","z1"]]]}}`)
	s := snapshot(t, c)
	if got = find(t, s, switchRef("n1")); got.UUID != switchRef("n1").UUID() || len(s.Rows) != 3 {
		t.Fatalf("found %v", refs(s))
	}
	i := slices.IndexFunc(s.Rows, func(r engine.ActualRow) bool { return strings.HasPrefix(r.ID, rawRef) })
	mustCommit(t, c, group("x", engine.Op{Kind: engine.Delete, Row: rows.Row{Ref: s.Rows[i].Ref}, UUID: s.Rows[i].UUID}))
	if n := len(snapshot(t, c).Rows); n != 2 {
		t.Fatalf("%d rows, wanted 2", n)
	}
}

// TestRowsOfAnEarlierZoneAreTakenOver has rows that the node wrote under another name:
// they are ours, say so from then on, and are taken over once.
func TestRowsOfAnEarlierZoneAreTakenOver(t *testing.T) {
	_, c := nbPair(t)
	mustCommit(t, c, switchGroup("n1", "n1"))
	res := raw(t, c,
		`{"op":"insert","table":"Logical_Switch_Port","uuid-name":"p","row":{"name":"x","external_ids":["map",[["portolan/id","x"],["portolan/owner","pod/x"],["portolan/zone","z2"],["a","b"]]]}}`,
		`{"op":"mutate","table":"Logical_Switch","where":[["name","==","n1"]],"mutations":[["ports","insert",["named-uuid","p"]]]}`)
	if e := errorOf(res); e != "" {
		t.Fatal(e)
	}
	for range 2 {
		r := find(t, snapshot(t, c), portRef("x"))
		if r.Owner != "pod/x" || r.Parent != (rows.Parent{Row: switchRef("n1"), Column: "ports"}) {
			t.Errorf("the port is %+v", r)
		}
	}
	res = raw(t, c, `{"op":"select","table":"Logical_Switch_Port","where":[["name","==","x"]],"columns":["external_ids"]}`)
	if text := string(res[0].Rows[0]["external_ids"]); strings.Contains(text, "z2") || !strings.Contains(text, `["portolan/zone","`+c.cfg.Zone+`"]`) || !strings.Contains(text, `["a","b"]`) {
		t.Errorf("external_ids are %s", text)
	}
}
