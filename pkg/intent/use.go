package intent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What every feature that touches a network must answer alike: which network an
// attachment is on, whether it is rendered here, and whether it can be at all.

// Escaped is the form of a network's name that its logical names are made with:
// networks of one form cannot be told apart in a database (decision 25).
func Escaped(name string) string { return strings.NewReplacer("-", ".", "/", ".").Replace(name) }

// DefinitionOf is the definition "namespace/nad" of an attachment
// "namespace/nad[/index]".
func DefinitionOf(attachment string) string {
	parts := strings.SplitN(attachment, "/", 3)
	return strings.Join(parts[:min(len(parts), 2)], "/")
}

// NetworkOf is the network that an attachment other than the default is on.
func (v *View) NetworkOf(attachment string) (*Network, bool) {
	for o := range v.Each(NetworksByDefinition, DefinitionOf(attachment)) {
		return o.(*Network), true
	}
	return nil, false
}

// Present reports whether a network is rendered in the zone of a plan: pods of the
// zone are attached to it.
func (v *View) Present(c *Cluster, network string) bool {
	if c.GlobalZone {
		return v.Any(PresencesByNetwork, network)
	}
	_, ok := v.Get(PresenceKey(network, c.Zone)) // such a zone has its node's name
	return ok
}

// LeaseOf is the block that a node has of a layer3 network.
func (v *View) LeaseOf(network, node string) (*Block, bool) {
	for o := range v.Each(BlocksByNodeOfNetwork, network+" "+node) {
		if b := o.(*Block); len(b.Subnets) > 0 {
			return b, true
		}
	}
	return nil, false
}

// Refusal is why a network has no rows anywhere: the field at fault, and a message.
type Refusal struct{ Field, Message string }

// Refused tells why a network cannot be rendered; nil if it can.
func (v *View) Refused(c *Cluster, n *Network) *Refusal {
	for _, check := range []func(*View, *Cluster, *Network) *Refusal{unnumbered, sameName, clusterSubnets, vlan} {
		if r := check(v, c, n); r != nil {
			return r
		}
	}
	return nil
}

// unnumbered refuses a network without an id: its keys would be the default's.
func unnumbered(_ *View, _ *Cluster, n *Network) *Refusal {
	if n.ID == 0 {
		return &Refusal{"spec.id", "the network has no id yet: portolan-manager gives ids; if it runs and gives none, delete the object and it is made anew"}
	}
	return nil
}

// sameName refuses a name whose logical names are another's: of two networks the
// one with the higher id.
func sameName(v *View, _ *Cluster, n *Network) *Refusal {
	if n.Name == "ext" {
		return &Refusal{"spec.name", `a network cannot be called "ext": its logical names are those of the nodes' gateways; choose another name`}
	}
	for o := range v.Each(NetworksByEscaped, Escaped(n.Name)) {
		if m := o.(*Network); m.Name != n.Name && m.before(n) {
			return &Refusal{"spec.name", fmt.Sprintf(`network %q cannot be told apart from network %q, which was first: "-" and "/" become "." in logical names; choose another name`, n.Name, m.Name)}
		}
	}
	return nil
}

// before orders networks by age: ids are given in order.
func (n *Network) before(m *Network) bool {
	return n.ID < m.ID || n.ID == m.ID && n.Name < m.Name
}

// Transits are the subnets of networks' transit switches, of both families: a network may
// have one that the cluster's own pods have not. Each network has a router of its own,
// so all have the same.
func (c *Cluster) Transits() []netip.Prefix {
	out := slices.Clone(c.TransitNets)
	for _, text := range []string{"100.88.0.0/16", "fd97::/64"} {
		p := netip.MustParsePrefix(text)
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Addr().Is4() == p.Addr().Is4() }) {
			out = append(out, p)
		}
	}
	return out
}

// clusterSubnets refuses subnets that the cluster uses itself.
func clusterSubnets(_ *View, c *Cluster, n *Network) *Refusal {
	for _, taken := range []struct {
		what string
		list []netip.Prefix
	}{
		{"the default network's", c.PodSubnets}, {"the services'", c.ServiceNets}, {"the join", c.JoinSubnets},
		{"the transit", c.Transits()}, {"the masquerade", c.Masquerade},
	} {
		for _, s := range n.Subnets {
			if i := slices.IndexFunc(taken.list, s.Prefix.Overlaps); i >= 0 {
				return &Refusal{"spec.subnets", fmt.Sprintf("subnet %s overlaps %s subnet %s: a pod on both could not tell them apart; choose another", s.Prefix, taken.what, taken.list[i])}
			}
		}
	}
	return nil
}

// vlan refuses a wire that is not there or may not be used so.
func vlan(v *View, _ *Cluster, n *Network) *Refusal {
	switch {
	case n.Topology != Localnet && n.VLAN != 0:
		return &Refusal{"spec.vlanID", fmt.Sprintf("VLAN %d is given to a %s network: only localnet has VLANs; remove vlanID", n.VLAN, n.Topology)}
	case n.Topology != Localnet && n.PhysicalNetwork != "":
		return &Refusal{"spec.physicalNetworkName", fmt.Sprintf("physical network %q is given to a %s network: only localnet is on a wire; remove physicalNetworkName", n.PhysicalNetwork, n.Topology)}
	case n.Topology != Localnet:
		return nil
	case n.VLAN < 0 || n.VLAN > 4094:
		return &Refusal{"spec.vlanID", fmt.Sprintf("VLAN %d is none of 1 to 4094 (0 is untagged)", n.VLAN)}
	}
	wire := n.Wire()
	p, ok := Get[*PhysicalNetwork](v, Key{KindPhysicalNetwork, wire})
	if !ok {
		return &Refusal{"spec.physicalNetworkName", fmt.Sprintf("there is no PhysicalNetwork %q, which says on which NIC or bridge of the nodes it is; create it, or name one that exists", wire)}
	}
	if len(p.VLANs) == 0 || slices.ContainsFunc(p.VLANs, func(r [2]int) bool { return r[0] <= n.VLAN && n.VLAN <= r[1] }) {
		return nil
	}
	return &Refusal{"spec.vlanID", fmt.Sprintf("VLAN %d is not allowed on physical network %q, whose spec.vlans are %v; choose one of them", n.VLAN, wire, p.VLANs)}
}

// Wire is the physical network of a localnet: one of its own name where none is
// given, as in OVN-Kubernetes.
func (n *Network) Wire() string {
	if n.PhysicalNetwork != "" {
		return n.PhysicalNetwork
	}
	return n.Name
}

// Overlapping finds another network that has addresses of a network's subnets: one
// that holds a subnet of n, or an earlier one with the same. It reads as many
// buckets as a subnet has bits, not all networks.
func (v *View) Overlapping(n *Network) (subnet netip.Prefix, other *Network) {
	for _, s := range n.Subnets {
		for bits := s.Prefix.Bits(); bits >= 8; bits-- {
			around := netip.PrefixFrom(s.Prefix.Addr(), bits).Masked()
			for o := range v.Each(NetworksBySubnet, around.String()) {
				m := o.(*Network)
				if m.Name != n.Name && (around != s.Prefix || m.before(n)) {
					return s.Prefix, m
				}
			}
		}
	}
	return netip.Prefix{}, nil
}
