package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// What pods may broadcast on a layer2 network, all of a node's together, in kbit/s:
// a broadcast is copied to every remote port (decision 24), and some 1,500 ARP
// requests a second are more than any pod needs.
const (
	broadcastRate     = 1000
	broadcastBurst    = 1000
	broadcastPriority = 100
)

// Network makes what a network other than the default has in a zone once, while
// pods of the zone use it. Without a zone, in the manager, it finds problems only.
func Network(v *intent.View, name string) rows.Output {
	var out rows.Output
	c, n, ok := network(v, name)
	if !ok {
		return out
	}
	present := c.Zone != "" && v.Present(c, name)
	if c.Zone != "" && !present {
		return out
	}
	refused := v.Refused(c, n)
	warn(&out, v, c, n, refused)
	if refused != nil || !present {
		return out
	}
	switch n.Topology {
	case intent.Layer3:
		f := fabricOf(c, n)
		f.addRouter(&out, false, nil)
		if !c.GlobalZone {
			f.addTransit(&out)
		}
	case intent.Layer2:
		layer2(&out, c, n)
	case intent.Localnet:
		localnet(&out, n)
	}
	return out
}

// network returns the plan and a network that is not the default one, whose parts
// Cluster and Node make.
func network(v *intent.View, name string) (*intent.Cluster, *intent.Network, bool) {
	if name == intent.DefaultNetwork {
		return nil, nil, false
	}
	c, ok := v.Cluster()
	if !ok {
		return nil, nil, false
	}
	n, ok := intent.Get[*intent.Network](v, intent.Key{Kind: intent.KindNetwork, Name: name})
	return c, n, ok
}

// warn says what is wrong with a network.
func warn(out *rows.Output, v *intent.View, c *intent.Cluster, n *intent.Network, refused *intent.Refusal) {
	problem := func(severity rows.Severity, field, format string, args ...any) {
		out.Problems = append(out.Problems, rows.Problem{
			Object: n.Key().String(), Field: field, Severity: severity, Message: fmt.Sprintf(format, args...),
		})
	}
	if refused != nil {
		problem(rows.Error, refused.Field, "%s", refused.Message)
	}
	if n.Topology != intent.Localnet && c.MTU != 0 && n.MTU > c.MTU {
		problem(rows.Error, "spec.mtu", "MTU %d is above %d, which is what is left of the nodes' MTU inside of a tunnel: larger packets are lost between nodes; set mtu to %d or less, or leave it out", n.MTU, c.MTU, c.MTU)
	}
	if s, other := v.Overlapping(n); other != nil {
		problem(rows.Warning, "spec.subnets", "subnet %s overlaps network %q: the two are isolated, but a pod on both cannot tell their addresses apart; choose another subnet if pods are to join both", s, other.Name)
	}
}

// layer2 adds the switch of a layer2 network. Where addresses are known nothing is
// flooded that nobody asked for; where they are not it is a switch that learns.
func layer2(out *rows.Output, c *intent.Cluster, n *intent.Network) {
	name := rows.Layer2Switch(n.Name)
	config := map[string]string{}
	if !c.GlobalZone {
		config["interconn-ts"] = name
		config["requested-tnl-key"] = strconv.Itoa(keyOf(c, n.ID))
	}
	if len(n.Subnets) > 0 {
		config["mcast_snoop"] = "true"
		config["mcast_querier"] = "false"
		config["mcast_flood_unregistered"] = "false"
	}
	sw := out.Add(rows.New("NB:Logical_Switch", name, map[string]rows.Value{
		"name": rows.Str(name), "other_config": rows.Map(config), "external_ids": rows.Map(tags(n)),
	}))
	if len(n.Subnets) > 0 {
		noDHCPServers(out, sw)
	}
	match := rows.Broadcast()
	out.Add(rows.Child("NB:QoS", name+"/broadcast", sw, "qos_rules", map[string]rows.Value{
		"direction": rows.Str("from-lport"), "priority": rows.Num(broadcastPriority), "match": rows.Str(match.String()),
		"bandwidth": rows.Nums(map[string]int64{"rate": broadcastRate, "burst": broadcastBurst}),
	}).Using(match.Uses()...))
}

// localnet adds the switch of a localnet, and its port to the wire. What comes from
// there has addresses that nobody has told us.
func localnet(out *rows.Output, n *intent.Network) {
	name := rows.LocalnetSwitch(n.Name)
	sw := out.Add(rows.New("NB:Logical_Switch", name, map[string]rows.Value{
		"name": rows.Str(name), "external_ids": rows.Map(tags(n)),
	}))
	if len(n.Subnets) > 0 {
		noDHCPServers(out, sw)
	}
	port := rows.LocalnetSwitchPort(n.Name)
	columns := map[string]rows.Value{
		"name": rows.Str(port), "type": rows.Str("localnet"), "addresses": rows.Str("unknown"),
		"options": rows.Map(map[string]string{"network_name": n.Wire()}),
	}
	if n.VLAN != 0 {
		columns["tag_request"] = rows.Num(int64(n.VLAN))
	}
	out.Add(rows.Child("NB:Logical_Switch_Port", port, sw, "ports", columns))
}

// Presence makes what one node of the zone adds to a network that its pods use; key
// is "node/network".
func Presence(v *intent.View, key string) rows.Output {
	var out rows.Output
	node, name, _ := strings.Cut(key, "/")
	if _, ok := v.Get(intent.PresenceKey(name, node)); !ok {
		return out
	}
	c, n, ok := network(v, name)
	if !ok || c.Zone == "" {
		return out
	}
	at, ok := v.Node(node)
	if !ok || at.Zone != c.Zone || v.Refused(c, n) != nil {
		return out
	}
	switch n.Topology {
	case intent.Localnet:
		offWire(&out, v, n, at)
	case intent.Layer3:
		block, ok := v.LeaseOf(name, node)
		if !ok {
			return out
		}
		if p, ok := siteOf(fabricOf(c, n), at, block.Subnets); ok {
			p.addSwitch(&out, nil)
			if !c.GlobalZone {
				p.plug(&out)
			}
		}
	}
	return out
}

// offWire says that a node with pods of a localnet is not on its wire.
func offWire(out *rows.Output, v *intent.View, n *intent.Network, node *intent.Node) {
	wire, ok := intent.Get[*intent.PhysicalNetwork](v, intent.Key{Kind: intent.KindPhysicalNetwork, Name: n.Wire()})
	if !ok || wire.Nodes.Matches(node.Labels) {
		return
	}
	out.Problems = append(out.Problems, rows.Problem{
		Object: n.Key().String(), Field: "spec.physicalNetworkName", Severity: rows.Error,
		Message: fmt.Sprintf("node %s has pods of the network, but PhysicalNetwork %q does not select it: they reach nothing but each other; label the node %s, or keep the pods off it", node.Name, wire.Name, wire.Nodes),
	})
}

// Block makes what a part of a network that is on nodes of other zones leaves in
// this one, while this one uses the network; key is "slot/network".
func Block(v *intent.View, key string) rows.Output {
	var out rows.Output
	b, ok := intent.Get[*intent.Block](v, intent.Key{Kind: intent.KindBlock, Name: key})
	if !ok {
		return out
	}
	c, n, ok := network(v, b.Network)
	if !ok || c.Zone == "" || c.GlobalZone || !v.Present(c, n.Name) || v.Refused(c, n) != nil {
		return out
	}
	switch n.Topology {
	case intent.Layer3:
		node, ok := elsewhere(v, c, b.Node)
		if !ok {
			return out
		}
		// The first of several blocks of a node is in force, here as at home.
		if first, ok := v.LeaseOf(n.Name, b.Node); !ok || first.Slot != b.Slot {
			return out
		}
		if p, ok := siteOf(fabricOf(c, n), node, b.Subnets); ok {
			p.far(&out)
		}
	case intent.Layer2:
		for _, e := range b.Entries {
			if !superseded(v, c, b, e) {
				farPort(&out, v, c, b, e)
			}
		}
	}
	return out
}

// elsewhere is a node of another zone that tunnels can go to.
func elsewhere(v *intent.View, c *intent.Cluster, name string) (*intent.Node, bool) {
	node, ok := v.Node(name)
	return node, ok && node.Zone != c.Zone && node.Chassis != "" && len(node.EncapIPs) > 0
}

// farPort adds the port of a pod of another zone.
func farPort(out *rows.Output, v *intent.View, c *intent.Cluster, b *intent.Block, e intent.BlockEntry) {
	host := e.Node
	if host == "" {
		host = b.Node
	}
	namespace, pod, _ := strings.Cut(e.Pod, "/")
	node, ok := elsewhere(v, c, host)
	if !ok || e.Pod == "" || e.MAC == "" {
		return
	}
	addresses := []string{e.MAC}
	for _, a := range e.Addresses {
		addresses[0] += " " + a.Addr().String()
	}
	if len(e.Addresses) == 0 {
		addresses = append(addresses, "unknown")
	}
	name := rows.AttachmentPort(e.Network, namespace, pod)
	sw := rows.Ref{Table: "NB:Logical_Switch", ID: rows.Layer2Switch(b.Network)}
	// The id is not the name: the pod's own port may follow, when it moves here.
	id := fmt.Sprintf("%s/remote/%d/%s", sw.ID, e.Key, e.UID)
	out.Add(rows.Child("NB:Logical_Switch_Port", id, sw, "ports", map[string]rows.Value{
		"name": rows.Str(name), "type": rows.Str("remote"), "addresses": rows.Strings(addresses...),
		"options": rows.Map(map[string]string{
			"requested-tnl-key": strconv.Itoa(e.Key), "requested-chassis": chassisOf(node, e.Encap),
		}),
		"external_ids": rows.Map(map[string]string{
			"namespace": namespace, "k8s.ovn.org/network": b.Network, "k8s.ovn.org/nad": intent.DefinitionOf(e.Network), "node": host,
		}),
	}))
}

// chassisOf is the chassis of a remote node that has a tunnel address: the node's own
// for none, and while the node does not say that it has the address.
func chassisOf(node *intent.Node, encap netip.Addr) string {
	if i := slices.Index(node.EncapIPs, encap); i > 0 {
		return rows.TunnelChassis(node.Chassis, encap)
	}
	return node.Chassis
}

// superseded tells whether a port's name is another's: the pod of that name is in
// this zone now, or an entry that goes first has it. A pod that was re-created on
// another node has two entries until the old one is taken back.
func superseded(v *intent.View, c *intent.Cluster, b *intent.Block, e intent.BlockEntry) bool {
	if p, ok := intent.Get[*intent.Pod](v, intent.Key{Kind: intent.KindPod, Name: e.Pod}); ok {
		if node, ok := v.Node(p.Node); ok && node.Zone == c.Zone {
			return true
		}
	}
	for o := range v.Each(intent.BlocksByPort, e.Port()) {
		for _, f := range o.(*intent.Block).Entries {
			if f.Port() == e.Port() && o.(*intent.Block).Network == b.Network {
				return f.Key != e.Key
			}
		}
	}
	return false
}
