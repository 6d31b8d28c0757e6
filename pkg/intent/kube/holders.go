package kube

import (
	"net/netip"
	"slices"
)

// holders knows which nodes have which subnets.
type holders struct {
	by      map[netip.Prefix][]string // names, by subnet
	lengths map[length]int            // how many subnets are of each
}

// length is a prefix length of a family.
type length struct {
	ip4  bool
	bits int
}

func lengthOf(p netip.Prefix) length { return length{p.Addr().Is4(), p.Bits()} }

func (h *holders) add(name string, subnets []netip.Prefix) {
	for _, p := range subnets {
		p = p.Masked()
		h.by[p] = append(h.by[p], name)
		h.lengths[lengthOf(p)]++
	}
}

func (h *holders) drop(name string, subnets []netip.Prefix) {
	for _, p := range subnets {
		p = p.Masked()
		at := slices.Index(h.by[p], name)
		if at < 0 {
			continue
		}
		if h.by[p] = slices.Delete(h.by[p], at, at+1); len(h.by[p]) == 0 {
			delete(h.by, p)
		}
		if h.lengths[lengthOf(p)]--; h.lengths[lengthOf(p)] == 0 {
			delete(h.lengths, lengthOf(p))
		}
	}
}

// of is another node that has one of these subnets, or a part of it: the first by name. It
// costs a look for each length that there is; all are looked at only where there are longer
// ones than these.
func (h *holders) of(name string, subnets []netip.Prefix) (first string, which netip.Prefix) {
	for _, p := range subnets {
		for l := range h.lengths {
			if l.ip4 != p.Addr().Is4() {
				continue
			}
			for _, other := range h.within(p, l.bits) {
				if other != name && (first == "" || other < first) {
					first, which = other, p
				}
			}
		}
	}
	return first, which
}

// within names those who have subnets of a length that overlap a prefix.
func (h *holders) within(p netip.Prefix, bits int) []string {
	if bits <= p.Bits() {
		return h.by[netip.PrefixFrom(p.Addr(), bits).Masked()]
	}
	var out []string
	for q, names := range h.by {
		if q.Bits() == bits && p.Overlaps(q) {
			out = append(out, names...)
		}
	}
	return out
}
