package claims

import (
	"cmp"
	"math"
	"math/bits"
	"net/netip"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// read is the door's reading of a configuration, which may have no id yet.
func read(s v1alpha1.NetworkSpec) (*intent.Network, []rows.Problem) {
	s.ID = cmp.Or(s.ID, alloc.FirstNetworkID)
	return kube.ParseNetwork(&v1alpha1.Network{Spec: s})
}

// parsed is a configuration as intent, as far as it can be read.
func parsed(s v1alpha1.NetworkSpec) *intent.Network {
	n, _ := read(s)
	if n == nil {
		return &intent.Network{}
	}
	return n
}

// overlap names two subnets that overlap; "" if none do.
func overlap(a, b []intent.NetworkSubnet) (string, string) {
	for _, p := range a {
		for _, q := range b {
			if p.Prefix.Overlaps(q.Prefix) {
				return p.Prefix.String(), q.Prefix.String()
			}
		}
	}
	return "", ""
}

// capacity is how many interfaces a network has addresses for: of the family with
// the fewest, less what nobody is given.
func capacity(s v1alpha1.NetworkSpec) int64 {
	n := parsed(s)
	room := map[bool]uint64{}
	for _, sub := range n.Subnets {
		v4 := sub.Prefix.Addr().Is4()
		var has uint64
		if n.Topology == intent.Layer3 {
			// The network's address, the router's, the node's own and, of IPv4, the last.
			each := size(sub.HostPrefix, sub.Prefix.Addr())
			high, low := bits.Mul64(less(each, 4), 1<<min(sub.HostPrefix-sub.Prefix.Bits(), 62))
			if has = min(low, math.MaxInt64); high > 0 {
				has = math.MaxInt64
			}
		} else {
			has = less(size(sub.Prefix.Bits(), sub.Prefix.Addr()), 2)
		}
		for _, e := range n.Exclude {
			if sub.Prefix.Contains(e.Addr()) {
				has = less(has, size(e.Bits(), e.Addr()))
			}
		}
		room[v4] = min(room[v4]+has, math.MaxInt64) // both are below 2^63
	}
	if len(room) == 0 {
		return 0
	}
	least := uint64(math.MaxInt64)
	for _, r := range room {
		least = min(least, r)
	}
	return int64(least)
}

// size is how many addresses a prefix of a length has, up to 2^62.
func size(length int, a netip.Addr) uint64 { return 1 << min(a.BitLen()-length, 62) }

func less(n, by uint64) uint64 {
	if by > n {
		return 0
	}
	return n - by
}
