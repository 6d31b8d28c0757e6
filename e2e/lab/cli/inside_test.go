package cli

import (
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

func TestTheClientIsANetworkOnly(t *testing.T) {
	p := plan.Of(plan.Options{Nodes: 1, Zone: "node", Families: plan.IPv4, CNI: plan.NoCNI})
	got, err := place(p, "client", []string{"ping", "-c1", "172.18.0.3"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"nsenter", "--net=/run/netns/portolan-client", "--", "ping", "-c1", "172.18.0.3"}
	if !slices.Equal(got, want) {
		t.Errorf("runs %q, want %q", got, want)
	}
	if _, err := place(p, "ovn-worker9", []string{"true"}); err == nil {
		t.Error("a node that is not in the plan was found")
	}
}
