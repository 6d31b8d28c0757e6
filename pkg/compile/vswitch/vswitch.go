package vswitch

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The tables written here.
const (
	tableOVS       rows.Table = "OVS:Open_vSwitch"
	tableBridge    rows.Table = "OVS:Bridge"
	tablePort      rows.Table = "OVS:Port"
	tableInterface rows.Table = "OVS:Interface"
)

const (
	// defaultWaitBeforeClear is OVN's advice for large zones where the first
	// computation has not been measured yet, in milliseconds.
	defaultWaitBeforeClear = 5000
	// A switch that hears nothing for this long drops the connection, and an
	// OpenFlow bundle that idles longer is thrown away; a recomputation of a large
	// zone takes longer than OVS's default of 10 s. In seconds.
	openflowProbe = 180
	// sbProbe is the inactivity probe towards the SB database, in milliseconds.
	sbProbe = 100000
)

var root = rows.Ref{Table: tableOVS, ID: rows.Singleton}

// Compile is the unit ovs/NODE: key is the name of the node that has this
// Open_vSwitch database. Without its Host it says nothing, so that a database
// of a machine that is not known yet is left alone.
func Compile(v *intent.View, key string) rows.Output {
	var out rows.Output
	host, ok := intent.Get[*intent.Host](v, intent.Key{Kind: intent.KindHost, Name: key})
	if !ok {
		return out
	}
	cluster, ok := v.Cluster()
	if !ok {
		return out
	}
	br := addBridge(&out, host, intent.IntegrationBridge, map[string]rows.Value{"fail_mode": rows.Str("secure")})
	if node, ok := v.Node(key); ok && len(node.Subnets) > 0 {
		addManagement(&out, br, cluster, host, node)
	}
	if host.NIC != "" {
		addGateway(&out, host)
	}
	for _, p := range host.PhysicalBridges {
		if p.NIC != "" {
			addPhysical(&out, host, p)
		}
	}
	node, _ := v.Node(key)
	addSettings(&out, cluster, host, node)
	return out
}

// addBridge adds a bridge with its local port, which OVS would make up without
// a row, leaving nowhere to say or read anything of it.
func addBridge(out *rows.Output, host *intent.Host, name string, columns map[string]rows.Value) rows.Ref {
	columns["name"] = rows.Str(name)
	columns["datapath_type"] = rows.Str(string(host.Datapath))
	br := out.Add(rows.Child(tableBridge, name, root, "bridges", columns))
	local := map[string]rows.Value{"type": rows.Str("internal")}
	if name == host.Bridge && host.BridgeMTU > 0 {
		local["mtu_request"] = rows.Num(int64(host.BridgeMTU))
	}
	addPort(out, br, name, local)
	return br
}

// addPort adds a port with its one interface, both of the same name.
func addPort(out *rows.Output, br rows.Ref, name string, iface map[string]rows.Value) {
	port := out.Add(rows.Child(tablePort, name, br, "ports", map[string]rows.Value{"name": rows.Str(name)}))
	iface["name"] = rows.Str(name)
	out.Add(rows.Child(tableInterface, name, port, "interfaces", iface))
}

// addGateway adds the bridge that takes the NIC's place: its MAC, and the NIC.
// Standalone, so that the node stays reachable while nobody loads flows.
func addGateway(out *rows.Output, host *intent.Host) {
	br := addBridge(out, host, host.Bridge, map[string]rows.Value{
		"fail_mode":    rows.Str("standalone"),
		"other_config": rows.Map(map[string]string{"hwaddr": host.BridgeMAC}),
	})
	addPort(out, br, host.NIC, map[string]rows.Value{})
}

// physicalTag names, in a bridge's external_ids, the PhysicalNetwork it is made for.
const physicalTag = "portolan/physical-network"

// addPhysical adds the bridge between a PhysicalNetwork's NIC and br-int. It is a
// switch without flows of ours: standalone, so that vswitchd learns by itself.
func addPhysical(out *rows.Output, host *intent.Host, p intent.PhysicalBridge) {
	br := addBridge(out, host, p.Bridge, map[string]rows.Value{
		"fail_mode":    rows.Str("standalone"),
		"external_ids": rows.Map(map[string]string{physicalTag: p.Network}),
	})
	addPort(out, br, p.NIC, map[string]rows.Value{})
}

// mappings are ovn-bridge-mappings: the gateway's, and the physical networks'.
func mappings(host *intent.Host) string {
	list := []string{intent.GatewayNetwork + ":" + host.Bridge}
	for _, p := range host.PhysicalBridges {
		list = append(list, p.Network+":"+p.Bridge)
	}
	return strings.Join(list, ",")
}

// addManagement adds the port that joins the host to the pod network: Open vSwitch's own,
// or the representor of a function.
func addManagement(out *rows.Output, br rows.Ref, cluster *intent.Cluster, host *intent.Host, node *intent.Node) {
	if host.Management == "" {
		addPort(out, br, intent.ManagementPort, managementColumns(cluster, node))
		return
	}
	addPort(out, br, host.Management, map[string]rows.Value{
		"external_ids": rows.Map(map[string]string{"iface-id": rows.MgmtLSP(node.Name), "vf-netdev-name": intent.ManagementPort}),
	})
}

// managementColumns describes the port that joins the host to the pod network.
func managementColumns(cluster *intent.Cluster, node *intent.Node) map[string]rows.Value {
	columns := map[string]rows.Value{
		"type":         rows.Str("internal"),
		"external_ids": rows.Map(map[string]string{"iface-id": "k8s-" + node.Name}),
		"mac":          rows.Str(managementMAC(node)),
	}
	if cluster.MTU > 0 {
		columns["mtu_request"] = rows.Num(int64(cluster.MTU))
	}
	return columns
}

// addSettings adds what ovn-controller and vswitchd read from the singleton.
// Keys that are not named here are not ours.
func addSettings(out *rows.Output, cluster *intent.Cluster, host *intent.Host, node *intent.Node) {
	for key, val := range externalIDs(cluster, host) {
		if val != "" {
			out.Link(rows.Entry(root, "external_ids", key, val))
		}
	}
	for key, val := range otherConfig(offloadOf(cluster, node)) {
		if val != "" {
			out.Link(rows.Entry(root, "other_config", key, val))
		}
	}
	slices.SortFunc(out.Edges, rows.Edge.Compare)
}

// externalIDs are ovn-controller's settings (decision 21); "" means unset.
func externalIDs(cluster *intent.Cluster, host *intent.Host) map[string]string {
	ids := map[string]string{
		"system-id":                    host.Chassis,
		"hostname":                     host.Node,
		"ovn-remote":                   host.Remote,
		"ovn-encap-type":               "geneve",
		"ovn-encap-ip":                 joinAddrs(host.EncapIPs),
		"ovn-encap-ip-default":         joinAddrs(host.EncapIPs[:min(1, len(host.EncapIPs))]),
		"ovn-is-interconn":             "true", // or no tunnel is made to chassis of other zones
		"ovn-set-local-ip":             "true",
		"ovn-monitor-all":              "true",
		"ovn-ofctrl-wait-before-clear": strconv.Itoa(waitBeforeClear(host)),
		"ovn-remote-probe-interval":    strconv.Itoa(sbProbe),
		"ovn-openflow-probe-interval":  strconv.Itoa(openflowProbe),
		"ovn-bridge-mappings":          mappings(host),
		"ovn-bridge-datapath-type":     string(host.Datapath),
	}
	if cluster.GlobalZone {
		ids["ovn-is-interconn"] = ""
	}
	return ids
}

// offloadOf is the plan's mode for a node; "": nothing is said of this one.
func offloadOf(cluster *intent.Cluster, node *intent.Node) intent.OffloadMode {
	o := cluster.Offload
	if len(o.Nodes) > 0 && (node == nil || !o.For(node)) {
		return ""
	}
	return o.Mode
}

// otherConfig are vswitchd's settings; "" means unset. hw-offload and tc-policy are left
// to whoever set them where the plan says nothing; after a restart nobody knows that
// they were ours, so that "off" has values too.
func otherConfig(offload intent.OffloadMode) map[string]string {
	config := map[string]string{"bundle-idle-timeout": strconv.Itoa(openflowProbe), "hw-offload": "", "tc-policy": ""}
	switch offload {
	case intent.OffloadOff:
		config["hw-offload"], config["tc-policy"] = "false", "none"
	case intent.OffloadHardware:
		config["hw-offload"], config["tc-policy"] = "true", "none"
	case intent.OffloadHardwareOnly:
		config["hw-offload"], config["tc-policy"] = "true", "skip_sw"
	case intent.OffloadSoftware:
		config["hw-offload"], config["tc-policy"] = "true", "skip_hw"
	}
	return config
}

// Settings lists every key of external_ids and other_config of the Open_vSwitch row that
// this unit may write under a plan, sorted: what a node is cleaned of.
func Settings(plan *intent.Cluster) (ids, config []string) {
	for key, val := range otherConfig(plan.Offload.Mode) {
		if val != "" {
			config = append(config, key)
		}
	}
	slices.Sort(config)
	return slices.Sorted(maps.Keys(externalIDs(plan, &intent.Host{}))), config
}

func waitBeforeClear(host *intent.Host) int {
	if host.WaitBeforeClear > 0 {
		return host.WaitBeforeClear
	}
	return defaultWaitBeforeClear
}

func joinAddrs(addrs []netip.Addr) string {
	ss := make([]string, len(addrs))
	for i, a := range addrs {
		ss[i] = a.String()
	}
	return strings.Join(ss, ",")
}

// managementMAC is the management port's MAC: as annotated, else derived from
// its address, the second of the node's first subnet.
func managementMAC(node *intent.Node) string {
	if node.MgmtMAC != "" {
		return node.MgmtMAC
	}
	return rows.MAC(node.Subnets[0].Masked().Addr().Next().Next())
}
