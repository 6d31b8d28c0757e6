package cluster

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

func options(cni string) plan.Options {
	return plan.Options{Nodes: 3, Zone: "node", Families: plan.IPv4, CNI: cni}
}

func TestUpTwiceIsNoOp(t *testing.T) {
	r := record{Options: options(plan.StandIn), Up: true}
	nodes := plan.Of(r.Options).Machines
	for _, c := range []struct {
		name string
		want plan.Options
		down []plan.Node
		todo action
		fail bool
	}{
		{"same options, all nodes run", options(plan.StandIn), nil, leave, false},
		{"one node crashed", options(plan.StandIn), nodes[1:2], boot, false},
		{"other options", options(plan.NoCNI), nil, start, true},
		{"other options, one node crashed", options(plan.NoCNI), nodes[1:2], start, true},
		{"the machine was rebooted", options(plan.NoCNI), nodes, start, false},
	} {
		todo, err := decide(r, c.want, c.down)
		if todo != c.todo || (err != nil) != c.fail {
			t.Errorf("%s: action %d, error %v; want %d, error %v", c.name, todo, err, c.todo, c.fail)
		}
	}
}

func TestNothingOrHalfALabIsAStart(t *testing.T) {
	l := New(Dirs{State: t.TempDir()}, build.Builder{}, io.Discard)
	if _, todo, err := l.found(options(plan.NoCNI)); todo != start || err != nil {
		t.Errorf("nothing: action %d, %v", todo, err)
	}
	if err := l.write(record{Options: options(plan.NoCNI)}); err != nil {
		t.Fatal(err)
	}
	if _, todo, err := l.found(options(plan.NoCNI)); todo != start || err != nil {
		t.Errorf("interrupted: action %d, %v", todo, err)
	}
	if _, err := l.current(); err == nil {
		t.Error("an interrupted lab counts as up")
	}
	if err := os.WriteFile(l.recordPath(), []byte("{half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, todo, err := l.found(options(plan.NoCNI)); todo != start || err != nil {
		t.Errorf("half a record: action %d, %v", todo, err)
	}
}

func TestLogsPrintTheEndOfEachFile(t *testing.T) {
	var out bytes.Buffer
	l := New(Dirs{State: t.TempDir()}, build.Builder{}, &out)
	dir := l.Dirs.State + "/nodes/ovn-worker/log"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/kubelet.log", []byte("one\ntwo\nthree\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := l.Logs([]string{"ovn-worker"}, 2); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.Contains(got, "one") || !strings.Contains(got, "two\nthree") {
		t.Errorf("printed %q", got)
	}
	if l.Logs([]string{"nobody"}, 2) == nil {
		t.Error("no logs, no error")
	}
}

func TestSummaryKeepsTheVerdict(t *testing.T) {
	out := "noise\nRan 4 of 765 Specs in 80.1 seconds\nSUCCESS! -- 4 Passed | 0 Failed\nmore"
	if got := summary(out); len(got) != 2 || !strings.HasPrefix(got[1], "SUCCESS!") {
		t.Errorf("summary %q", got)
	}
}
