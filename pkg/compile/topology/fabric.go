package topology

import (
	"maps"
	"net/netip"
	"strconv"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// firstKey is the first of OVN's global range of tunnel keys: the default network's
// transit switch has it, and what another network shares between zones has its id
// more. Such keys must be the same in every zone.
const firstKey = 16711683

// dhcpACLPriority stands above every policy's ACLs; tier 0 is evaluated first.
const dhcpACLPriority = 32000

// fabric is what a layer3 network has in a zone once. The default network is one,
// and has a join switch and gateways beside.
type fabric struct {
	prefix  string            // of every name; the default network's is ""
	ids     map[string]string // external_ids of switches and routers
	transit []netip.Prefix    // subnets of the transit switch
	key     int               // tunnel key of the transit switch
	mtu     int               // of pods' interfaces; 0: not known
	offload intent.Offload
}

func defaultFabric(c *intent.Cluster) fabric {
	return fabric{transit: c.TransitNets, key: keyOf(c, 0), mtu: c.MTU, offload: c.Offload}
}

// fabricOf is a secondary layer3 network's.
func fabricOf(c *intent.Cluster, n *intent.Network) fabric {
	return fabric{
		prefix: rows.NetworkPrefix(n.Name), ids: tags(n), transit: c.Transits(), key: keyOf(c, n.ID), mtu: mtuOf(c, n), offload: c.Offload,
	}
}

// keyOf is the tunnel key of the switch that a network shares between zones.
func keyOf(c *intent.Cluster, id int) int {
	if c.TransitKey != 0 {
		return c.TransitKey + id
	}
	return firstKey + id
}

// mtuOf is the MTU of a network's interfaces: no more than the tunnels take.
func mtuOf(c *intent.Cluster, n *intent.Network) int {
	if n.MTU == 0 || c.MTU != 0 && n.MTU > c.MTU {
		return c.MTU
	}
	return n.MTU
}

// tags are the external_ids of what belongs to a network.
func tags(n *intent.Network) map[string]string {
	return map[string]string{
		"k8s.ovn.org/network": n.Name, "k8s.ovn.org/topology": string(n.Topology), "k8s.ovn.org/role": "secondary",
	}
}

// name makes a name of the network's, of a kind ("stor-", "" for none) and a rest.
func (f fabric) name(kind, rest string) string { return kind + f.prefix + rest }

func (f fabric) router() rows.Ref {
	return rows.Ref{Table: "NB:Logical_Router", ID: f.name("", rows.ClusterRouter)}
}

func (f fabric) transitSwitch() rows.Ref {
	return rows.Ref{Table: "NB:Logical_Switch", ID: f.name("", rows.TransitSwitch)}
}

// addRouter adds the router between the nodes' switches.
func (f fabric) addRouter(out *rows.Output, multicast bool, ids map[string]string) {
	options := map[string]string{"always_learn_from_arp_request": "false"}
	if multicast {
		options["mcast_relay"] = "true"
	}
	all := maps.Clone(ids)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, f.ids)
	name := f.router().ID
	out.Add(rows.New("NB:Logical_Router", name, map[string]rows.Value{
		"name": rows.Str(name), "options": rows.Map(options), "external_ids": rows.Map(all), "copp": rows.Set(rows.R(copp)),
	}))
}

// addTransit adds the switch between zones.
func (f fabric) addTransit(out *rows.Output) {
	name := f.transitSwitch().ID
	out.Add(rows.New("NB:Logical_Switch", name, map[string]rows.Value{
		"name": rows.Str(name),
		"other_config": rows.Map(map[string]string{
			"interconn-ts": name, "requested-tnl-key": strconv.Itoa(f.key),
			"mcast_snoop": "true", "mcast_querier": "false", "mcast_flood_unregistered": "true",
		}),
		"external_ids": rows.Map(f.ids),
	}))
}

// site is a node's part of a fabric. Lists have one entry per IP family.
type site struct {
	fabric
	node     *intent.Node
	subnets  []netip.Prefix
	gateways []netip.Prefix // the first address of each subnet
	transits []netip.Prefix // of the zone's router on the transit switch, for this node
}

// siteOf computes a node's addresses; ok is false while the node has no id or
// no subnet, or when its id has no place in the transit subnets.
func siteOf(f fabric, n *intent.Node, subnets []netip.Prefix) (site, bool) {
	p := site{fabric: f, node: n, subnets: subnets}
	if n.ID < 2 || len(subnets) == 0 {
		return p, false
	}
	for _, s := range subnets {
		gw, ok1 := rows.Nth(s, 1)
		transit, ok2 := ofFamily(f.transit, s.Addr(), n.ID)
		if !ok1 || !ok2 {
			return p, false
		}
		p.gateways = append(p.gateways, gw)
		p.transits = append(p.transits, transit)
	}
	return p, true
}

// addSwitch adds the node's switch, its way to the router, and the ACL that every
// switch has on which pods have addresses of ours.
func (p site) addSwitch(out *rows.Output, config map[string]string) rows.Ref {
	name := p.name("", p.node.Name)
	sw := out.Add(rows.New("NB:Logical_Switch", name, map[string]rows.Value{
		"name": rows.Str(name), "other_config": rows.Map(config), "external_ids": rows.Map(p.ids),
	}))
	routerLink(out, link{
		sw: sw, swPort: p.name("stor-", p.node.Name), router: p.router(), routerPort: p.name("rtos-", p.node.Name),
		networks: p.gateways, options: p.gatewayMTU(),
	})
	noDHCPServers(out, sw)
	return sw
}

// plug plugs the zone's router into the transit switch, for this node.
func (p site) plug(out *rows.Output) {
	n := p.node.Name
	routerLink(out, link{
		sw: p.transitSwitch(), swPort: p.name("tstor-", n), swIDs: map[string]string{"node": n},
		swOptions: map[string]string{"requested-tnl-key": strconv.Itoa(p.node.ID)},
		router:    p.router(), routerPort: p.name("rtots-", n), networks: p.transits,
		options: map[string]string{"mcast_flood": "true"},
	})
}

// far makes what a node of another zone leaves in this one: its router's port on
// the transit switch, and the routes to its pods.
func (p site) far(out *rows.Output) {
	n := p.node.Name
	port := p.name("tstor-", n)
	out.Add(rows.Child("NB:Logical_Switch_Port", port, p.transitSwitch(), "ports", map[string]rows.Value{
		"name": rows.Str(port), "type": rows.Str("remote"),
		"addresses":    rows.Str(addressesWithBits(rows.MAC(p.transits[0].Addr()), p.transits)),
		"options":      rows.Map(map[string]string{"requested-tnl-key": strconv.Itoa(p.node.ID), "requested-chassis": p.node.Chassis}),
		"external_ids": rows.Map(map[string]string{"node": n}),
	}))
	for i, s := range p.subnets {
		route(out, p.router(), s.String(), map[string]string{"ip_prefix": s.String(), "nexthop": p.transits[i].Addr().String()})
	}
}

// noDHCPServers drops what a DHCP server says: port security lets a pod's own
// address offer leases (decision 31).
func noDHCPServers(out *rows.Output, sw rows.Ref) {
	match := rows.FromUDPPort(67, 547)
	out.Add(rows.Child("NB:ACL", sw.ID+"/dhcp-server", sw, "acls", map[string]rows.Value{
		"name": rows.Str("dhcp-server"), "direction": rows.Str("from-lport"), "priority": rows.Num(dhcpACLPriority),
		"match": rows.Str(match.String()), "action": rows.Str("drop"), "tier": rows.Num(0),
	}).Using(match.Uses()...))
}

// gatewayMTU makes a router answer packets from outside that are too big for pods
// with ICMP "fragmentation needed", where the pod's interface would lose them in
// silence (ovn-nb(5), gateway_mtu). It makes each packet pass check_pkt_len, whose other
// branch ends in ovn-controller: no NIC does that, so nodes whose flows are offloaded
// have none where the plan says so (docs/features/offload.md).
func (p site) gatewayMTU() map[string]string {
	if p.mtu == 0 || p.offload.RouteMTU && p.offload.For(p.node) {
		return nil
	}
	return map[string]string{"gateway_mtu": strconv.Itoa(p.mtu)}
}

// addressesWithBits is "MAC ip/bits ip/bits", the form of a remote port.
func addressesWithBits(mac string, ps []netip.Prefix) string {
	out := mac
	for _, p := range ps {
		out += " " + p.String()
	}
	return out
}
