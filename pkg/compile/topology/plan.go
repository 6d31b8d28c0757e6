package topology

import (
	"net/netip"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// plan is one node's addresses, all of them arithmetic. Lists have one entry per
// IP family of the cluster.
type plan struct {
	site
	cluster *intent.Cluster
	mgmt    []netip.Prefix // the second address of each node subnet
	joins   []netip.Prefix // of GR_<node> on the join switch
	hubs    []netip.Prefix // of ovn_cluster_router on the join switch
}

// planOf computes a node's addresses; ok is false while the node has no id or
// no subnet, or when its id has no place in the join or transit subnets.
func planOf(c *intent.Cluster, n *intent.Node) (plan, bool) {
	at, ok := siteOf(defaultFabric(c), n, n.Subnets)
	p := plan{site: at, cluster: c}
	if !ok {
		return p, false
	}
	for _, s := range n.Subnets {
		mg, ok1 := rows.Nth(s, 2)
		join, ok2 := ofFamily(c.JoinSubnets, s.Addr(), n.ID)
		hub, ok3 := ofFamily(c.JoinSubnets, s.Addr(), 1)
		if !ok1 || !ok2 || !ok3 {
			return p, false
		}
		p.mgmt = append(p.mgmt, mg)
		p.joins = append(p.joins, join)
		p.hubs = append(p.hubs, hub)
	}
	return p, true
}

// ofFamily is the n-th address of the subnet that has the family of like.
func ofFamily(subnets []netip.Prefix, like netip.Addr, n int) (netip.Prefix, bool) {
	for _, s := range subnets {
		if s.Addr().Is4() == like.Is4() {
			return rows.Nth(s, n)
		}
	}
	return netip.Prefix{}, false
}

// sameFamily returns the addresses of one family.
func sameFamily[T any](list []T, addr func(T) netip.Addr, like netip.Addr) []T {
	var out []T
	for _, x := range list {
		if addr(x).Is4() == like.Is4() {
			out = append(out, x)
		}
	}
	return out
}

func texts(ps []netip.Prefix) []string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.String()
	}
	return out
}

// addresses is "MAC ip ip", the form of Logical_Switch_Port.addresses.
func addresses(mac string, ps []netip.Prefix) string {
	out := mac
	for _, p := range ps {
		out += " " + p.Addr().String()
	}
	return out
}

func prefixAddr(p netip.Prefix) netip.Addr { return p.Addr() }

// host is the prefix of one address.
func host(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }
