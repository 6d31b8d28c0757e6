package held

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

func nodeWith(subnet string) *intent.Node {
	n := &intent.Node{Name: "n", ID: 7, UID: "u1"}
	if subnet != "" {
		n.Subnets = []netip.Prefix{netip.MustParsePrefix(subnet)}
	}
	return n
}

// leading is a Lease that is renewed while on says so.
func leading(on func() bool) func(context.Context) (string, error) {
	n := 0
	return func(context.Context) (string, error) {
		if on() {
			n++
		}
		return fmt.Sprint("term ", n), nil
	}
}

func always() bool { return true }

// TestAnEditedSubnetChangesNothing edits the node's own annotation: the pods' subnet
// stays in force and the problem is told; set back in time, the agent lives on.
func TestAnEditedSubnetChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Holding{}
		if n := h.Apply(nodeWith("10.244.1.0/24")); n.Subnets[0].String() != "10.244.1.0/24" {
			t.Error("changed before anything is held")
		}
		h.Hold(nodeWith("10.244.1.0/24"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.Watch(ctx, leading(always)) }()
		edited := nodeWith("10.244.9.0/24")
		edited.ID = 9
		if n := h.Apply(edited); n.Subnets[0].String() != "10.244.1.0/24" || n.ID != 7 {
			t.Errorf("%+v", n)
		}
		if p := h.Problems(); len(p) != 1 || p[0].Object != "Node/n" || !strings.Contains(p[0].Message, "the annotation says [10.244.9.0/24], and the node's pods have addresses of [10.244.1.0/24]") {
			t.Errorf("%+v", p)
		}
		<-time.After(adoptAfter / 2)
		h.Apply(nodeWith("10.244.1.0/24"))
		if p := h.Problems(); len(p) != 0 {
			t.Errorf("%+v", p)
		}
		<-time.After(10 * adoptAfter)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestSubnetsThatStandAreAdopted is a node that was added anew, or was drained and given others.
func TestSubnetsThatStandAreAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Holding{}
		h.Hold(nodeWith("10.244.1.0/24"))
		h.Apply(nodeWith(""))
		h.Apply(nodeWith("10.244.9.0/24"))
		began := time.Now()
		err := h.Watch(t.Context(), leading(always))
		if err == nil || !strings.Contains(err.Error(), "the node has id 7 and subnets [10.244.9.0/24] now") || time.Since(began) < adoptAfter || time.Since(began) > 2*adoptAfter {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if got := h.Allocation(); got.Subnets[0].String() != "10.244.9.0/24" || got.UID != "u1" {
			t.Errorf("the next start is told %+v", got)
		}
	})
}

// TestANodeAddedAnewIsAdoptedAtOnce: what a Node is given after its deletion is no edit.
func TestANodeAddedAnewIsAdoptedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Holding{}
		h.Hold(nodeWith("10.244.1.0/24"))
		h.Ended()
		h.Apply(nodeWith("10.244.9.0/24"))
		began := time.Now()
		if err := h.Watch(t.Context(), leading(func() bool { return false })); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestNothingIsAdoptedWhileNobodyLeads: who would set it back is not there.
func TestNothingIsAdoptedWhileNobodyLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Holding{}
		h.Hold(nodeWith("10.244.1.0/24"))
		h.Apply(nodeWith("10.244.9.0/24"))
		began := time.Now()
		err := h.Watch(t.Context(), leading(func() bool { return time.Since(began) > time.Hour }))
		if after := time.Since(began); err == nil || after < time.Hour+adoptAfter || after > time.Hour+2*adoptAfter {
			t.Errorf("%v after %v", err, after)
		}
		h.Apply(nodeWith("10.244.8.0/24"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		unknown := func(context.Context) (string, error) { return "", errors.New("forbidden") }
		if err := h.Watch(ctx, unknown); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("adopted, though whether a manager leads is not known: %v", err)
		}
	})
}

// TestAnotherIDIsAdoptedLikeSubnets: the node runs with what it had until it starts anew.
func TestAnotherIDIsAdoptedLikeSubnets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &Holding{}
		h.Hold(nodeWith("10.244.1.0/24"))
		edited := nodeWith("10.244.1.0/24")
		edited.ID = 9
		h.Apply(edited)
		if p := h.Problems(); len(p) != 1 || p[0].Field != "metadata.annotations[k8s.ovn.org/node-id]" ||
			!strings.Contains(p[0].Message, "the annotation says 9, and the node runs with 7, which stays in force") {
			t.Errorf("%+v", p)
		}
		if err := h.Watch(t.Context(), nil); err == nil || h.Allocation().ID != 9 {
			t.Errorf("%v, %+v", err, h.Allocation())
		}
	})
}

// TestARestartGoesOnWithWhatItRan starts an agent anew while the Node's annotations
// say something else: only another Node, or a family more, makes a difference.
func TestARestartGoesOnWithWhatItRan(t *testing.T) {
	ran := kube.Allocation{UID: "u1", ID: 7, Subnets: nodeWith("10.244.1.0/24").Subnets}
	other, more, again := nodeWith("10.244.9.0/24"), nodeWith("10.244.1.0/24"), nodeWith("10.244.9.0/24")
	other.ID, again.UID = 8, "u2"
	more.Subnets = append(more.Subnets, netip.MustParsePrefix("fd00::/64"))
	for _, test := range []struct {
		name    string
		node    *intent.Node
		want    string
		problem bool
	}{
		{"the same", nodeWith("10.244.1.0/24"), "7 [10.244.1.0/24]", false},
		{"another's, or nobody's", other, "7 [10.244.1.0/24]", true},
		{"nothing", &intent.Node{Name: "n", UID: "u1"}, "7 [10.244.1.0/24]", false},
		{"a family more", more, "7 [10.244.1.0/24 fd00::/64]", false},
		{"another Node of the name", again, "7 [10.244.9.0/24]", false},
	} {
		h := &Holding{}
		h.Remember(ran)
		n := h.Apply(test.node)
		if got := fmt.Sprint(n.ID, " ", n.Subnets); got != test.want || len(h.Problems()) > 0 != test.problem {
			t.Errorf("%s: %s, want %s; %v", test.name, got, test.want, h.Problems())
		}
	}
}

// TestOfWhichNodeAnAllocationIs: a Node that was registered again counts once its own
// annotations say what the agent runs with.
func TestOfWhichNodeAnAllocationIs(t *testing.T) {
	h := &Holding{}
	if a := h.Allocation(); a.UID != "" {
		t.Errorf("%+v before anything is held", a)
	}
	h.Hold(nodeWith("10.244.1.0/24"))
	h.Ended()
	again := &intent.Node{Name: "n", UID: "u2"}
	if n := h.Apply(again); n.ID != 7 || h.Allocation().UID != "u1" {
		t.Errorf("%+v, %+v", n, h.Allocation())
	}
	again = nodeWith("10.244.1.0/24")
	again.UID = "u2"
	if h.Apply(again); h.Allocation().UID != "u2" || h.gone {
		t.Errorf("%+v, gone %v", h.Allocation(), h.gone)
	}
}
