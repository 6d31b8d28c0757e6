package host

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The routing tables and rules of tunnel addresses: the first has the first number, and
// the next each one more. Their rules go before those of others, but for the kernel's own.
const (
	tunnelTable    = 850100
	tunnelPriority = 850
)

// Tunnels are a node's tunnel addresses beside its first, as the machine has them.
type Tunnels struct {
	Addresses []netip.Addr // that a link of this machine has, and that can be used
	Problems  []rows.Problem
	// Config has what is sent from each leave by its own link: a rule, and a table with the
	// link's routes.
	Config Config
}

// FindTunnels looks for addresses, in their order. first is the node's first tunnel
// address, whose family all must have, podMTU that of pods' interfaces; 0: not known.
func (k *Kernel) FindTunnels(node string, first netip.Addr, podMTU int, addresses []netip.Addr) (Tunnels, error) {
	var out Tunnels
	links, err := dump.Whole(k.nl.LinkList)
	if err != nil {
		return out, fmt.Errorf("list links: %w", err)
	}
	problem := func(s rows.Severity, format string, args ...any) {
		out.Problems = append(out.Problems, rows.Problem{Object: "Node/" + node, Field: "tunnels", Severity: s, Message: fmt.Sprintf(format, args...)})
	}
	for _, a := range addresses {
		if a.Is4() != first.Is4() {
			problem(rows.Error, "tunnel address %s has not the family of the node's first, %s: tunnels are of one family; give the NIC an address of that family. Devices of the NIC use %s meanwhile", a, first, first)
			continue
		}
		l, err := k.holder(links, a)
		if err != nil {
			return out, err
		}
		if l == nil {
			problem(rows.Error, "tunnel address %s is on no network device: devices of its NIC use %s meanwhile; add it to the NIC again", a, first)
			continue
		}
		if need := podMTU + GeneveOverhead([]netip.Addr{a}); podMTU > 0 && l.Attrs().MTU < need {
			problem(rows.Error, "%s, which has tunnel address %s, has MTU %d, and pods' packets need %d in a tunnel: larger ones are lost; raise its MTU to %d", l.Attrs().Name, a, l.Attrs().MTU, need, need)
		}
		if err := k.addTunnel(&out, l, a); err != nil {
			return out, err
		}
	}
	return out, nil
}

// holder is the link that has an address; nil: none.
func (k *Kernel) holder(links []netlink.Link, a netip.Addr) (netlink.Link, error) {
	for _, l := range links {
		have, err := k.addresses(l)
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", l.Attrs().Name, err)
		}
		if slices.ContainsFunc(have, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return l, nil
		}
	}
	return nil, nil
}

// addTunnel adds an address. What is sent from it takes the routes that the main table
// has by its link, on which it may be that a better one by another NIC lies there.
func (k *Kernel) addTunnel(out *Tunnels, l netlink.Link, a netip.Addr) error {
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_MAIN}
	list, err := dump.Whole(func() ([]netlink.Route, error) {
		return k.nl.RouteListFiltered(family, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("routes of %s: %w", l.Attrs().Name, err)
	}
	n := len(out.Addresses)
	out.Addresses = append(out.Addresses, a)
	out.Config.Links = append(out.Config.Links, Link{Name: l.Attrs().Name})
	out.Config.Rules = append(out.Config.Rules, Rule{Priority: tunnelPriority, From: netip.PrefixFrom(a, a.BitLen()), Table: tunnelTable + n})
	for _, r := range list {
		if r.Type != unix.RTN_UNICAST || r.Protocol == Protocol {
			continue
		}
		own := routeOf(r, map[int]string{l.Attrs().Index: l.Attrs().Name})
		if own.Dst.Addr().IsLinkLocalUnicast() {
			continue
		}
		own.Table, own.Source = tunnelTable+n, netip.Addr{}
		out.Config.Routes = append(out.Config.Routes, own)
	}
	return nil
}
