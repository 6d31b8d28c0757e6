package suite

import (
	"context"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
)

// reportFile is where the table of `make test` is gathered; "": nowhere.
func reportFile() string { return os.Getenv("PORTOLAN_REPORT") }

// victim is the node that faults hit, other the one at the far end of a path.
const (
	victim = "ovn-worker"
	other  = "ovn-worker2"
)

// rig makes the pods of the fault suite and joins them by paths.
func rig(t *testing.T) *faults.Rig {
	t.Helper()
	if zone := layout(t).Zone; zone != "node" {
		t.Skipf("the lab's zone is %s: these faults are of nodes that are zones", zone)
	}
	fresh(t)
	// Each path has a pod of its own at its beginning, as the bare bridge has: a socket
	// of vswitchd's that carried all would overflow sooner.
	apply(t, podManifest("a", victim)+podManifest("b", victim)+podManifest("c", victim)+podManifest("near", victim)+podManifest("far", other))
	pods := ready(t)
	serve(t, pods["far"].Place, port)
	r := rigOf(t, faults.Path{Name: faults.SameNode, From: pods["a"].Place, To: pods["near"].Place},
		faults.Path{Name: faults.Outside, From: pods["b"].Place, To: outside(t)},
		faults.Path{Name: faults.OtherNode, From: pods["c"].Place, To: pods["far"].Place})
	r.Node, r.Others, r.Port = victim, []string{other}, port
	return r
}

func rigOf(t *testing.T, paths ...faults.Path) *faults.Rig {
	t.Helper()
	return &faults.Rig{All: nodeNames(t), Log: t.Logf, Paths: paths, Lab: func(ctx context.Context, args ...string) (string, error) {
		return proc.Output(ctx, append([]string{"../../../bin/lab"}, args...)...)
	}}
}

func nodeNames(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(machines(t)))
}

// attempts is how often a fault is done when the machine itself loses packets: the
// bare bridge says so.
const attempts = 3

// do does a fault and judges it. A run in which the bare bridge lost packets too
// proves nothing, and is done again.
func do(t *testing.T, r *faults.Rig, f faults.Fault) faults.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var res faults.Result
	for i := range attempts {
		res = r.Run(ctx, f)
		t.Logf("%s: %v", f.Name, res)
		if !res.Disturbed() || res.Err != nil {
			break
		}
		if i+1 < attempts {
			t.Logf("%s: the bare bridges lost %d and %d packets meanwhile: the machine is disturbed, once more", f.Name, res.Bare.Lost, res.Elsewhere)
		}
	}
	for _, w := range res.Wrong() {
		t.Errorf("%s: %s", f.Name, w)
	}
	if err := faults.Report(reportFile(), res); err != nil {
		t.Error(err)
	}
	return res
}

// TestFaultKill kills each daemon of a node by itself, while packets are counted:
// none may be lost but where the datapath itself dies.
func TestFaultKill(t *testing.T) {
	r := rig(t)
	for _, d := range faults.Daemons() {
		f := faults.Killed(d.Name)
		t.Run(d.Name, func(t *testing.T) { do(t, r, f) })
	}
	for _, f := range []faults.Fault{faults.All(), faults.AllWithVswitchd()} {
		t.Run(f.Name, func(t *testing.T) { do(t, r, f) })
	}
}

// TestFaultData takes a zone's databases away, or puts older ones in their place.
func TestFaultData(t *testing.T) {
	old := map[string]string{}
	for _, db := range []string{"NB", "SB"} {
		old[db] = t.TempDir() + "/" + db
		if err := faults.Copy(victim, db, old[db]); err != nil { // before the pods of the test are made
			t.Fatal(err)
		}
	}
	r := rig(t)
	for _, db := range []string{"NB", "SB"} {
		for _, f := range []faults.Fault{faults.Wiped(db), faults.Restored(db, old[db])} {
			t.Run(f.Name, func(t *testing.T) { do(t, r, f) })
		}
	}
}
