package state

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// db decodes tables as a server would send them.
func db(t *testing.T, text string) tables {
	t.Helper()
	var raw map[string]map[string]map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		t.Fatal(err)
	}
	out := tables{}
	for table, rows := range raw {
		out[table] = map[string]record{}
		for id, columns := range rows {
			row := record{}
			for c, v := range columns {
				var err error
				if row[c], err = decode(v); err != nil {
					t.Fatal(err)
				}
			}
			out[table][id] = row
		}
	}
	return out
}

const before = `{
"Port_Binding": {
  "p1": {"logical_port": "demo_east", "tunnel_key": 3, "datapath": ["uuid","d1"], "up": true, "mac": ["set", ["b", "a"]]}},
"Datapath_Binding": {"d1": {"tunnel_key": 1, "external_ids": ["map", [["name","node1"], ["x",""]]]}},
"MAC_Binding": {"m": {"ip": "10.0.0.1"}},
"Logical_Flow": {"f1": {"logical_datapath": ["uuid","d1"], "pipeline":"ingress", "table_id":0, "priority":50, "match":"1", "actions":"next;",
  "external_ids": ["map", [["source","x.c:1"],["stage-hint","12345678"]]]}}}`

// again is the same with other UUIDs, keys and order, and something learned.
const again = `{
"Port_Binding": {
  "q1": {"logical_port": "demo_east", "tunnel_key": 9, "datapath": ["uuid","e1"], "up": true, "mac": ["set", ["a", "b"]]}},
"Datapath_Binding": {"e1": {"tunnel_key": 7, "external_ids": ["map", [["x",""], ["name","node1"]]]}},
"MAC_Binding": {},
"Logical_Flow": {"g1": {"logical_datapath": ["uuid","e1"], "pipeline":"ingress", "table_id":0, "priority":50, "match":"1", "actions":"next;",
  "external_ids": ["map", [["stage-hint","aaaaaaaa"],["source","x.c:2"]]]}}}`

func TestWhatOVNChoseIsNotCompared(t *testing.T) {
	a, b := State{}, State{}
	a.render("SB", db(t, before))
	b.render("SB", db(t, again))
	if d := Diff(a, b); len(d) != 0 {
		t.Errorf("differs:\n%s", Text(d))
	}
	if len(a) != 3 {
		t.Errorf("%d things, want a port, a datapath and a flow: %v", len(a), a.keys())
	}
}

func TestDiffTellsWhatAndHow(t *testing.T) {
	a, b := State{}, State{}
	a.render("SB", db(t, before))
	b.render("SB", db(t, strings.NewReplacer(`"next;"`, `"drop;"`, `"demo_east"`, `"demo_west"`).Replace(again)))
	got := Text(Diff(a, b))
	for _, want := range []string{
		"- SB Port_Binding demo_east  datapath=→node1 logical_port=demo_east mac=a, b up=true",
		"+ SB Port_Binding demo_west",
		"~ SB Logical_Flow →node1 ingress 0 50 1\n    actions: next; → drop;",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := len(Diff(a, b)); n != 3 {
		t.Errorf("%d differences, want 3", n)
	}
}

func TestStateSurvivesItsText(t *testing.T) {
	s := State{}
	s.add("nft", "table\tx\nline", map[string]string{"a": "b=c\\n\td", "e": ""})
	s.add("route", "default", nil)
	s.add("route", "default", nil)
	var text bytes.Buffer
	if err := s.Write(&text); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&text)
	if err != nil {
		t.Fatal(err)
	}
	if d := Diff(s, got); len(d) != 0 || len(got) != 3 {
		t.Errorf("read %d things:\n%s", len(got), Text(d))
	}
	if _, err := Read(strings.NewReader("nonsense\n")); err == nil {
		t.Error("a line without a tab was read")
	}
}

func TestWatcherTellsWhatIsVolatile(t *testing.T) {
	r := renderer{db: "OVS", drop: volatile(), keys: volatileKeys()}
	w := &Watcher{text: func(table, column string, v any) string { return r.text(table, column, v, deepest) }}
	row := func(ids, ports string) map[string]json.RawMessage {
		return map[string]json.RawMessage{"external_ids": json.RawMessage(`["map",[` + ids + `]]`), "ports": json.RawMessage(`["set",[` + ports + `]]`)}
	}
	a := row(`["ovn-nb-cfg","1"],["x","1"]`, `["uuid","p"]`)
	for _, c := range []struct {
		after map[string]json.RawMessage
		want  int
	}{
		{row(`["x","1"],["ovn-nb-cfg","2"]`, `["uuid","p"]`), 0},
		{row(`["ovn-nb-cfg","1"],["x","2"]`, `["uuid","p"]`), 1},
		{row(`["ovn-nb-cfg","1"],["x","1"]`, `["uuid","q"]`), 1},
	} {
		if got := w.changed("Bridge", a, c.after); len(got) != c.want {
			t.Errorf("%s: changed %v, want %d columns", c.after, got, c.want)
		}
	}
}

func TestPodsDevicesAreNamedByTheirPods(t *testing.T) {
	names := podDevices(db(t, `{"Interface": {
	  "i": {"name":"p0a1b2c3", "external_ids": ["map", [["portolan/owner","attachment/x/eth0"],["iface-id","demo_east"],["sandbox","0123456789abcdef"]]]},
	  "j": {"name":"br-ex", "external_ids": ["map", [["portolan/owner","vswitch/n"],["iface-id","x"]]]}}}`))
	s := State{}
	s.nft("table netdev portolan {\n\tchain in-p0a1b2c3 {\n\t\tdrop\n\t}\n}\n")
	s = s.rename(names)
	if s[Key{"nft", "table netdev portolan chain in-veth:demo_east: drop"}] == nil || len(names) != 2 {
		t.Errorf("names %v, state %v", names, s.keys())
	}
}
