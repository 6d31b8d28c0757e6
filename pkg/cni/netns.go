package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
)

// openNetns opens a sandbox's namespace. The runtime may name it under /var/run,
// which in the agent's container need not be /run.
func openNetns(path string) (*os.File, error) {
	f, err := os.Open(path)
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok && err != nil {
		f, err = os.Open("/run/" + rest)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNetns, err)
	}
	// A namespace that is gone may leave its mount point, an empty file.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return nil, errors.Join(fmt.Errorf("%w: %s is no namespace", errNetns, path), err, f.Close())
	}
	return f, nil
}

// Lives implements Links.
func (v *Veths) Lives(netns string) bool {
	f, err := openNetns(netns)
	if err == nil {
		err = f.Close()
	}
	return err == nil
}

// inside runs f on a thread that has entered the namespace, with a netlink handle
// there. The thread enters once for all that is to be done.
func (v *Veths) inside(ns *os.File, f func(h *netlink.Handle) error) error {
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			// A thread that cannot go back stays locked and dies with this goroutine.
			runtime.LockOSThread()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("%w: entering %s: %w", errNetns, ns.Name(), err)
			}
			defer func() {
				if unix.Setns(int(v.home.Fd()), unix.CLONE_NEWNET) == nil {
					runtime.UnlockOSThread()
				}
			}()
			h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return err
			}
			defer h.Close()
			return f(h)
		}()
	}()
	return <-done
}

// Configure implements Links.
func (v *Veths) Configure(list ...Pair) error {
	return v.within(list, func(h *netlink.Handle) error {
		lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}} // lo is 1 in every namespace
		if err := h.LinkSetUp(lo); err != nil {
			return fmt.Errorf("bringing up lo: %w", err)
		}
		for _, p := range list {
			pod, err := h.LinkByName(p.IfName)
			if err != nil {
				return fmt.Errorf("finding %s in %s: %w", p.IfName, p.Netns, err)
			}
			// Of a device whose packets come from a NIC the sums are complete.
			if !v.checksum && pod.Type() == "veth" {
				if err := txOff(p.IfName); err != nil {
					return err
				}
			}
			if err := configure(h, pod, p.Endpoint); err != nil {
				return err
			}
		}
		return nil
	})
}

// Announce implements Links.
func (v *Veths) Announce(list ...Pair) error {
	return v.within(list, func(*netlink.Handle) error { return announce(list) })
}

// within runs f on a thread that has entered the pairs' sandbox, once for all.
func (v *Veths) within(list []Pair, f func(h *netlink.Handle) error) error {
	if len(list) == 0 {
		return nil
	}
	ns, err := openNetns(list[0].Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return v.inside(ns, f)
}

// configure gives a pod's end addresses and routes, and brings it up.
func configure(h *netlink.Handle, pod netlink.Link, e Endpoint) error {
	settings := []struct{ family, key, value string }{
		{"ipv6", "accept_ra", "0"}, // decision 31: its addresses are static
		{"ipv6", "autoconf", "0"},
		{"ipv6", "accept_dad", "0"},    // nobody else has its MAC, so nobody its link-local address (decision 24)
		{"ipv6", "addr_gen_mode", "0"}, // made of the MAC: OVN's port security knows no other
		{"ipv4", "arp_notify", "1"},    // also when the link comes back later
	}
	if e.Physical {
		settings = settings[len(settings)-1:]
	}
	for _, s := range settings {
		if err := sysctl(s.family, e.IfName, s.key, s.value); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(e.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() }) {
		// A runtime may turn IPv6 off for all interfaces of a sandbox.
		if err := sysctl("ipv6", e.IfName, "disable_ipv6", "0"); err != nil {
			return err
		}
	}
	for _, a := range e.Addresses {
		addr := addrOf(a)
		if e.Rank > 0 {
			addr.Flags |= unix.IFA_F_NOPREFIXROUTE // the subnet is reached by the first interface on it
		}
		if err := h.AddrAdd(pod, addr); err != nil {
			return fmt.Errorf("adding address %s: %w", a, err)
		}
	}
	if err := h.LinkSetUp(pod); err != nil {
		return fmt.Errorf("bringing up %s: %w", e.IfName, err)
	}
	for _, gw := range e.Gateways {
		if err := h.RouteReplace(routeVia(gw, e.Addresses, pod.Attrs().Index)); err != nil {
			return fmt.Errorf("adding the default route via %s: %w", gw, err)
		}
	}
	for _, r := range e.Routes {
		route := &netlink.Route{LinkIndex: pod.Attrs().Index, Dst: ipNet(r.Destination.Masked()), Gw: r.Gateway.AsSlice(), Priority: r.Metric}
		if !r.Gateway.IsValid() {
			route.Scope = netlink.SCOPE_LINK
		}
		if r.Metric > 0 && r.Gateway.Is6() {
			route.Priority += ip6Metric
		}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("adding the route to %s via %s: %w", r.Destination, r.Gateway, err)
		}
	}
	if e.Rank > 0 {
		return bySource(h, pod.Attrs().Index, e)
	}
	return nil
}

// sourceTables is the first of the routing tables for interfaces that share a network
// with an earlier one; an interface's index is added.
const sourceTables = 10_000

// bySource makes what has an interface's addresses leave by it. Two interfaces on one
// subnet have one route to it, the first's, and a port takes its own addresses only: an
// answer from the second's address would leave by the first, and be dropped there.
func bySource(h *netlink.Handle, index int, e Endpoint) error {
	table := sourceTables + index
	for _, a := range e.Addresses {
		family := netlink.FAMILY_V4
		if a.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		route := &netlink.Route{LinkIndex: index, Table: table, Dst: ipNet(a.Masked()), Scope: netlink.SCOPE_LINK, Family: family}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("adding the route to %s in table %d: %w", a.Masked(), table, err)
		}
		rule := netlink.NewRule()
		rule.Family, rule.Table, rule.Priority = family, table, sourceTables
		rule.Src = ipNet(netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		if err := h.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("adding the rule for %s: %w", a.Addr(), err)
		}
	}
	for _, r := range e.Routes {
		route := &netlink.Route{LinkIndex: index, Table: table, Dst: ipNet(r.Destination.Masked()), Gw: r.Gateway.AsSlice()}
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("adding the route to %s in table %d: %w", r.Destination, table, err)
		}
	}
	for _, gw := range e.Gateways {
		route := routeVia(gw, e.Addresses, index)
		route.Table = table
		if err := h.RouteReplace(route); err != nil {
			return fmt.Errorf("adding the default route via %s in table %d: %w", gw, table, err)
		}
	}
	return nil
}

// ip6Metric is what the kernel gives an IPv6 route that names no metric.
const ip6Metric = 1024

func addrOf(a netip.Prefix) *netlink.Addr {
	addr := &netlink.Addr{IPNet: ipNet(a)}
	if a.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // usable at once; the allocator vouches for uniqueness
	}
	return addr
}

func ipNet(a netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}
}

// routeVia is the default route; a gateway outside the pod's subnets is on the link.
func routeVia(gw netip.Addr, addresses []netip.Prefix, index int) *netlink.Route {
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(defaultRoute(gw)), Gw: gw.AsSlice()}
	if !slices.ContainsFunc(addresses, func(a netip.Prefix) bool { return a.Contains(gw) }) {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	return r
}

// Route implements Links.
func (v *Veths) Route(e Endpoint) error {
	ns, err := openNetns(e.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return v.inside(ns, func(h *netlink.Handle) error {
		link, err := h.LinkByName(e.IfName)
		if err != nil {
			return fmt.Errorf("finding %s in %s: %w", e.IfName, e.Netns, err)
		}
		routes, err := dump.Whole(func() ([]netlink.Route, error) { return h.RouteList(nil, netlink.FAMILY_ALL) })
		if err != nil {
			return err
		}
		for _, r := range routes {
			if !isDefault(r.Dst) || r.Table != unix.RT_TABLE_MAIN || r.Gw == nil {
				continue
			}
			if err := h.RouteDel(&r); err != nil {
				return fmt.Errorf("removing the default route via %s: %w", r.Gw, err)
			}
		}
		for _, gw := range e.Gateways {
			if err := h.RouteReplace(routeVia(gw, []netip.Prefix{netip.PrefixFrom(gw, 0)}, link.Attrs().Index)); err != nil {
				return fmt.Errorf("adding the default route via %s: %w", gw, err)
			}
		}
		return nil
	})
}

// Verify implements Links.
func (v *Veths) Verify(d Device, e Endpoint) error {
	host, err := find(v.handle, d.Host)
	if err != nil {
		return err
	}
	if host == nil {
		return fmt.Errorf("the node's end %s is gone", d.Host)
	}
	ns, err := openNetns(e.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return v.inside(ns, func(h *netlink.Handle) error { return verify(h, host, d, e) })
}

func verify(h *netlink.Handle, host netlink.Link, d Device, e Endpoint) error {
	pod, err := find(h, e.IfName)
	if err != nil {
		return err
	}
	if pod == nil || !d.Given && (pod.Type() != "veth" || pod.Attrs().ParentIndex != host.Attrs().Index) {
		return fmt.Errorf("%s in the sandbox is not the peer of %s", e.IfName, host.Attrs().Name)
	}
	if pod.Attrs().Flags&net.FlagUp == 0 || host.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("%s or %s is down", e.IfName, host.Attrs().Name)
	}
	addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return h.AddrList(pod, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	var missing []error
	for _, want := range e.Addresses {
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == want.String() }) {
			missing = append(missing, fmt.Errorf("%s has no address %s", e.IfName, want))
		}
	}
	routes, err := dump.Whole(func() ([]netlink.Route, error) { return h.RouteList(pod, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, gw := range e.Gateways {
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw.Equal(gw.AsSlice()) && isDefault(r.Dst) }) {
			missing = append(missing, fmt.Errorf("%s has no default route via %s", e.IfName, gw))
		}
	}
	for _, want := range e.Routes {
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Gw.Equal(want.Gateway.AsSlice()) && r.Dst.String() == want.Destination.Masked().String()
		}) {
			missing = append(missing, fmt.Errorf("%s has no route to %s via %s", e.IfName, want.Destination, want.Gateway))
		}
	}
	return errors.Join(missing...)
}

// isDefault knows both spellings of the default route's destination.
func isDefault(dst *net.IPNet) bool {
	if dst == nil {
		return true
	}
	ones, _ := dst.Mask.Size()
	return ones == 0
}
