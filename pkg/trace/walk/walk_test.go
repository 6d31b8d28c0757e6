package walk

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/trace"
)

type still struct{}

func (still) Do(_ context.Context, fn func()) error { fn(); return nil }

// hinted says of every flow that it was made from one row.
type hinted struct {
	uuid  string
	asked []ovsdb.FlowID
}

func (h *hinted) StageHints(_ context.Context, flows []ovsdb.FlowID) (map[ovsdb.FlowID]string, error) {
	h.asked = flows
	out := map[ovsdb.FlowID]string{}
	for _, f := range flows {
		out[f] = h.uuid
	}
	return out, nil
}

// walker walks by printing a file, for an engine whose node n says an ACL and a port.
func walker(t *testing.T, file string) (*Walker, *hinted, *[]string) {
	t.Helper()
	e := engine.New(engine.Config{Databases: []rows.DB{rows.NB}, Kinds: []engine.UnitKind{{
		Name:  "node",
		Spawn: map[intent.Kind]func(intent.Object) string{intent.KindNode: func(o intent.Object) string { return o.Key().Name }},
		Compile: func(*intent.View, string) rows.Output {
			var out rows.Output
			sw := out.Add(rows.New("NB:Logical_Switch", "node1", map[string]rows.Value{"name": rows.Str("node1")}))
			out.Add(rows.Child("NB:ACL", "node1/dhcp-server", sw, "acls", map[string]rows.Value{
				"direction": rows.Str("from-lport"), "priority": rows.Num(32000), "match": rows.Str("1"), "action": rows.Str("drop"),
			}))
			out.Add(rows.Child("NB:Logical_Switch_Port", "default_web", sw, "ports", map[string]rows.Value{"name": rows.Str("default_web")}))
			return out
		},
	}}})
	e.Step([]engine.Event{{Put: &intent.Node{Name: "n"}}, {Synced: true}})
	flows := &hinted{uuid: rows.Ref{Table: "NB:ACL", ID: "node1/dhcp-server"}.UUID()[:8]}
	var ran []string
	return &Walker{
		Zone: "n", SB: "unix:/run/sb", Engine: e, Driver: still{}, Flows: flows,
		Command: func(ctx context.Context, name string, args ...string) *exec.Cmd {
			ran = append([]string{name}, args...)
			return exec.CommandContext(ctx, "cat", file)
		},
	}, flows, &ran
}

func packet() trace.Packet {
	return trace.Packet{
		Datapath: "node1", Inport: "default_web", EthSrc: "0a:58:0a:f4:01:05", EthDst: "0a:58:0a:f4:01:01",
		Src: netip.MustParseAddr("10.244.1.5"), Dst: netip.MustParseAddr("10.244.2.5"), Protocol: "udp", SrcPort: 67, DstPort: 68, TTL: 64,
	}
}

func TestWalkNamesTheObject(t *testing.T) {
	w, flows, ran := walker(t, "../testdata/rule.txt")
	query := func(p trace.Packet) string {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return trace.Endpoint + "?" + url.Values{"packet": {string(text)}}.Encode()
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, query(packet()), nil))
	var z trace.Zone
	if err := json.Unmarshal(rec.Body.Bytes(), &z); rec.Code != http.StatusOK || err != nil {
		t.Fatalf("%d %v %s", rec.Code, err, rec.Body)
	}
	v := z.Verdict()
	if v.Outcome != trace.Dropped || v.Decider.Row != "NB:ACL(node1/dhcp-server)" || v.Decider.Unit != "node/n" ||
		!slices.Equal(v.Decider.Objects, []string{"Node/n"}) {
		t.Errorf("found %+v, decider %+v", v, v.Decider)
	}
	if got := z.Ports["default_web"]; !slices.Equal(got, []string{"Node/n"}) {
		t.Errorf("ports %v", z.Ports)
	}
	if want := (ovsdb.FlowID{Pipeline: "ingress", Table: 8, Priority: 33000, UUID: "d5d63d64"}); !slices.Equal(flows.asked, []ovsdb.FlowID{want}) {
		t.Errorf("asked for %+v", flows.asked)
	}
	args := strings.Join(*ran, " ")
	if !strings.HasPrefix(args, "ovn-trace --no-leader-only --db=unix:/run/sb --ct=new") || (*ran)[len(*ran)-2] != "node1" {
		t.Errorf("ran %s", args)
	}
	*ran = nil
	bad := packet()
	bad.Inport = `x" || 1`
	rec = httptest.NewRecorder()
	w.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, query(bad), nil))
	if rec.Code != http.StatusBadRequest || *ran != nil {
		t.Errorf("%d, ran %v", rec.Code, *ran)
	}
}

func TestWalkSaysWhatTheToolSaid(t *testing.T) {
	w, _, _ := walker(t, "no/such/file")
	if _, err := w.Walk(t.Context(), packet()); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("found %v", err)
	}
}
