package networks

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/portolan-cni/portolan/pkg/api/k8sovn/v1"
)

// rendered is the text of a definition, in the order that people read it in.
type rendered struct {
	CNIVersion      string `json:"cniVersion"`
	Type            string `json:"type"`
	Name            string `json:"name"`
	Definition      string `json:"netAttachDefName"`
	Topology        string `json:"topology"`
	Role            string `json:"role"`
	Subnets         string `json:"subnets,omitempty"`
	Exclude         string `json:"excludeSubnets,omitempty"`
	Reserved        string `json:"reservedSubnets,omitempty"`
	MTU             int    `json:"mtu,omitempty"`
	PhysicalNetwork string `json:"physicalNetworkName,omitempty"`
	VLAN            int    `json:"vlanID,omitempty"`
	PersistentIPs   bool   `json:"allowPersistentIPs,omitempty"`
}

// render writes the definition "namespace/name" of a user-defined network.
func render(network, definition string, s v1.NetworkSpec) (string, error) {
	r := rendered{
		CNIVersion: "1.0.0", Type: "portolan", Name: network, Definition: definition,
		Topology: strings.ToLower(s.Topology), Role: "secondary",
	}
	switch {
	case s.Topology == v1.Layer3 && s.Layer3 != nil:
		var list []string
		for _, sub := range s.Layer3.Subnets {
			text := string(sub.CIDR)
			if sub.HostSubnet != 0 {
				text += fmt.Sprintf("/%d", sub.HostSubnet)
			}
			list = append(list, text)
		}
		r.Subnets, r.MTU = strings.Join(list, ","), s.Layer3.MTU
	case s.Topology == v1.Layer2 && s.Layer2 != nil:
		r.Subnets, r.Reserved, r.MTU = cidrs(s.Layer2.Subnets), cidrs(s.Layer2.ReservedSubnets), s.Layer2.MTU
		r.PersistentIPs = persistent(s.Layer2.IPAM)
	case s.Topology == v1.Localnet && s.Localnet != nil:
		l := s.Localnet
		r.Subnets, r.Exclude, r.MTU = cidrs(l.Subnets), cidrs(l.ExcludeSubnets), l.MTU
		r.PhysicalNetwork, r.PersistentIPs = l.PhysicalNetworkName, persistent(l.IPAM)
		if l.VLAN != nil && l.VLAN.Access != nil {
			r.VLAN = l.VLAN.Access.ID
		}
	default:
		return "", fmt.Errorf("topology %s without its configuration", s.Topology)
	}
	text, err := json.Marshal(r)
	return string(text), err
}

func persistent(i *v1.IPAM) bool { return i != nil && i.Lifecycle == v1.IPAMPersist }

func cidrs(list []v1.CIDR) string {
	words := make([]string, len(list))
	for i, c := range list {
		words[i] = string(c)
	}
	return strings.Join(words, ",")
}

// roleOf is the role that a user-defined network asks for.
func roleOf(s v1.NetworkSpec) string {
	switch {
	case s.Layer3 != nil:
		return s.Layer3.Role
	case s.Layer2 != nil:
		return s.Layer2.Role
	}
	return v1.Secondary
}
