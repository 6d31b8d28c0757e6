package plan

import (
	"net/netip"
	"slices"
	"testing"
)

func TestThreeNodesAreAddressedAsInKind(t *testing.T) {
	p := Of(Options{Nodes: 3, Zone: "node", Families: IPv4, CNI: NoCNI})
	want := map[string]string{"ovn-control-plane": "172.18.0.3/16", "ovn-worker": "172.18.0.2/16", "ovn-worker2": "172.18.0.4/16"}
	if len(p.Machines) != len(want) {
		t.Fatalf("%d nodes, want %d", len(p.Machines), len(want))
	}
	for _, n := range p.Machines {
		if got := n.Addrs[0].String(); got != want[n.Name] || len(n.Addrs) != 1 {
			t.Errorf("%s has %v, want %s", n.Name, n.Addrs, want[n.Name])
		}
		if n.ControlPlane != (n.Name == "ovn-control-plane") {
			t.Errorf("%s: control plane %v", n.Name, n.ControlPlane)
		}
	}
	if got := p.API().String(); got != "172.18.0.3:6443" {
		t.Errorf("API at %s", got)
	}
	if got := p.Client.Addrs[0].Addr().String(); got != "172.18.0.100" {
		t.Errorf("client at %s", got)
	}
}

func TestFamiliesGoThroughEveryAddressList(t *testing.T) {
	for families, want := range map[string][]bool{IPv4: {true}, IPv6: {false}, Dual: {true, false}} {
		p := Of(Options{Nodes: 2, Zone: "node", Families: families, CNI: NoCNI})
		lists := [][]netip.Prefix{p.PodCIDRs, p.ServiceCIDRs, p.Gateways, p.Client.Addrs, p.Machines[1].Addrs, p.Machines[1].PodCIDRs}
		for i, list := range lists {
			var got []bool
			for _, prefix := range list {
				got = append(got, prefix.Addr().Is4())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: list %d is %v", families, i, list)
			}
		}
	}
}

func TestNoAddressOrMACTwice(t *testing.T) {
	p := Of(Options{Nodes: MaxNodes, Zone: "node", Families: Dual, CNI: NoCNI})
	seen := map[string]string{}
	add := func(what, who string) {
		if other, ok := seen[what]; ok {
			t.Errorf("%s belongs to %s and %s", what, other, who)
		}
		seen[what] = who
	}
	for _, g := range p.Gateways {
		add(g.String(), "gateway")
	}
	hosts := []Host{p.Client}
	for _, w := range p.Wire {
		hosts = append(hosts, w.Host)
	}
	for _, n := range p.Machines {
		hosts = append(hosts, n.Host)
		add(n.LANMAC, n.Name)
		for _, c := range n.PodCIDRs {
			add(c.String(), n.Name)
			if !slices.ContainsFunc(p.PodCIDRs, func(all netip.Prefix) bool { return all.Overlaps(c) }) {
				t.Errorf("%s of %s lies outside %v", c, n.Name, p.PodCIDRs)
			}
		}
	}
	for _, h := range hosts {
		add(h.MAC, h.Name)
		for _, a := range h.Addrs {
			add(a.String(), h.Name)
		}
	}
}

func TestValidateNamesTheChoice(t *testing.T) {
	good := Options{Nodes: 3, Zone: "node", Families: Dual, CNI: Portolan}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []Options{
		{Nodes: 0, Zone: "node", Families: Dual, CNI: Portolan},
		{Nodes: 3, Zone: "cell", Families: Dual, CNI: Portolan},
		{Nodes: 3, Zone: "node", Families: "v4", CNI: Portolan},
		{Nodes: 3, Zone: "node", Families: Dual, CNI: "other"},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v passed", bad)
		}
	}
}
