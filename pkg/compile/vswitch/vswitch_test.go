package vswitch_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile/vswitch"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func testHost() *intent.Host {
	return &intent.Host{
		Node: "node1", Chassis: "c1", Datapath: intent.UserspaceDatapath, Bridge: "br-ex", NIC: "eth0",
		BridgeMAC: "02:00:00:00:00:01", BridgeMTU: 1500, Remote: "unix:/run/ovn/ovnsb_db.sock",
		EncapIPs: []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd00::2")},
	}
}

func compile(objects ...intent.Object) rows.Output {
	s := intent.NewStore()
	for _, o := range objects {
		s.Put(o)
	}
	return vswitch.Compile(intent.NewView(s), "node1")
}

func testNode(subnets ...string) *intent.Node {
	n := &intent.Node{Name: "node1", Zone: "node1"}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

func value(t *testing.T, out rows.Output, table rows.Table, id, column string) string {
	t.Helper()
	for _, r := range out.Rows {
		if r.Ref != (rows.Ref{Table: table, ID: id}) {
			continue
		}
		v, _ := r.Column(column)
		if len(v) != 1 {
			return ""
		}
		return v[0].Key.String() + v[0].Value.String()
	}
	t.Fatalf("no %s(%s)", table, id)
	return ""
}

func setting(out rows.Output, column, key string) string {
	for _, e := range out.Edges {
		if e.Column == column && e.Key.Str == key {
			return e.Value.Str
		}
	}
	return ""
}

func TestEveryRowFitsTheSchema(t *testing.T) {
	out := compile(&intent.Cluster{MTU: 1400}, testHost(), testNode("10.244.1.0/24", "fd00:10:244:1::/64"))
	for _, r := range out.Rows {
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, e := range out.Edges {
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
	}
	if n := len(out.Rows); n != 10 {
		t.Errorf("rows found %d, wanted 10: two bridges, four ports, four interfaces", n)
	}
}

func TestUserspaceNode(t *testing.T) {
	out := compile(&intent.Cluster{MTU: 1400}, testHost(), testNode("10.244.1.0/24"))
	for _, w := range []struct{ table, id, column, want string }{
		{"Bridge", "br-int", "datapath_type", `"netdev"`},
		{"Bridge", "br-int", "fail_mode", `"secure"`},
		{"Bridge", "br-ex", "fail_mode", `"standalone"`},
		{"Bridge", "br-ex", "other_config", `"hwaddr""02:00:00:00:00:01"`},
		{"Interface", "br-ex", "mtu_request", "1500"},
		{"Interface", "eth0", "type", ""},
		{"Interface", "ovn-k8s-mp0", "type", `"internal"`},
		{"Interface", "ovn-k8s-mp0", "mtu_request", "1400"},
		{"Interface", "ovn-k8s-mp0", "mac", `"0a:58:0a:f4:01:02"`},
		{"Interface", "ovn-k8s-mp0", "external_ids", `"iface-id""k8s-node1"`},
	} {
		if got := value(t, out, rows.Table("OVS:"+w.table), w.id, w.column); got != w.want {
			t.Errorf("%s %s %s: found %s, wanted %s", w.table, w.id, w.column, got, w.want)
		}
	}
	for key, want := range map[string]string{
		"system-id": "c1", "hostname": "node1", "ovn-encap-ip": "172.18.0.2,fd00::2", "ovn-encap-ip-default": "172.18.0.2", "ovn-is-interconn": "true",
		"ovn-bridge-mappings": "physnet:br-ex", "ovn-bridge-datapath-type": "netdev", "ovn-monitor-all": "true",
		"ovn-ofctrl-wait-before-clear": "5000", "ovn-set-local-ip": "true",
	} {
		if got := setting(out, "external_ids", key); got != want {
			t.Errorf("external_ids:%s: found %q, wanted %q", key, got, want)
		}
	}
}

func TestIPv6OnlyNodeHasADerivedMAC(t *testing.T) {
	out := compile(&intent.Cluster{}, testHost(), testNode("fd00:10:244:1::/64"))
	got := value(t, out, "OVS:Interface", "ovn-k8s-mp0", "mac")
	if len(got) != len(`"0a:58:00:00:00:00"`) || got[:7] != `"0a:58:` {
		t.Errorf("mac found %s, wanted 0a:58:…", got)
	}
}

func TestGlobalZoneIsNotInterconnected(t *testing.T) {
	out := compile(&intent.Cluster{GlobalZone: true}, testHost())
	if got := setting(out, "external_ids", "ovn-is-interconn"); got != "" {
		t.Errorf("ovn-is-interconn found %q, wanted none", got)
	}
}

func TestForeignBridgeIsOnlyMapped(t *testing.T) {
	h := testHost()
	h.Bridge, h.NIC = "br-foreign", ""
	out := compile(&intent.Cluster{}, h)
	for _, r := range out.Rows {
		if r.ID == "br-foreign" {
			t.Errorf("found %v, wanted no row of a bridge that is not ours", r.Ref)
		}
	}
	if got := setting(out, "external_ids", "ovn-bridge-mappings"); got != "physnet:br-foreign" {
		t.Errorf("ovn-bridge-mappings found %q", got)
	}
}

func TestUnknownMachineIsLeftAlone(t *testing.T) {
	for _, objects := range [][]intent.Object{{}, {testHost()}, {&intent.Cluster{}, testNode("10.244.1.0/24")}} {
		if out := compile(objects...); len(out.Rows)+len(out.Edges) > 0 {
			t.Errorf("found %v, wanted nothing", out)
		}
	}
}

func TestNodeWithoutSubnetHasNoManagementPort(t *testing.T) {
	for _, r := range compile(&intent.Cluster{}, testHost(), testNode()).Rows {
		if r.ID == "ovn-k8s-mp0" {
			t.Errorf("found %v, wanted none before the node has a subnet", r.Ref)
		}
	}
}

func TestSettingsNamesEveryKey(t *testing.T) {
	for _, mode := range []intent.OffloadMode{"", intent.OffloadOff, intent.OffloadHardware} {
		plan := &intent.Cluster{Offload: intent.Offload{Mode: mode}}
		ids, config := vswitch.Settings(plan)
		for _, e := range compile(plan, testHost()).Edges {
			if keys := map[string][]string{"external_ids": ids, "other_config": config}[e.Column]; !slices.Contains(keys, e.Key.Str) {
				t.Errorf("%s:%s is written and not listed", e.Column, e.Key.Str)
			}
		}
		if mode == "" && slices.Contains(config, "hw-offload") {
			t.Error("hw-offload is not ours where the plan says nothing of it, and is cleaned away")
		}
	}
}

// TestOffload has the settings that vswitchd reads when it starts.
func TestOffload(t *testing.T) {
	smart := intent.Labels{{Key: "nic", Op: intent.In, Values: []string{"smart"}}}
	node := testNode("10.244.1.0/24")
	labelled := *node
	labelled.Labels = map[string]string{"nic": "smart"}
	for _, test := range []struct {
		plan                intent.Offload
		node                *intent.Node
		hwOffload, tcPolicy string
	}{
		{intent.Offload{}, node, "", ""},
		{intent.Offload{Mode: intent.OffloadOff}, node, "false", "none"},
		{intent.Offload{Mode: intent.OffloadHardware}, node, "true", "none"},
		{intent.Offload{Mode: intent.OffloadHardwareOnly}, node, "true", "skip_sw"},
		{intent.Offload{Mode: intent.OffloadSoftware}, node, "true", "skip_hw"},
		{intent.Offload{Mode: intent.OffloadHardware, Nodes: smart}, node, "", ""},
		{intent.Offload{Mode: intent.OffloadHardware, Nodes: smart}, &labelled, "true", "none"},
	} {
		got := map[string]string{}
		for _, e := range compile(&intent.Cluster{Offload: test.plan}, testHost(), test.node).Edges {
			if e.Column == "other_config" {
				got[e.Key.Str] = e.Value.Str
			}
		}
		if got["hw-offload"] != test.hwOffload || got["tc-policy"] != test.tcPolicy {
			t.Errorf("%+v on %v: found %v, wanted hw-offload %q and tc-policy %q", test.plan, test.node.Labels, got, test.hwOffload, test.tcPolicy)
		}
	}
}

// TestPhysicalNetworks has one with a NIC, which gets a bridge, and one on a bridge
// that is there: that is only mapped.
func TestPhysicalNetworks(t *testing.T) {
	h := testHost()
	made := intent.PhysicalBridgeName("a-physical-network-with-a-long-name")
	h.PhysicalBridges = []intent.PhysicalBridge{
		{Network: "a-physical-network-with-a-long-name", Bridge: made, NIC: "eth1"}, {Network: "storage", Bridge: "br-storage"},
	}
	out := compile(&intent.Cluster{}, h, testNode("10.244.1.0/24"))
	if made != "br-c9ba965bba6f" {
		t.Errorf("bridge found %q, wanted the name that it had in earlier releases", made)
	}
	for _, w := range []struct{ table, id, column, want string }{
		{"Bridge", made, "datapath_type", `"netdev"`},
		{"Bridge", made, "fail_mode", `"standalone"`},
		{"Bridge", made, "external_ids", `"portolan/physical-network""a-physical-network-with-a-long-name"`},
		{"Interface", made, "type", `"internal"`},
		{"Interface", "eth1", "type", ""},
	} {
		if got := value(t, out, rows.Table("OVS:"+w.table), w.id, w.column); got != w.want {
			t.Errorf("%s %s %s: found %s, wanted %s", w.table, w.id, w.column, got, w.want)
		}
	}
	for _, r := range out.Rows {
		if r.ID == "br-storage" {
			t.Errorf("found %v, wanted no row of a bridge that is not ours", r.Ref)
		}
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	want := "physnet:br-ex,a-physical-network-with-a-long-name:" + made + ",storage:br-storage"
	if got := setting(out, "external_ids", "ovn-bridge-mappings"); got != want {
		t.Errorf("ovn-bridge-mappings found %q, wanted %q", got, want)
	}
}
