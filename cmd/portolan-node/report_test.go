package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// declared remembers what a reporter declares.
type declared struct{ list []v1alpha1.NodeNetworkStatus }

func (d *declared) Run(ctx context.Context) error        { <-ctx.Done(); return ctx.Err() }
func (d *declared) Declare(s v1alpha1.NodeNetworkStatus) { d.list = append(d.list, s) }

// reported runs a reporter for a while over a view that changes by time.
func reported(t *testing.T, d time.Duration, look func(age time.Duration) view) []v1alpha1.NodeNetworkStatus {
	t.Helper()
	var out declared
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		began := time.Now()
		r := &reporter{writer: &out, now: time.Now, look: func(context.Context) (view, bool) { return look(time.Since(began)), true }}
		if err := r.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	})
	return out.list
}

func TestAStartIsNotTold(t *testing.T) {
	got := reported(t, 22*time.Second, func(age time.Duration) view {
		if age < 8*time.Second {
			return view{notReady: errStarting}
		}
		return view{}
	})
	for _, s := range got {
		if _, _, notReady := s.NotReady(); notReady {
			t.Errorf("told %+v", s.Conditions)
		}
	}
	if len(got) != 2 { // ready at the looks of 10, 15 and 20 s; the first of them may be early
		t.Errorf("told %d times", len(got))
	}
}

func TestAStartThatDoesNotEndIsTold(t *testing.T) {
	got := reported(t, 32*time.Second, func(time.Duration) view {
		return view{notReady: errors.New("connecting to database NB at unix:/x")}
	})
	if len(got) != 1 || got[0].Conditions[0].Message != "connecting to database NB at unix:/x" || got[0].Conditions[0].Reason != v1alpha1.ReasonStarting {
		t.Errorf("told %+v", got)
	}
}

func TestOnlyWhatLastsWaits(t *testing.T) {
	stranger := engine.Status{Group: "pod/demo/east", DB: rows.NB,
		Waiting: []string{"NB:Logical_Switch_Port(demo_east) to have its name, held by NB:Logical_Switch_Port row 1-2 without our tag"}}
	refused := engine.Status{Group: "node/n", DB: rows.SB, Failure: engine.Failure{Class: engine.Constraint, Err: "constraint violation: x"}}
	n := 0
	got := reported(t, 22*time.Second, func(time.Duration) view {
		n++
		passing := engine.Status{Group: fmt.Sprintf("pod/demo/p%d", n), DB: rows.NB, Waiting: []string{"NB:Logical_Switch(n)"}}
		return view{report: ovsdb.Report{Statuses: []engine.Status{passing, refused, stranger}}}
	})
	last := got[len(got)-1]
	if last.WaitingCount != 2 || last.Waiting[1].Unit != "pod/demo/east" {
		t.Errorf("waiting %+v", last.Waiting)
	}
	var text []string
	for _, p := range last.Problems {
		text = append(text, p.Object+": "+p.Message)
	}
	if all := strings.Join(text, "\n"); !strings.Contains(all, "Pod/demo/east: in NB, NB:Logical_Switch_Port(demo_east) to have its name, held by NB:Logical_Switch_Port row 1-2 without our tag: remove that row") ||
		!strings.Contains(all, "Node/n: SB refused it") {
		t.Errorf("problems\n%s", all)
	}
}

func TestListsAreBounded(t *testing.T) {
	var v view
	for i := range 250 {
		v.problems = append(v.problems, rows.Problem{Object: fmt.Sprintf("Pod/a/%03d", i), Severity: rows.Error, Message: "x"})
	}
	s := v.status(nil)
	if s.ProblemCount != 250 || len(s.Problems) != v1alpha1.MaxNodeProblems {
		t.Errorf("%d of %d", len(s.Problems), s.ProblemCount)
	}
}

// TestANodeNetworkSaysWhatTheNodeRunsWith, and leaves what it said while that is not known.
func TestANodeNetworkSaysWhatTheNodeRunsWith(t *testing.T) {
	if s := (view{}).status(nil); s.Allocation != nil {
		t.Errorf("%+v before anything is held", s.Allocation)
	}
	s := view{runs: kube.Allocation{UID: "u", ID: 7, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}}.status(nil)
	if s.Allocation == nil || s.Allocation.NodeUID != "u" || s.Allocation.NodeID != 7 || s.Allocation.Subnets[0] != "10.244.1.0/24" {
		t.Errorf("%+v", s.Allocation)
	}
}

func TestEndReason(t *testing.T) {
	if r := endReason(refused{errors.New("NIC")}); r != v1alpha1.ReasonRefused {
		t.Error(r)
	}
	if r := endReason(errors.New("driver")); r != v1alpha1.ReasonFailed {
		t.Error(r)
	}
}

// TestRepairsAreToldOverARestart: what a NodeNetwork says of repairs is the same before
// and after one, and ends with its time.
func TestRepairsAreToldOverARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "repairs")
	p := rows.Problem{Object: "Pod/shop/web", Severity: rows.Repaired, Message: "a port was left"}
	h := newHealth()
	h.remember(file)
	h.repaired(p)
	again := newHealth()
	again.remember(file)
	if got := again.list(); len(got) != 1 || got[0] != p {
		t.Errorf("after a restart %v", got)
	}
	again.repairs[0].At = time.Now().Add(-repairTold - time.Second)
	if got := again.list(); len(got) != 0 {
		t.Errorf("after its time %v", got)
	}
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := newHealth()
	broken.remember(file)
	broken.repaired(p)
	again = newHealth()
	if again.remember(file); len(again.list()) != 1 {
		t.Error("a file that cannot be read is not written anew")
	}
}
