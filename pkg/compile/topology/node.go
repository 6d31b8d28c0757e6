package topology

import (
	"fmt"
	"maps"
	"net/netip"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// mgmtPolicyPriority is OVN-Kubernetes' MGMTPortPolicyPriority.
const mgmtPolicyPriority = 1004

// Node makes what one node adds to a zone: all of it at home, a remote port and
// routes elsewhere. Without a zone, in the manager, it finds problems only.
func Node(v *intent.View, name string) rows.Output {
	var out rows.Output
	c, ok := v.Cluster()
	if !ok {
		return out
	}
	n, ok := v.Node(name)
	if !ok {
		return out
	}
	if name == rows.JoinSwitch {
		out.Problems = append(out.Problems, rows.Problem{
			Object: n.Key().String(), Field: "metadata.name", Severity: rows.Error,
			Message: "a node named \"join\" cannot have a network: its logical switch would be the join switch; register the node under another name",
		})
		return out
	}
	p, ok := planOf(c, n)
	switch {
	case !ok && n.ID != 0 && len(n.Subnets) > 0:
		out.Problems = append(out.Problems, rows.Problem{
			Object: n.Key().String(), Field: "metadata.annotations[k8s.ovn.org/node-id]", Severity: rows.Error,
			Message: fmt.Sprintf("node id %d has no address in every subnet: ids are 2 and up, and must fit the join subnets %v and the transit subnets %v; remove the annotation to have another allocated", n.ID, c.JoinSubnets, c.TransitNets),
		})
	case !ok: // not allocated yet
	case n.Zone != c.Zone:
		if other, value, taken := before(v, c.Zone, n); taken {
			out.Problems = append(out.Problems, rows.Problem{
				Object: n.Key().String(), Field: "metadata.annotations[k8s.ovn.org/node-encap-ips, node-chassis-id]", Severity: rows.Error,
				Message: fmt.Sprintf("node %s has %s too: tunnels go to that one; delete the Node that is no longer there", other, value),
			})
			break
		}
		if c.Zone != "" {
			p.remote(&out)
		}
	default:
		p.local(&out)
	}
	return out
}

// before finds a node that goes before n and has a tunnel address or the chassis id
// of n: a machine that came back under another name. Of two remote ones that is the
// first by name; a node of this zone is always, for its chassis row is
// ovn-controller's own, and the machine we run on knows its name.
func before(v *intent.View, zone string, n *intent.Node) (other, value string, taken bool) {
	for _, value := range n.Tunnels() {
		for o := range v.Each(intent.NodesByTunnel, value) {
			if o.Key().Name < n.Name || o.(*intent.Node).Zone == zone {
				return o.Key().Name, value, true
			}
		}
	}
	return "", "", false
}

// local makes the node's switch and, once its agent has said what the gateway
// is, the way out.
func (p plan) local(out *rows.Output) {
	p.nodeSwitch(out)
	if !p.cluster.GlobalZone {
		p.plug(out)
	}
	if p.node.Chassis == "" || len(p.node.Gateway.Addresses) == 0 {
		return
	}
	p.gatewayRouter(out)
	p.externalSwitch(out)
	p.egress(out)
	p.ownNode(out)
	p.lacking(out)
}

// lacking says which of the cluster's families the node cannot leave by. Between
// pods such a family works: tunnels carry both.
func (p plan) lacking(out *rows.Output) {
	for i, s := range p.cluster.PodSubnets {
		family := "IPv6"
		if s.Addr().Is4() {
			family = "IPv4"
		}
		earlier := sameFamily(p.cluster.PodSubnets[:i], prefixAddr, s.Addr())
		if len(earlier) > 0 || len(sameFamily(p.node.Gateway.Addresses, prefixAddr, s.Addr())) > 0 {
			continue
		}
		out.Problems = append(out.Problems, rows.Problem{
			Object: p.node.Key().String(), Field: "metadata.annotations[k8s.ovn.org/l3-gateway-config]", Severity: rows.Error,
			Message: fmt.Sprintf("pods have %s addresses, but the node's gateway NIC has none (it has %s): its pods reach nothing outside of the cluster, and no other node, over %s; give the NIC an %s address and restart the agent, or take %s out of spec.clusterSubnets",
				family, commaJoined(p.node.Gateway.Addresses), family, family, s),
		})
	}
}

// nodeSwitch adds to the node's switch what the default network alone has: OVN's
// own address management, and the management port.
func (p plan) nodeSwitch(out *rows.Output) {
	n := p.node.Name
	config := map[string]string{}
	for i, s := range p.subnets {
		if s.Addr().Is4() {
			config["subnet"] = s.String()
			config["exclude_ips"] = p.mgmt[i].Addr().String()
		} else {
			config["ipv6_prefix"] = s.Addr().String()
		}
	}
	if p.cluster.Multicast {
		maps.Copy(config, map[string]string{"mcast_snoop": "true", "mcast_querier": "false"})
	}
	sw := p.addSwitch(out, config)
	mac := p.node.MgmtMAC
	if mac == "" {
		mac = rows.MAC(p.mgmt[0].Addr())
	}
	out.Add(rows.Child("NB:Logical_Switch_Port", rows.MgmtLSP(n), sw, "ports", map[string]rows.Value{
		"name": rows.Str(rows.MgmtLSP(n)), "addresses": rows.Str(addresses(mac, p.mgmt)),
	}))
}

func (p plan) gatewayRouter(out *rows.Output) {
	gr := p.gateway()
	out.Add(rows.New("NB:Logical_Router", gr.ID, map[string]rows.Value{
		"name": rows.Str(gr.ID),
		"options": rows.Map(map[string]string{
			"chassis": p.node.Chassis, "lb_force_snat_ip": "router_ip", "snat-ct-zone": "0",
			"always_learn_from_arp_request": "false", "dynamic_neigh_routers": "false",
			"mac_binding_age_threshold": "300",
		}),
		"external_ids": rows.Map(map[string]string{
			"physical_ip": p.node.Gateway.Addresses[0].Addr().String(), "physical_ips": commaJoined(p.node.Gateway.Addresses),
		}),
		"copp": rows.Set(rows.R(copp)),
	}))
	routerLink(out, link{
		sw: joinSwitch, swPort: "jtor-" + gr.ID, router: gr, routerPort: "rtoj-" + gr.ID, networks: p.joins,
		options: p.gatewayMTU(),
	})
	for _, s := range p.cluster.PodSubnets {
		for _, hub := range sameFamily(p.hubs, prefixAddr, s.Addr()) {
			route(out, gr, s.String(), map[string]string{"ip_prefix": s.String(), "nexthop": hub.Addr().String()})
		}
	}
	for _, hop := range p.node.Gateway.NextHops {
		all := netip.PrefixFrom(unspecified(hop), 0).String()
		route(out, gr, all+"/"+hop.String(), map[string]string{
			"ip_prefix": all, "nexthop": hop.String(), "output_port": "rtoe-" + gr.ID,
		})
	}
	p.translate(out, gr)
}

// translate gives what leaves the node the node's address: traffic of pods, and
// ICMP errors that the gateway router itself sends from its join address.
func (p plan) translate(out *rows.Output, gr rows.Ref) {
	for _, a := range p.node.Gateway.Addresses {
		external := a.Addr().String()
		if first := sameFamily(p.node.Gateway.Addresses, prefixAddr, a.Addr())[0]; first != a {
			continue // one external address a family
		}
		inside := texts(sameFamily(p.cluster.PodSubnets, prefixAddr, a.Addr()))
		for _, j := range sameFamily(p.joins, prefixAddr, a.Addr()) {
			inside = append(inside, j.Addr().String())
		}
		for _, logical := range inside {
			values := map[string]rows.Value{
				"type": rows.Str("snat"), "external_ip": rows.Str(external), "logical_ip": rows.Str(logical),
			}
			if r := p.cluster.ExternalPort; r[1] != 0 {
				values["external_port_range"] = rows.Str(fmt.Sprintf("%d-%d", r[0], r[1]))
			}
			out.Add(rows.Child("NB:NAT", gr.ID+"/snat/"+logical, gr, "nat", values))
		}
	}
}

func (p plan) externalSwitch(out *rows.Output) {
	n, gr := p.node.Name, p.gateway()
	sw := out.Add(rows.New("NB:Logical_Switch", rows.ExternalSwitch(n), map[string]rows.Value{
		"name": rows.Str(rows.ExternalSwitch(n)),
	}))
	routerLink(out, link{
		sw: sw, swPort: "etor-" + gr.ID,
		swOptions: map[string]string{"nat-addresses": "router", "exclude-lb-vips-from-garp": "true"},
		router:    gr, routerPort: "rtoe-" + gr.ID, networks: p.node.Gateway.Addresses, mac: p.node.Gateway.MAC,
		ids: map[string]string{"gateway-physical-ip": "yes"},
	})
	name := rows.LocalnetPort(p.node.Gateway.Bridge, n)
	port := map[string]rows.Value{
		"name": rows.Str(name), "type": rows.Str("localnet"), "addresses": rows.Str("unknown"),
		"options": rows.Map(map[string]string{"network_name": intent.GatewayNetwork}),
	}
	if vlan := p.cluster.GatewayVLAN; vlan != 0 {
		port["tag_request"] = rows.Num(int64(vlan))
	}
	out.Add(rows.Child("NB:Logical_Switch_Port", name, sw, "ports", port))
}

// egress sends what this node's pods send elsewhere to this node's gateway.
func (p plan) egress(out *rows.Output) {
	for i, s := range p.node.Subnets {
		route(out, clusterRouter, "src/"+s.String(), map[string]string{
			"ip_prefix": s.String(), "nexthop": p.joins[i].Addr().String(), "policy": "src-ip",
		})
	}
}

// ownNode sends what this node's pods send to the node itself to the management
// port, so that it arrives with the pod's address and the node answers directly.
func (p plan) ownNode(out *rows.Output) {
	for _, a := range p.node.Gateway.Addresses {
		for _, m := range sameFamily(p.mgmt, prefixAddr, a.Addr()) {
			match := rows.And(rows.FromRouterPort("rtos-"+p.node.Name), rows.ToAddress(a.Addr()))
			out.Add(rows.Child("NB:Logical_Router_Policy", p.node.Name+"/own-node/"+a.Addr().String(), clusterRouter, "policies",
				map[string]rows.Value{
					"priority": rows.Num(mgmtPolicyPriority), "match": rows.Str(match.String()),
					"action": rows.Str("reroute"), "nexthops": rows.Strings(m.Addr().String()),
				}).Using(match.Uses()...))
		}
	}
}

// remote makes what a node of another zone leaves in this one.
func (p plan) remote(out *rows.Output) {
	n := p.node.Name
	if p.node.Chassis == "" || len(p.node.EncapIPs) == 0 {
		return
	}
	p.far(out)
	for i, j := range p.joins {
		route(out, clusterRouter, host(j.Addr()), map[string]string{"ip_prefix": host(j.Addr()), "nexthop": p.transits[i].Addr().String()})
	}
	p.end(out, p.node.Chassis, n, p.node.EncapIPs[0])
	for _, ip := range p.node.EncapIPs[1:] {
		name := rows.TunnelChassis(p.node.Chassis, ip)
		p.end(out, name, name, ip)
	}
}

// end makes a chassis with one tunnel address. A node has one chassis for each of its
// addresses: a remote port's tunnel is then chosen by the chassis that it is bound to, for
// OVN 25.03 has no option that chooses among the addresses of one, and
// Port_Binding.encap is not ours to write.
func (p plan) end(out *rows.Output, name, hostname string, ip netip.Addr) {
	chassis := rows.Ref{Table: "SB:Chassis", ID: name}
	out.Add(rows.Child("SB:Encap", "geneve/"+ip.String(), chassis, "encaps", map[string]rows.Value{
		"type": rows.Str("geneve"), "ip": rows.Str(ip.String()), "chassis_name": rows.Str(name),
		"options": rows.Map(map[string]string{"csum": "true"}),
	}))
	out.Add(rows.New("SB:Chassis", name, map[string]rows.Value{
		"name": rows.Str(name), "hostname": rows.Str(hostname),
		"other_config": rows.Map(map[string]string{"is-remote": "true"}),
	}))
}

func (p plan) gateway() rows.Ref {
	return rows.Ref{Table: "NB:Logical_Router", ID: rows.GatewayRouter(p.node.Name)}
}

func commaJoined(ps []netip.Prefix) string {
	out := ""
	for i, p := range ps {
		if i > 0 {
			out += ","
		}
		out += p.Addr().String()
	}
	return out
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}
