package suite

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// TestFaultRestartWritesNothing kills every process of ours on every node at once,
// with no pod and with sixty on one node: what then runs anew finds all as it
// should be, and writes no row in any database and nothing to the API.
func TestFaultRestartWritesNothing(t *testing.T) {
	fresh(t)
	for _, pods := range []int{0, 60} {
		t.Run(fmt.Sprintf("%d-pods", pods), func(t *testing.T) {
			if pods > 0 {
				apply(t, deploymentOn("still", victim, pods))
				kubectl(t, "-n", namespace, "rollout", "status", "deployment/still", "--timeout=170s")
			}
			restartAll(t)
		})
	}
}

// deploymentOn is a Deployment of pods that do nothing, all on one node.
func deploymentOn(name, host string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, namespace: %s}
spec:
  replicas: %d
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: %s}}
    spec:
      nodeName: %s
      terminationGracePeriodSeconds: 0
      containers:
      - {name: pause, image: registry.k8s.io/pause:3.10.1}
`, name, namespace, replicas, name, name, host)
}

// measured is longer than it takes an agent to look at everything that it looks at
// from time to time, but for the hourly check.
const measured = 25 * time.Second

func restartAll(t *testing.T) {
	nodes := nodeNames(t)
	r := &faults.Rig{All: nodes}
	live(t, nodes)
	// What a rollout leaves to be written (an annotation, a status) comes within seconds.
	<-time.After(10 * time.Second)
	type watched struct {
		node, db string
		*state.Watcher
	}
	var watchers []watched
	for _, n := range nodes {
		for _, db := range []string{"NB", "SB", "OVS"} {
			w, err := state.Watch(t.Context(), n, db)
			if err != nil {
				t.Fatal(err)
			}
			watchers = append(watchers, watched{n, db, w})
		}
	}
	since := auditEnd(t)
	for _, n := range nodes {
		r.Node = n
		if err := r.Kill(t.Context(), faults.DaemonNamed("portolan-node")); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Kill(t.Context(), faults.DaemonNamed("portolan-manager")); err != nil {
		t.Fatal(err)
	}
	live(t, nodes)
	<-time.After(measured)
	rows := 0
	for _, w := range watchers {
		writes, err := w.Close()
		if err != nil {
			t.Errorf("%s of %s: %v", w.db, w.node, err)
		}
		rows += len(writes)
		for _, x := range writes {
			t.Errorf("%s of %s: %.400s", w.db, w.node, x)
		}
	}
	calls := audit(t, since)
	for _, c := range calls {
		t.Errorf("API: %s", c)
	}
	t.Logf("%d agents and the managers restarted: %d rows written in %d databases, %d writes to the API", len(nodes), rows, len(watchers), len(calls))
}

// live waits until every node is whole.
func live(t *testing.T, nodes []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, n := range nodes {
		var err error
		for ctx.Err() == nil {
			if err = faults.Live(ctx, n); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// auditFile is the API server's log of what our accounts write.
func auditFile(t *testing.T) *os.File {
	t.Helper()
	pid, err := node.InitPID("ovn-control-plane")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/root/var/log/audit.log", pid))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func auditEnd(t *testing.T) int64 {
	t.Helper()
	f := auditFile(t)
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// audit lists the writes to the API after an offset of the log.
func audit(t *testing.T, since int64) []string {
	t.Helper()
	f := auditFile(t)
	defer f.Close()
	if _, err := f.Seek(since, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var out []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var e struct {
			Verb, RequestURI string
			User             struct{ Username string }
			ResponseStatus   struct{ Code int }
			RequestObject    json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("audit log: %v in %.200s", err, lines.Bytes())
		}
		if e.ResponseStatus.Code < 300 {
			out = append(out, fmt.Sprintf("%s %s by %s: %.500s", e.Verb, e.RequestURI, e.User.Username, e.RequestObject))
		}
	}
	return out
}

// TestFaultSecondAgent starts a second agent beside the first, in its container: it
// says whose the node is, and changes nothing.
func TestFaultSecondAgent(t *testing.T) {
	before := settled(t, victim)
	pid := agentProcess(t, victim)
	args := append([]string{"kubectl", "-n", "portolan", "exec", agentOf(t, victim), "-c", "portolan-node", "--"}, pid.Argv...)
	out, err := command(t, args...)
	if err == nil || !strings.Contains(out, "another agent runs on this node: portolan-node, process ") {
		t.Errorf("second agent: %v\n%s", err, out)
	}
	t.Logf("the second agent says: %s", strings.TrimSpace(out))
	if syscall.Kill(pid.PID, 0) != nil {
		t.Error("the first agent has ended")
	}
	after, err := state.Take(t.Context(), victim)
	if err != nil {
		t.Fatal(err)
	}
	if diff := state.Diff(before, after); len(diff) > 0 {
		t.Errorf("the second agent changed %d rows:\n%s", len(diff), state.Text(diff))
	}
}

// settled is a node's state once it has not changed for three seconds: pods of an
// earlier test may be on their way out.
func settled(t *testing.T, host string) state.State {
	t.Helper()
	var last state.State
	changed := time.Now()
	err := inTime(time.Minute, func() error {
		now, err := state.Take(t.Context(), host)
		if err != nil {
			return err
		}
		diff := state.Diff(last, now)
		if last = now; len(diff) > 0 {
			changed = time.Now()
		}
		if since := time.Since(changed); since < 3*time.Second {
			return fmt.Errorf("%d rows have changed %v ago", len(diff), since.Round(time.Millisecond))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s does not settle: %v", host, err)
	}
	return last
}

func agentProcess(t *testing.T, host string) node.Process {
	t.Helper()
	list, err := node.Processes(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if faults.DaemonNamed("portolan-node").Is(p) {
			return p
		}
	}
	t.Fatalf("no agent on %s", host)
	return node.Process{}
}
