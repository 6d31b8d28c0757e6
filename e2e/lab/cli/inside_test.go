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

func TestDatabasesOfAGlobalZoneAreOnItsFirstNodes(t *testing.T) {
	o := plan.Options{Nodes: 4, Zone: "global", Families: plan.IPv4, CNI: plan.Portolan, Databases: 3}
	three := plan.Of(o)
	o.Databases = 1
	one := plan.Of(o)
	o.Zone, o.Databases = "node", 0
	none := plan.Of(o)
	for _, c := range []struct {
		p          plan.Plan
		asked, got string
		more       int
	}{
		{three, "", "ovn-control-plane", 1}, {three, "ovn-worker2", "ovn-worker2", 1}, {three, "ovn-worker3", "ovn-control-plane", 1},
		{one, "ovn-worker", "ovn-control-plane", 0}, {none, "ovn-worker3", "ovn-worker3", 0}, {none, "", "ovn-control-plane", 0},
	} {
		if got, more := server(c.p, c.asked); got != c.got || len(more) != c.more {
			t.Errorf("%d databases, node %q: on %s with %q, want %s", c.p.Databases, c.asked, got, more, c.got)
		}
	}
}
