package claims

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// property is one field of a network's configuration.
type property struct {
	name string
	get  func(s v1alpha1.NetworkSpec) string
	// soft fields may change while the network is in use: they say what the next pod
	// gets, and nothing of those that are there.
	soft bool
	// of is the field that a soft one means nothing without: where that is not what is
	// accepted, neither is taken over.
	of   string
	copy func(to *v1alpha1.NetworkSpec, from v1alpha1.NetworkSpec)
}

// properties are all that two definitions of a network must agree on.
func properties() []property {
	join := func(l []string) string { return strings.Join(slices.Sorted(slices.Values(l)), ",") }
	return []property{
		{name: "topology", get: func(s v1alpha1.NetworkSpec) string { return s.Topology }},
		{name: "subnets", get: subnetsOf},
		{name: "mtu", get: func(s v1alpha1.NetworkSpec) string { return number(s.MTU) }},
		{name: "vlanID", get: func(s v1alpha1.NetworkSpec) string { return number(s.VLAN) }},
		{name: "physicalNetworkName", get: func(s v1alpha1.NetworkSpec) string { return s.PhysicalNetwork }},
		{
			name: "excludeSubnets", soft: true, of: "subnets", get: func(s v1alpha1.NetworkSpec) string { return join(s.ExcludeSubnets) },
			copy: func(to *v1alpha1.NetworkSpec, from v1alpha1.NetworkSpec) { to.ExcludeSubnets = from.ExcludeSubnets },
		},
		{
			name: "reservedSubnets", soft: true, of: "subnets", get: func(s v1alpha1.NetworkSpec) string { return join(s.ReservedSubnets) },
			copy: func(to *v1alpha1.NetworkSpec, from v1alpha1.NetworkSpec) { to.ReservedSubnets = from.ReservedSubnets },
		},
		{
			name: "allowPersistentIPs", soft: true, of: "topology", get: func(s v1alpha1.NetworkSpec) string { return fmt.Sprint(s.PersistentIPs) },
			copy: func(to *v1alpha1.NetworkSpec, from v1alpha1.NetworkSpec) { to.PersistentIPs = from.PersistentIPs },
		},
		{
			name: "offload", soft: true, get: func(s v1alpha1.NetworkSpec) string { return s.Offload },
			copy: func(to *v1alpha1.NetworkSpec, from v1alpha1.NetworkSpec) { to.Offload = from.Offload },
		},
	}
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// subnetsOf writes subnets in one way: 10.1.0.0/16 of layer3 is 10.1.0.0/16/24.
func subnetsOf(s v1alpha1.NetworkSpec) string {
	n, problems := read(s)
	if n == nil || len(problems) > 0 {
		return strings.Join(s.Subnets, ",")
	}
	var out []string
	for _, p := range n.Subnets {
		text := p.Prefix.String()
		if p.HostPrefix != 0 {
			text += fmt.Sprintf("/%d", p.HostPrefix)
		}
		out = append(out, text)
	}
	return strings.Join(out, ",")
}

// differs says, field by field, where a definition is not what is accepted.
func differs(accepted, claimed v1alpha1.NetworkSpec) string {
	var out []string
	for _, p := range properties() {
		if a, c := p.get(accepted), p.get(claimed); a != c {
			out = append(out, fmt.Sprintf("%s is %s, accepted is %s", p.name, shown(c), shown(a)))
		}
	}
	return strings.Join(out, "; ")
}

func shown(s string) string {
	if s == "" {
		return "not given"
	}
	return s
}

// Moves reports whether a change of a configuration is one that may not take effect while
// the network is in use.
func Moves(before, after v1alpha1.NetworkSpec) bool {
	return slices.ContainsFunc(properties(), func(p property) bool { return !p.soft && p.get(before) != p.get(after) })
}

// soften takes over what may change in use.
func soften(accepted *v1alpha1.NetworkSpec, claimed v1alpha1.NetworkSpec) {
	differ := map[string]bool{}
	for _, p := range properties() {
		differ[p.name] = !p.soft && p.get(*accepted) != p.get(claimed)
	}
	for _, p := range properties() {
		if p.soft && !differ[p.of] {
			p.copy(accepted, claimed)
		}
	}
}
