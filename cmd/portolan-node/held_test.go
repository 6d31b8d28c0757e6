package main

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
)

func nodeWith(subnet string) *intent.Node {
	n := &intent.Node{Name: "n", ID: 7}
	if subnet != "" {
		n.Subnets = []netip.Prefix{netip.MustParsePrefix(subnet)}
	}
	return n
}

// TestAnEditedSubnetChangesNothing edits the node's own annotation: the pods' subnet
// stays in force and the problem is told; set back in time, the agent lives on.
func TestAnEditedSubnetChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holding{}
		if n := h.apply(nodeWith("10.244.1.0/24")); n.Subnets[0].String() != "10.244.1.0/24" {
			t.Error("changed before anything is held")
		}
		h.hold(nodeWith("10.244.1.0/24"))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- h.watch(ctx) }()
		edited := nodeWith("10.244.9.0/24")
		edited.ID = 9
		if n := h.apply(edited); n.Subnets[0].String() != "10.244.1.0/24" || n.ID != 7 {
			t.Errorf("%+v", n)
		}
		if p := h.problems(); len(p) != 1 || p[0].Object != "Node/n" || !strings.Contains(p[0].Message, "the annotation says [10.244.9.0/24], and the node's pods have addresses of [10.244.1.0/24]") {
			t.Errorf("%+v", p)
		}
		<-time.After(adoptAfter / 2)
		h.apply(nodeWith("10.244.1.0/24"))
		if p := h.problems(); len(p) != 0 {
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
		h := &holding{}
		h.hold(nodeWith("10.244.1.0/24"))
		h.apply(nodeWith(""))
		h.apply(nodeWith("10.244.9.0/24"))
		began := time.Now()
		err := h.watch(t.Context())
		if err == nil || !strings.Contains(err.Error(), "the node's subnets are [10.244.9.0/24] now") || time.Since(began) < adoptAfter {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestANodeAddedAnewIsAdoptedAtOnce: what a Node is given after its deletion is no edit.
func TestANodeAddedAnewIsAdoptedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &holding{}
		h.hold(nodeWith("10.244.1.0/24"))
		h.gone = true
		h.apply(nodeWith("10.244.9.0/24"))
		began := time.Now()
		if err := h.watch(t.Context()); err == nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
