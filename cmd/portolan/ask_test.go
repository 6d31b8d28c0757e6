package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/foresee"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/record"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
	"github.com/portolan-cni/portolan/pkg/version"
)

const podYAML = `apiVersion: v1
kind: Pod
metadata:
  name: east
  namespace: demo
  annotations:
    k8s.ovn.org/pod-networks: '{"default":{"ip_addresses":["10.244.1.3/24"],"mac_address":"0a:58:0a:f4:01:03"}}'
spec: {nodeName: node1}
`

var eastPort = rows.Ref{Table: "NB:Logical_Switch_Port", ID: "demo_east"}

// readable is a simulated database that an agent can read.
type readable struct{ db *enginetest.DB }

func (s readable) DB() rows.DB                                   { return s.db.Name() }
func (s readable) State() ovsdb.State                            { return ovsdb.State{Up: true, Epoch: 1} }
func (s readable) Read(context.Context) (engine.Snapshot, error) { return s.db.Snapshot(), nil }

// agent is the socket of an agent that has written YAML to a simulated NB.
func agent(t *testing.T, text string) (socket string, nb *enginetest.DB) {
	t.Helper()
	nb = enginetest.New(rows.NB)
	var recorder *record.Recorder
	sh := script.New(script.Config{
		Kinds: compile.Kinds(), Door: kube.Decode, Databases: append(scripttest.Simulate(rows.OVS, rows.SB), scripttest.Simulated{DB: nb}),
		Watch: func(_ *engine.Engine, events []engine.Event, ready engine.Ready) {
			recorder.Before(events)
			recorder.After(ready)
		},
	})
	var err error
	recorder, err = record.New(record.Config{
		Engine: engine.Config{Databases: []rows.DB{rows.OVS, rows.SB, rows.NB}}, Header: record.Header{Process: "portolan-node", Node: "node1", Version: version.String()},
	}, sh.Engine())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := sh.Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		sh.Put(o)
	}
	if err := sh.Settle(); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	src := inspect.Source{
		Engine: sh.Engine(), Driver: inspect.Still{}, Databases: []inspect.DB{readable{nb}},
		Ready: func() error { return nil }, Kinds: compile.Kinds(), Identity: inspect.Identity{Node: "node1"},
		Door:    func(text []byte) ([]intent.Object, []rows.Problem) { return kube.DecodePending(text, kube.ZonePerNode) },
		Record:  func(_ context.Context, w io.Writer) error { return recorder.Dump(w) },
		Foresee: foresee.Networks,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inspect.Serve(ctx, socket, inspect.NewServer(src)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		// The file is there a moment before anybody listens on it.
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return socket, nb
		}
		<-tick.C
	}
	t.Fatal("no socket")
	return "", nil
}

// said runs the program and returns what it prints.
func said(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := root("portolan")
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestExplainPrintsTheWholeWay(t *testing.T) {
	socket, _ := agent(t, clusterYAML+"---\n"+nodeYAML+"---\n"+podYAML)
	for _, name := range []string{"demo_east", eastPort.UUID(), "Logical_Switch_Port/demo_east"} {
		out, err := said(t, "explain", "--socket", socket, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{
			"NB:Logical_Switch_Port(demo_east)  parent NB:Logical_Switch(node1).ports", "uuid     " + eastPort.UUID(),
			"unit     pod/demo/east, ", "object   Pod/demo/east", "reads    Cluster/.",
		} {
			if !strings.Contains(out, line) {
				t.Errorf("%s: no %q in\n%s", name, line, out)
			}
		}
	}
	if _, err := said(t, "explain", "--socket", socket, "nobody"); err == nil || !strings.Contains(err.Error(), `called "nobody"`) {
		t.Errorf("found %v", err)
	}
}

func TestShow(t *testing.T) {
	socket, _ := agent(t, clusterYAML+"---\n"+nodeYAML+"---\n"+podYAML)
	cases := []struct {
		args []string
		want string
	}{
		{[]string{"units"}, "pod/demo/east"},
		{[]string{"rows", "-t", "Logical_Switch_Port", "--unit", "pod/"}, "ROW                                UNIT           STATE    UUID"},
		{[]string{"rows", "-c", "--unit", "pod/demo/east"}, `  addresses "0a:58:0a:f4:01:03 10.244.1.3"`},
		{[]string{"edges", "-o", "json"}, "[]"},
	}
	for _, c := range cases {
		out, err := said(t, append(append([]string{"show"}, c.args...), "--socket", socket)...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %v, no %q in\n%s", c.args, err, c.want, out)
		}
	}
}

func TestDiffExitsOne(t *testing.T) {
	socket, nb := agent(t, clusterYAML+"---\n"+nodeYAML+"---\n"+podYAML)
	out, err := said(t, "diff", "--socket", socket)
	if err != nil || !strings.HasPrefix(out, "NB: as wanted (") {
		t.Errorf("%v, found %s", err, out)
	}
	if err := nb.Vandalize(eastPort); err != nil {
		t.Fatal(err)
	}
	out, err = said(t, "diff", "--socket", socket)
	if !errors.Is(err, exitCode(1)) || !strings.Contains(out, "  missing NB:Logical_Switch_Port(demo_east) (pod/demo/east)\n    want  addresses") {
		t.Errorf("%v, found\n%s", err, out)
	}
	out, err = said(t, "diff", "--socket", socket, "-o", "json")
	var found []compared
	if !errors.Is(err, exitCode(1)) || json.Unmarshal([]byte(out), &found) != nil || found[0].Databases[0].Differences[0].Kind != inspect.Missing {
		t.Errorf("%v, found\n%s", err, out)
	}
}

const newPodYAML = `apiVersion: v1
kind: Pod
metadata: {name: west, namespace: demo}
spec: {containers: [{name: c, image: i}]}
`

// TestPlan asks an agent, and files, what a manifest would change: the answers are
// the same.
func TestPlan(t *testing.T) {
	state := clusterYAML + "---\n" + nodeYAML + "---\n" + podYAML
	socket, _ := agent(t, state)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	from := file("state.yaml", state)
	both := func(args ...string) string {
		t.Helper()
		online, err := said(t, append([]string{"plan", "--socket", socket}, args...)...)
		offline, err2 := said(t, append([]string{"plan", "--from", from}, args...)...)
		if err != nil || err2 != nil || online != offline {
			t.Fatalf("%v %v\nonline:\n%s\noffline:\n%s", err, err2, online, offline)
		}
		return online
	}
	cases := []struct {
		args  []string
		lines []string
	}{
		{[]string{"-f", file("west.yaml", newPodYAML)}, []string{
			"added    Pod/demo/west\n", "assumed  Pod/demo/west: node node1,", "assumed  Pod/demo/west: address 10.244.1.4/24,",
			"+ NB:Logical_Switch_Port(demo_west)  (pod/demo/west)\n", `    addresses "0a:58:0a:f4:01:04 10.244.1.4"`,
			"1 row and 0 shared elements differ: 1 operation in 1 transaction; cost: moderate\n",
			"moderate  1 × Logical_Switch_Port added  18 ms of ovn-northd",
		}},
		{[]string{"-f", file("east.yaml", podYAML)}, []string{"same     Pod/demo/east\n", "0 rows and 0 shared elements differ: 0 operations in 0 transactions; cost: none\n"}},
		{[]string{"--delete", "-f", file("east.yaml", podYAML)}, []string{"removed  Pod/demo/east\n", "- NB:Logical_Switch_Port(demo_east)  (pod/demo/east)\n"}},
		{[]string{"-f", file("node.yaml", strings.NewReplacer("node1", "node2", `"2"`, `"3"`, "10.244.1.0", "10.244.2.0",
			"annotations:\n", "annotations:\n    k8s.ovn.org/node-chassis-id: c2\n    k8s.ovn.org/node-encap-ips: '[\"172.30.0.3\"]'\n").Replace(nodeYAML))}, []string{
			"added    Node/node2\n", "cost: expensive\n",
		}},
	}
	for _, c := range cases {
		out := both(c.args...)
		for _, line := range c.lines {
			if !strings.Contains(out, line) {
				t.Errorf("%v: no %q in\n%s", c.args, line, out)
			}
		}
	}
	out, err := said(t, "plan", "--socket", socket, "-f", file("no.yaml", "# nothing\n"))
	if err == nil {
		t.Errorf("a manifest of nothing has a plan:\n%s", out)
	}
}

func TestRecordAndReplay(t *testing.T) {
	socket, _ := agent(t, clusterYAML+"---\n"+nodeYAML+"---\n"+podYAML)
	file := filepath.Join(t.TempDir(), "f")
	if out, err := said(t, "record", "--socket", socket, file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := said(t, "replay", file, "--events", "--txns", "--rows", "-t", "Logical_Switch_Port")
	for _, line := range []string{
		"  put Pod/demo/east\n", "  transaction in NB\n", "insert NB:Logical_Switch_Port(demo_east)",
		"\nNB:Logical_Switch_Port(demo_east)", "portolan-node node1, written ", "every answer is the same, bit for bit\n",
	} {
		if err != nil || !strings.Contains(out, line) {
			t.Errorf("%v, no %q in\n%s", err, line, out)
		}
	}
	out, err = said(t, "replay", file, "-o", "json")
	var r record.Report
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Transactions == 0 || r.First != 0 {
		t.Errorf("%v, found\n%s", err, out)
	}
	if out, err := said(t, "replay", file, "--at", "1"); err != nil || !strings.Contains(out, ": 1 step,") {
		t.Errorf("%v, found\n%s", err, out)
	}
}

func TestCompilePrintsJSON(t *testing.T) {
	files := map[string]string{"a.yaml": clusterYAML + "---\n" + nodeYAML + "---\n" + podYAML}
	out, _, err := compileFiles(t, files, "-o", "json", "-t", "Logical_Switch_Port")
	var c compiled
	if err != nil || json.Unmarshal([]byte(out), &c) != nil || len(c.Rows) == 0 || c.Rows[0].Row != "NB:Logical_Switch_Port(demo_east)" {
		t.Errorf("%v, found\n%s", err, out)
	}
	out, _, err = compileFiles(t, files, "-o", "yaml", "--explain", "pod/demo/east")
	if err != nil || !strings.Contains(out, "asked: pod/demo/east") {
		t.Errorf("%v, found\n%s", err, out)
	}
}
