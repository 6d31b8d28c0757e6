package host

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
)

// ip6DefaultMetric is what the kernel makes of metric 0 in IPv6.
const ip6DefaultMetric = 1024

// setRoutes adds what is declared on links that exist and sweeps what bears our
// protocol and is not declared.
func (p *pass) setRoutes() error {
	have, err := p.ownRoutes()
	if err != nil {
		return err
	}
	var errs []error
	wanted := map[Route]bool{}
	for _, r := range p.cfg.Routes {
		r = r.canonical()
		wanted[r] = true
		if l := p.links[r.Link]; l != nil && !slices.Contains(have, r) {
			err := p.changed(p.nl.RouteReplace(r.netlink(l)), "route %s on %s", r.Dst, r.Link)
			if !p.vanished(r.Link, err) {
				errs = append(errs, err)
			}
		}
	}
	for _, r := range have {
		if wanted[r] || p.replaced(r) {
			continue
		}
		l, err := p.nl.LinkByName(r.Link)
		if err != nil {
			continue // it went, and the route with it
		}
		if err := p.nl.RouteDel(r.netlink(l)); !errors.Is(err, unix.ESRCH) {
			errs = append(errs, p.changed(err, "route %s on %s: remove", r.Dst, r.Link))
		}
	}
	return errors.Join(errs...)
}

// replaced reports whether a declared route took r's place in the kernel, where
// an IPv4 route is identified by destination, table and metric alone.
func (p *pass) replaced(r Route) bool {
	return r.Dst.Addr().Is4() && slices.ContainsFunc(p.cfg.Routes, func(w Route) bool {
		w = w.canonical()
		return p.links[w.Link] != nil && w.Dst == r.Dst && w.Table == r.Table && w.Metric == r.Metric
	})
}

// ownRoutes lists the routes that bear our protocol, in every table.
func (k *Kernel) ownRoutes() ([]Route, error) {
	filter := &netlink.Route{Protocol: Protocol, Table: unix.RT_TABLE_UNSPEC}
	rs, err := dump.Whole(func() ([]netlink.Route, error) {
		return k.nl.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	names, err := k.linkNames()
	if err != nil {
		return nil, err
	}
	var own []Route
	for _, r := range rs {
		own = append(own, routeOf(r, names))
	}
	return own, nil
}

func (k *Kernel) linkNames() (map[int]string, error) {
	ls, err := dump.Whole(k.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range ls {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

// canonical fills in what the kernel does, so that routes compare with ==.
func (r Route) canonical() Route {
	r.Dst = r.Dst.Masked()
	r.Table = cmp.Or(r.Table, unix.RT_TABLE_MAIN)
	if r.Metric == 0 && r.Dst.Addr().Is6() {
		r.Metric = ip6DefaultMetric
	}
	return r
}

// netlink is the route as the kernel takes it, with our protocol.
func (r Route) netlink(l netlink.Link) *netlink.Route {
	r = r.canonical()
	n := &netlink.Route{
		LinkIndex: l.Attrs().Index, Dst: ipNet(r.Dst), Table: r.Table, Priority: r.Metric, Protocol: Protocol, MTU: r.MTU,
	}
	if r.Gateway.IsValid() {
		n.Gw = r.Gateway.AsSlice()
	} else if r.Dst.Addr().Is4() {
		n.Scope = netlink.SCOPE_LINK
	}
	if r.Source.IsValid() {
		n.Src = r.Source.AsSlice()
	}
	if r.OnLink {
		n.Flags = int(netlink.FLAG_ONLINK)
	}
	return n
}

// routeOf is the inverse of Route.netlink.
func routeOf(n netlink.Route, names map[int]string) Route {
	r := Route{
		Link: names[n.LinkIndex], Gateway: addrOf(n.Gw), Source: addrOf(n.Src), Table: n.Table, Metric: n.Priority,
		OnLink: n.Flags&int(netlink.FLAG_ONLINK) != 0, MTU: n.MTU,
	}
	if dst, ok := prefixOf(n.Dst); ok {
		r.Dst = dst
	} else {
		r.Dst = defaultOf(n.Family)
	}
	return r.canonical()
}

func defaultOf(family int) netip.Prefix {
	if family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// setRules adds the declared rules and sweeps ours that are not declared.
func (p *pass) setRules() error {
	rs, err := dump.Whole(func() ([]netlink.Rule, error) { return p.nl.RuleList(netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list rules: %w", err)
	}
	var errs []error
	var have []Rule
	for _, n := range rs {
		if n.Protocol != Protocol {
			continue
		}
		r := ruleOf(n)
		if have = append(have, r); !slices.Contains(p.cfg.Rules, r) {
			errs = append(errs, p.changed(p.nl.RuleDel(&n), "rule %d: remove", r.Priority))
		}
	}
	for _, r := range p.cfg.Rules {
		if !slices.Contains(have, r) {
			errs = append(errs, p.changed(p.nl.RuleAdd(r.netlink()), "rule %d: add", r.Priority))
		}
	}
	return errors.Join(errs...)
}

func (r Rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Protocol, n.Priority, n.Table, n.Mark = netlink.FAMILY_V4, Protocol, r.Priority, r.Table, r.Mark
	if r.From.Addr().Is6() || r.To.Addr().Is6() {
		n.Family = netlink.FAMILY_V6
	}
	if r.From.IsValid() {
		n.Src = ipNet(r.From)
	}
	if r.To.IsValid() {
		n.Dst = ipNet(r.To)
	}
	return n
}

func ruleOf(n netlink.Rule) Rule {
	r := Rule{Priority: n.Priority, Mark: n.Mark, Table: n.Table}
	if p, ok := prefixOf(n.Src); ok {
		r.From = p
	}
	if p, ok := prefixOf(n.Dst); ok {
		r.To = p
	}
	return r
}
