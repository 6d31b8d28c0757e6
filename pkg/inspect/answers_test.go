package inspect

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

const clusterYAML = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: cluster}
spec:
  node: node1
  clusterSubnets: [10.244.0.0/16/24]
---
apiVersion: v1
kind: Node
metadata:
  name: node1
  annotations:
    k8s.ovn.org/node-id: "2"
    k8s.ovn.org/node-subnets: '{"default":["10.244.1.0/24"]}'
---
apiVersion: v1
kind: Pod
metadata:
  name: east
  namespace: demo
  uid: 8f1d
  annotations:
    k8s.ovn.org/pod-networks: '{"default":{"ip_addresses":["10.244.1.3/24"],"mac_address":"0a:58:0a:f4:01:03"}}'
spec: {nodeName: node1}
`

// simulated is a database that a server may read.
type simulated struct{ db *enginetest.DB }

func (s simulated) DB() rows.DB        { return s.db.Name() }
func (s simulated) State() ovsdb.State { return ovsdb.State{Up: true, Epoch: 1} }
func (s simulated) Read(context.Context) (engine.Snapshot, error) {
	return s.db.Snapshot(), nil
}

// settled is a server of an engine that has written YAML to simulated databases.
func settled(t *testing.T, text string) (*Server, *script.Shell, map[rows.DB]*enginetest.DB) {
	t.Helper()
	dbs := scripttest.Simulate(rows.OVS, rows.NB, rows.SB)
	sh := script.New(script.Config{Kinds: compile.Kinds(), Door: kube.Decode, Databases: dbs})
	objects, err := sh.Read([]byte(text))
	if err != nil || len(sh.Problems()) > 0 {
		t.Fatal(err, sh.Problems())
	}
	for _, o := range objects {
		sh.Put(o)
	}
	sh.Put(&intent.Host{
		Node: "node1", Chassis: "c1", Datapath: intent.UserspaceDatapath, Bridge: "br-ex", NIC: "eth0", BridgeMAC: "02:00:00:00:00:01",
		BridgeMTU: 1500, EncapIPs: []netip.Addr{netip.MustParseAddr("172.30.0.2")}, Remote: "unix:/run/ovn/ovnsb_db.sock",
	})
	if err := sh.Settle(); err != nil {
		t.Fatal(err)
	}
	src := Source{
		Engine: sh.Engine(), Driver: Still{}, Kinds: compile.Kinds(), Door: kube.Decode,
		Ready: func() error { return nil },
	}
	byName := map[rows.DB]*enginetest.DB{}
	for _, d := range dbs {
		db := d.(scripttest.Simulated).DB
		byName[db.Name()] = db
		src.Databases = append(src.Databases, simulated{db})
	}
	return NewServer(src), sh, byName
}

var eastPort = rows.Ref{Table: "NB:Logical_Switch_Port", ID: "demo_east"}

func TestExplainByEveryName(t *testing.T) {
	s, _, _ := settled(t, clusterYAML)
	for _, asked := range []string{
		"NB:Logical_Switch_Port(demo_east)", "Logical_Switch_Port(demo_east)", `NB:Logical_Switch_Port("demo_east")`,
		"Logical_Switch_Port/demo_east", "NB:Logical_Switch_Port/demo_east", "demo_east", eastPort.UUID(),
		strings.ToUpper(eastPort.UUID()), "pod/demo/east", "Pod/demo/east",
	} {
		x, err := s.Explain(t.Context(), asked)
		if err != nil {
			t.Errorf("%s: %v", asked, err)
			continue
		}
		u := x.Units[0]
		if len(x.Units) != 1 || u.Name != "pod/demo/east" || !slices.Equal(u.Objects, []string{"Pod/demo/east"}) || !u.Committed {
			t.Errorf("%s: found %+v", asked, x)
		}
		if !slices.Contains(u.Reads, "Pod/demo/east") || !slices.Contains(u.Reads, "Cluster/.") {
			t.Errorf("%s: reads %v", asked, u.Reads)
		}
		if byRow := !strings.Contains(strings.ToLower(asked), "pod/demo"); byRow != (x.Row != nil) {
			t.Errorf("%s: row %v", asked, x.Row)
		}
	}
}

func TestExplainWhatCannotBe(t *testing.T) {
	s, _, _ := settled(t, clusterYAML)
	cases := map[string]int{"": 400, "nothing": 404, "Logical_Switch/demo_east": 404, "pod/demo/west": 404, "arp-rate-limiter": 409}
	for asked, code := range cases {
		_, err := s.Explain(t.Context(), asked)
		var u *userError
		if !errors.As(err, &u) || u.code != code {
			t.Errorf("%q: found %v, wanted code %d", asked, err, code)
		}
		if code == 409 {
			for _, c := range u.Candidates {
				if _, err := s.Explain(t.Context(), c); err != nil {
					t.Errorf("candidate %q: %v", c, err)
				}
			}
		}
	}
}

func TestRowsAndEdgesAreFiltered(t *testing.T) {
	s, _, _ := settled(t, clusterYAML)
	all, err := s.Rows(t.Context(), Filter{})
	if err != nil || len(all) < 10 {
		t.Fatalf("%d rows, %v", len(all), err)
	}
	for _, f := range []Filter{{Unit: "pod/demo/east"}, {Unit: "pod/", Table: "Logical_Switch_Port"}, {Table: "NB:Logical_Switch_Port", Unit: "pod/"}} {
		got, err := s.Rows(t.Context(), f)
		if err != nil || len(got) != 1 || got[0].Row != "NB:Logical_Switch_Port(demo_east)" || !got[0].Written {
			t.Errorf("%+v: found %+v, %v", f, got, err)
		}
	}
	sb, _ := s.Rows(t.Context(), Filter{Database: "OVS"})
	for _, r := range sb {
		if !strings.HasPrefix(r.Row, "OVS:") {
			t.Errorf("found %s", r.Row)
		}
	}
	edges, err := s.Edges(t.Context(), Filter{Table: "Open_vSwitch"})
	if err != nil || len(edges) == 0 || len(edges[0].Units) == 0 {
		t.Errorf("found %+v, %v", edges, err)
	}
	if _, err := s.Rows(t.Context(), Filter{Table: "Nothing"}); err == nil {
		t.Error("a table that is not there was searched")
	}
	if _, err := s.Edges(t.Context(), Filter{Database: "XB"}); err == nil {
		t.Error("a database that is not there was searched")
	}
}

func TestDiffNamesWhatSomebodyBroke(t *testing.T) {
	s, _, dbs := settled(t, clusterYAML)
	differences := func() []Difference {
		t.Helper()
		d, err := s.Diff(t.Context())
		if err != nil || len(d.Databases) != 3 {
			t.Fatalf("%+v, %v", d, err)
		}
		var out []Difference
		for _, db := range d.Databases {
			if db.Error != "" {
				t.Error(db.Error)
			}
			out = append(out, db.Differences...)
		}
		return out
	}
	if got := differences(); len(got) != 0 {
		t.Fatalf("found %+v", got)
	}
	if err := dbs[rows.NB].Vandalize(eastPort); err != nil {
		t.Fatal(err)
	}
	got := differences()
	if len(got) != 1 || got[0].Kind != Missing || got[0].Row != "NB:Logical_Switch_Port(demo_east)" ||
		got[0].Unit != "pod/demo/east" || got[0].Pending {
		t.Errorf("found %+v", got)
	}
}
