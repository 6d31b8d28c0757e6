// Package places answers what addresses a layer2 or localnet network gives. A place is
// a number from 0: the n-th address of every subnet of the network, and tunnel key
// n+1; place n is an entry of AddressBlock n/64 (ADR 31). The agents of all nodes and
// portolan-manager count alike.
package places

import (
	"net/netip"
	"slices"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Last is the highest tunnel key of a port: OVN has so many on one switch.
const Last = 32767

// Usable reports whether a place's addresses may be anybody's.
func Usable(n *intent.Network, place int) bool {
	if place >= Last {
		return false
	}
	for _, s := range n.Subnets {
		bits := s.Prefix.Addr().BitLen() - s.Prefix.Bits()
		if place == 0 || bits < 32 && place >= 1<<bits || s.Prefix.Addr().Is4() && bits < 32 && place == 1<<bits-1 {
			return false
		}
		a := alloc.At(s.Prefix, uint64(place)).Addr()
		if slices.ContainsFunc(n.Exclude, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return false
		}
	}
	return true
}

// Reserved reports whether a place is given only to who asks for it.
func Reserved(n *intent.Network, place int) bool {
	return slices.ContainsFunc(n.Subnets, func(s intent.NetworkSubnet) bool {
		a := alloc.At(s.Prefix, uint64(place)).Addr()
		return slices.ContainsFunc(n.Reserved, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// Count is how many places a network has.
func Count(n *intent.Network) int {
	count := Last
	for _, s := range n.Subnets {
		if bits := s.Prefix.Addr().BitLen() - s.Prefix.Bits(); bits < 15 {
			count = min(count, 1<<bits)
		}
	}
	return count
}

// Addresses are a place's, one of each subnet.
func Addresses(n *intent.Network, place int) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range n.Subnets {
		out = append(out, alloc.At(s.Prefix, uint64(place)))
	}
	return out
}

// Of is the place of an address; false where the network has none for it.
func Of(n *intent.Network, a netip.Addr) (int, bool) {
	for _, s := range n.Subnets {
		if i, ok := alloc.Index(s.Prefix, a); ok && i < Last {
			return int(i), Usable(n, int(i))
		}
	}
	return 0, false
}

// Slots is how many blocks a network has.
func Slots(n *intent.Network) int { return (Count(n) + v1alpha1.BlockSize - 1) / v1alpha1.BlockSize }
