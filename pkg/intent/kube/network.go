package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Limits of a network's fields.
const (
	lastNetworkID = 65000
	leastMTU      = 576
	leastMTU6     = 1280
	mostMTU       = 65535
	lastPortKey   = 32767 // of a switch's tunnel keys (decision 25)
)

// ParseNetwork makes a network's intent; nil if it has no usable topology or id. A
// field with a Problem counts as absent; what needs other objects to be judged, such
// as overlaps and VLANs, is judged by the network's unit.
func ParseNetwork(n *v1alpha1.Network) (*intent.Network, []rows.Problem) {
	s := n.Spec
	out := &intent.Network{
		Name: networkName(n), ID: s.ID, Topology: intent.Topology(s.Topology), MTU: s.MTU, VLAN: s.VLAN,
		PhysicalNetwork: s.PhysicalNetwork, PersistentIPs: s.PersistentIPs, Offload: s.Offload,
		Definitions: slices.Sorted(slices.Values(s.Definitions)),
	}
	p := &problems{key: out.Key()}
	switch out.Topology {
	case intent.Layer3, intent.Layer2, intent.Localnet:
	default:
		p.field("spec.topology", fmt.Errorf("topology %q is none of %q, %q and %q", s.Topology, intent.Layer3, intent.Layer2, intent.Localnet))
		return nil, p.list
	}
	if out.ID < 0 || out.ID > lastNetworkID {
		p.field("spec.id", fmt.Errorf("id %d is none of 1 to %d; portolan-manager gives ids: delete the object and it is made anew", out.ID, lastNetworkID))
		return nil, p.list
	}
	p.subnets(out, s)
	p.limits(out)
	out.Namespaces = p.selector("spec.namespaceSelector", s.NamespaceSelector)
	return out, p.list
}

// networkName is the name of the network that an object is.
func networkName(n *v1alpha1.Network) string {
	if n.Spec.Name != "" {
		return n.Spec.Name
	}
	return n.Name
}

// subnets reads a network's subnets and the parts of them that are kept.
func (p *problems) subnets(out *intent.Network, s v1alpha1.NetworkSpec) {
	for _, text := range s.Subnets {
		subnet, err := parseNetworkSubnet(text, out.Topology)
		if err == nil {
			for _, other := range out.Subnets {
				if other.Prefix.Overlaps(subnet.Prefix) {
					err = fmt.Errorf("subnet %s overlaps %s of the same network: give each address once", subnet.Prefix, other.Prefix)
				}
			}
		}
		if err != nil {
			p.field("spec.subnets", err)
			continue
		}
		out.Subnets = append(out.Subnets, subnet)
	}
	intent.SortSubnets(out.Subnets)
	out.Exclude = p.parts("spec.excludeSubnets", s.ExcludeSubnets, out.Subnets)
	out.Reserved = p.parts("spec.reservedSubnets", s.ReservedSubnets, out.Subnets)
}

// parts reads parts of a network's subnets; a lone address is one, too.
func (p *problems) parts(field string, list []string, of []intent.NetworkSubnet) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if a, err := netip.ParseAddr(text); err == nil {
			text = netip.PrefixFrom(a, a.BitLen()).String()
		}
		one, err := parsePrefixes([]string{text})
		if err != nil {
			p.field(field, err)
			continue
		}
		part := one[0].Masked()
		if !slices.ContainsFunc(of, func(s intent.NetworkSubnet) bool {
			return s.Prefix.Bits() <= part.Bits() && s.Prefix.Contains(part.Addr())
		}) {
			p.field(field, fmt.Errorf("%s is no part of the network's subnets; it is ignored: remove it or correct it", part))
			continue
		}
		out = append(out, part)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// limits drops numbers and words that no network can have.
func (p *problems) limits(n *intent.Network) {
	least := leastMTU
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is6() {
			least = leastMTU6
		}
	}
	if n.MTU != 0 && (n.MTU < least || n.MTU > mostMTU) {
		p.field("spec.mtu", fmt.Errorf("%d is outside %d to %d bytes; the cluster's is used", n.MTU, least, mostMTU))
		n.MTU = 0
	}
	switch n.Offload {
	case "", "require", "prefer", "off":
	default:
		p.field("spec.offload", fmt.Errorf(`offload %q is none of "require", "prefer" and "off"; "prefer" is used`, n.Offload))
		n.Offload = ""
	}
	if n.PersistentIPs && (n.Topology == intent.Layer3 || len(n.Subnets) == 0) {
		p.field("spec.allowPersistentIPs", errors.New("only a layer2 or localnet network with subnets has addresses that outlive a pod; it is ignored"))
		n.PersistentIPs = false
	}
}

// noObject selects nothing: what a selector that cannot be read comes to, for who
// may use what must not grow by a mistake.
func noObject() intent.Labels {
	return intent.Labels{{Key: "portolan.io/malformed-selector", Op: intent.In}}
}

// selector makes a selector of labels; nil selects all.
func (p *problems) selector(field string, s *metav1.LabelSelector) intent.Labels {
	if s == nil {
		return nil
	}
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		p.field(field, fmt.Errorf("%w; nothing is selected until it is corrected", err))
		return noObject()
	}
	var out intent.Labels
	for key, value := range s.MatchLabels {
		out = append(out, intent.Requirement{Key: key, Op: intent.In, Values: []string{value}})
	}
	ops := map[metav1.LabelSelectorOperator]intent.Op{
		metav1.LabelSelectorOpIn: intent.In, metav1.LabelSelectorOpNotIn: intent.NotIn,
		metav1.LabelSelectorOpExists: intent.Exists, metav1.LabelSelectorOpDoesNotExist: intent.DoesNotExist,
	}
	for _, e := range s.MatchExpressions {
		out = append(out, intent.Requirement{Key: e.Key, Op: ops[e.Operator], Values: e.Values})
	}
	if len(out) == 0 {
		return nil
	}
	return out.Canonical()
}

// parseNetworkSubnet parses "10.1.0.0/16", and for layer3 "10.1.0.0/16/24", where
// the default length of a node's subnet is OVN-Kubernetes': 24, and 64 for IPv6.
func parseNetworkSubnet(text string, t intent.Topology) (intent.NetworkSubnet, error) {
	var s intent.NetworkSubnet
	cidr, host := text, ""
	if first := strings.IndexByte(text, '/'); first >= 0 {
		if second := strings.IndexByte(text[first+1:], '/'); second >= 0 {
			cidr, host = text[:first+1+second], text[first+second+2:]
		}
	}
	list, err := parsePrefixes([]string{cidr})
	if err != nil {
		return s, err
	}
	if s.Prefix = list[0]; s.Prefix != s.Prefix.Masked() {
		return s, fmt.Errorf("subnet %s has host bits set: its network is %s", s.Prefix, s.Prefix.Masked())
	}
	switch {
	case t != intent.Layer3 && host != "":
		return s, fmt.Errorf("subnet %q has a second length, which is that of a node's subnet: only layer3 has those", text)
	case t != intent.Layer3:
		return s, nil
	case host == "":
		s.HostPrefix = 24
		if !s.Prefix.Addr().Is4() {
			s.HostPrefix = 64
		}
	default:
		if s.HostPrefix, err = strconv.Atoi(host); err != nil {
			return s, fmt.Errorf("subnet %q: %q is not the length of a node's subnet", text, host)
		}
	}
	if s.HostPrefix <= s.Prefix.Bits() || s.HostPrefix > s.Prefix.Addr().BitLen()-2 {
		return s, fmt.Errorf("subnet %q: a node's subnet of %d bits is not a part of %s with room for a router and pods", text, s.HostPrefix, s.Prefix)
	}
	return s, nil
}

// whole are subnets of which nothing is said of nodes' parts.
func whole(list []netip.Prefix) []intent.NetworkSubnet {
	out := make([]intent.NetworkSubnet, len(list))
	for i, p := range list {
		out[i].Prefix = p
	}
	return out
}

// ParsePhysicalNetwork makes a physical network's intent.
func ParsePhysicalNetwork(n *v1alpha1.PhysicalNetwork) (*intent.PhysicalNetwork, []rows.Problem) {
	out := &intent.PhysicalNetwork{Name: n.Name, NIC: n.Spec.NIC, Bridge: n.Spec.Bridge}
	p := &problems{key: out.Key()}
	if (out.NIC == "") == (out.Bridge == "") {
		p.field("spec", fmt.Errorf("nic %q and bridge %q are given: give nic, to have a bridge made, or bridge, to use one that is there", out.NIC, out.Bridge))
		return nil, p.list
	}
	out.Nodes = p.selector("spec.nodeSelector", n.Spec.NodeSelector)
	out.Namespaces = p.selector("spec.namespaceSelector", n.Spec.NamespaceSelector)
	for i, text := range n.Spec.VLANs {
		r, err := parseVLANs(text)
		if err != nil {
			p.field(fmt.Sprintf("spec.vlans[%d]", i), err)
			continue
		}
		out.VLANs = append(out.VLANs, r)
	}
	if len(n.Spec.VLANs) > 0 && len(out.VLANs) == 0 {
		out.VLANs = [][2]int{{-1, -1}} // none can be read: none is allowed
	}
	slices.SortFunc(out.VLANs, func(a, b [2]int) int { return slices.Compare(a[:], b[:]) })
	return out, p.list
}

// parseVLANs parses "100" or "100-199".
func parseVLANs(text string) ([2]int, error) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		last = first
	}
	a, err1 := strconv.Atoi(first)
	b, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || a < 0 || b < a || b > 4094 {
		return [2]int{}, fmt.Errorf(`VLANs %q are not of the form "100" or "100-199", from 0 (untagged) to 4094; nothing is allowed by them`, text)
	}
	return [2]int{a, b}, nil
}
