package host_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

func mustPrefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func testGateway() host.Gateway {
	return host.Gateway{
		NIC: "eth0", Bridge: "br-ex", Virtual: true, MAC: "02:00:00:00:00:02", MTU: 1500,
		Addresses: mustPrefixes("172.18.0.2/24", "fd00::2/64"),
		Routes: []host.NICRoute{
			{Route: host.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: "eth0", Gateway: netip.MustParseAddr("172.18.0.9"), Metric: 200}},
			{Route: host.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: "eth0", Gateway: netip.MustParseAddr("172.18.0.1")}},
			{Route: host.Route{Dst: netip.MustParsePrefix("::/0"), Link: "eth0", Gateway: netip.MustParseAddr("fd00::1")}},
		},
	}
}

var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func TestDeclareOnUserspace(t *testing.T) {
	m := host.Management{Subnets: mustPrefixes("10.244.1.0/24", "fd10:1::/64"), PodSubnets: mustPrefixes("10.244.0.0/16", "fd10::/48"), MTU: 1400}
	c := host.Declare(testGateway(), m, intent.UserspaceDatapath)
	wantLinks := []host.Link{
		{Name: "eth0", TxChecksumOff: true},
		{Name: "br-ex", MAC: "02:00:00:00:00:02", Addresses: mustPrefixes("172.18.0.2/24", "fd00::2/64")},
		{Name: "ovn-k8s-mp0", MTU: 1400, Addresses: mustPrefixes("10.244.1.2/24", "fd10:1::2/64")},
	}
	if d := cmp.Diff(wantLinks, c.Links, byValue); d != "" {
		t.Errorf("links (-wanted +found):\n%s", d)
	}
	last := c.Routes[len(c.Routes)-2:]
	wantRoutes := []host.Route{
		{Dst: netip.MustParsePrefix("10.244.0.0/16"), Link: "ovn-k8s-mp0", Gateway: netip.MustParseAddr("10.244.1.1"), Source: netip.MustParseAddr("10.244.1.2")},
		{Dst: netip.MustParsePrefix("fd10::/48"), Link: "ovn-k8s-mp0", Gateway: netip.MustParseAddr("fd10:1::1"), Source: netip.MustParseAddr("fd10:1::2")},
	}
	if d := cmp.Diff(wantRoutes, last, byValue); d != "" {
		t.Errorf("routes (-wanted +found):\n%s", d)
	}
	for _, r := range c.Routes[:3] {
		if r.Link != "br-ex" {
			t.Errorf("route %v on %s, wanted the bridge", r.Dst, r.Link)
		}
	}
	if d := cmp.Diff([]host.Hidden{{NIC: "eth0", Bridge: "br-ex"}}, c.Hidden); d != "" || !c.HideAttachments {
		t.Errorf("hidden (-wanted +found):\n%s", d)
	}
}

func TestDeclareOnTheKernelDatapathHidesNothing(t *testing.T) {
	c := host.Declare(testGateway(), host.Management{}, intent.SystemDatapath)
	if len(c.Hidden) != 0 || c.HideAttachments || c.Links[0].TxChecksumOff {
		t.Errorf("found %+v, wanted a NIC that is neither hidden nor slowed", c)
	}
	if userspace := host.Declare(testGateway(), host.Management{}, intent.UserspaceDatapath); !c.RefuseAdvertisements || userspace.RefuseAdvertisements {
		t.Error("router advertisements are refused where the kernel forwards, and only there")
	}
}

func TestDeclareLeavesAForeignBridge(t *testing.T) {
	g := testGateway()
	g.Foreign = intent.SystemDatapath
	if c := host.Declare(g, host.Management{}, intent.SystemDatapath); len(c.Links)+len(c.Routes)+len(c.Sysctls)+len(c.Hidden) > 0 {
		t.Errorf("found %+v, wanted nothing", c)
	}
}

func TestNextHopsAreTheBestOfEachFamily(t *testing.T) {
	want := []netip.Addr{netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("fd00::1")}
	if d := cmp.Diff(want, testGateway().NextHops(), byValue); d != "" {
		t.Errorf("(-wanted +found):\n%s", d)
	}
}

func TestCheckMTU(t *testing.T) {
	v4, v6 := []netip.Addr{netip.MustParseAddr("172.18.0.2")}, []netip.Addr{netip.MustParseAddr("fd00::2")}
	for _, c := range []struct {
		nic, pods int
		encap     []netip.Addr
		want      string // part of the message; "": no problem
	}{
		{1500, 1442, v4, ""},
		{1500, 1443, v4, "Geneve needs 1501"},
		{1500, 1422, v6, ""},
		{1500, 1423, v6, "Geneve needs 1501"},
		{1400, 1400, v4, "NIC eth0 has MTU 1400, pods are configured for 1400, Geneve needs 1458: "},
	} {
		g := host.Gateway{NIC: "eth0", MTU: c.nic}
		ps := g.CheckMTU("node1", c.pods, c.encap)
		switch {
		case c.want == "" && len(ps) != 0:
			t.Errorf("%+v: found %v, wanted none", c, ps)
		case c.want != "" && (len(ps) != 1 || !strings.Contains(ps[0].Message, c.want)):
			t.Errorf("%+v: found %v", c, ps)
		}
	}
}

func TestPatchPort(t *testing.T) {
	if got, want := host.PatchPort("br-ex", "node1"), "patch-br-ex_node1-to-br-int"; got != want {
		t.Errorf("found %s, wanted %s", got, want)
	}
}
