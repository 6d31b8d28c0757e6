package host

import (
	"net/netip"
	"strings"
	"testing"
)

func TestPlansThatTheMachineIsIn(t *testing.T) {
	net := func(field, cidr string) []Planned {
		return []Planned{{Field: field, Nets: []netip.Prefix{netip.MustParsePrefix(cidr)}}}
	}
	g := Gateway{NIC: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/8")},
		Routes: []NICRoute{{Route: Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.9.0.1")}}}}
	for _, c := range []struct {
		plan           []Planned
		refused, warns string
	}{
		{plan: net("spec.clusterSubnets", "10.0.0.0/16"), refused: "NIC eth0 is not taken over: its address 10.0.0.5/8 is in 10.0.0.0/16 of spec.clusterSubnets. Choose another", warns: "overlaps"},
		{plan: net("spec.serviceSubnets", "10.9.0.0/16"), refused: "its next hop 10.9.0.1 is in 10.9.0.0/16 of spec.serviceSubnets", warns: "overlaps"},
		{plan: net("spec.joinSubnets", "10.244.0.0/16"), warns: "10.244.0.0/16 of the Cluster file overlaps 10.0.0.0/8, the network of NIC eth0"},
		{plan: net("spec.transitSubnets", "100.88.0.0/16")},
	} {
		err := g.CheckPlan(c.plan)
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%v: %v", c.plan, err)
		}
		warnings := g.CheckNear("n", c.plan)
		if (len(warnings) == 0) != (c.warns == "") || len(warnings) > 0 && (!strings.Contains(warnings[0].Message, c.warns) || warnings[0].Field != c.plan[0].Field) {
			t.Errorf("%v: %v", c.plan, warnings)
		}
	}
}
