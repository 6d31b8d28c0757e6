package devices

import (
	"regexp"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// numbers are ranges of VF numbers; nil: all.
type numbers [][2]int

// has reports whether a number is meant.
func (n numbers) has(vf int) bool {
	return n == nil || slices.ContainsFunc(n, func(r [2]int) bool { return r[0] <= vf && vf <= r[1] })
}

// portSuffix is what udev appends to the name of a NIC in switchdev mode, and with some
// drivers in any: the port's own.
var portSuffix = regexp.MustCompile(`np\d+$`)

// match tells whether a NIC is meant, and which of its VFs. all are the names of every
// NIC's network device: a name that none has exactly means the one that has it but for
// the port's suffix, so that a change of mode does not lose the NIC.
func match(s intent.NICSelector, p sriov.PF, all []string) (numbers, bool) {
	bare := func(id string) string { return strings.TrimPrefix(id, "0x") }
	in := func(list []string, ids ...string) bool {
		return len(list) == 0 || slices.ContainsFunc(ids, func(id string) bool { return id != "" && slices.Contains(list, id) })
	}
	if !in(s.Vendors, bare(p.Vendor)) || !in(s.Devices, bare(p.Product), bare(p.VFProduct)) || !in(s.Drivers, p.Driver) || !in(s.LinkTypes, p.LinkType) {
		return nil, false
	}
	byName, ok := find(s.PFNames, func(name string) bool {
		return name == p.Netdev || !slices.Contains(all, name) && p.Netdev != "" && portSuffix.ReplaceAllString(name, "") == portSuffix.ReplaceAllString(p.Netdev, "")
	})
	if !ok {
		return nil, false
	}
	byRoot, ok := find(s.RootDevices, func(name string) bool { return strings.EqualFold(name, p.ID) })
	return intersect(byName, byRoot), ok
}

// find returns the VFs of the entries that are of a NIC; of no entries at all, all.
func find(list []intent.NICPart, is func(string) bool) (numbers, bool) {
	if len(list) == 0 {
		return nil, true
	}
	var out numbers
	for _, n := range list {
		switch {
		case !is(n.NIC):
		case len(n.VFs) == 0:
			return nil, true
		default:
			out = append(out, n.VFs...)
		}
	}
	return out, out != nil
}

// intersect is what both mean.
func intersect(a, b numbers) numbers {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	out := numbers{}
	for _, x := range a {
		for _, y := range b {
			if low, high := max(x[0], y[0]), min(x[1], y[1]); low <= high {
				out = append(out, [2]int{low, high})
			}
		}
	}
	return out
}
