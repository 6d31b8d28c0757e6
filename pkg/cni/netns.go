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
	return f, nil
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

// Attach implements Links.
func (v *Veths) Attach(d Device, e Endpoint, enter func(string) error) error {
	if err := enter(StageMove); err != nil {
		return err
	}
	ns, err := openNetns(e.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	peer, err := find(v.handle, d.Parked)
	if err != nil {
		return err
	}
	if peer == nil {
		return fmt.Errorf("the parked peer %s is gone", d.Parked)
	}
	if err := v.handle.LinkSetNsFd(peer, int(ns.Fd())); err != nil {
		return fmt.Errorf("moving %s to %s: %w", d.Parked, e.Netns, err)
	}
	return v.inside(ns, func(h *netlink.Handle) error {
		if err := enter(StageConfigure); err != nil {
			return err
		}
		peer, err := h.LinkByName(d.Parked)
		if err != nil {
			return fmt.Errorf("finding %s in %s: %w", d.Parked, e.Netns, err)
		}
		if err := configure(h, peer, e); err != nil {
			return err
		}
		if err := enter(StageAnnounce); err != nil {
			return err
		}
		return announce(peer.Attrs().Index, peer.Attrs().HardwareAddr, e.Addresses)
	})
}

// Detach implements Links.
func (v *Veths) Detach(d Device, e Endpoint) error {
	ns, err := openNetns(e.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	return v.inside(ns, func(h *netlink.Handle) error {
		peer, err := find(h, d.Parked)
		if err == nil && peer == nil {
			peer, err = find(h, e.IfName)
		}
		if err != nil || peer == nil {
			return err // nothing to take back: Parked tells
		}
		if err := h.LinkSetDown(peer); err != nil {
			return fmt.Errorf("bringing down %s: %w", e.IfName, err)
		}
		if err := h.LinkSetName(peer, d.Parked); err != nil {
			return fmt.Errorf("naming %s %s again: %w", e.IfName, d.Parked, err)
		}
		if err := h.LinkSetNsFd(peer, int(v.home.Fd())); err != nil {
			return fmt.Errorf("taking %s back: %w", d.Parked, err)
		}
		return nil
	})
}

// configure names the peer, gives it addresses and routes, and brings it and lo up.
func configure(h *netlink.Handle, peer netlink.Link, e Endpoint) error {
	if err := h.LinkSetName(peer, e.IfName); err != nil {
		return fmt.Errorf("naming the interface %s: %w", e.IfName, err)
	}
	for _, s := range []struct{ family, key, value string }{
		{"ipv6", "accept_ra", "0"}, // decision 31: its addresses are static
		{"ipv6", "autoconf", "0"},
		{"ipv4", "arp_notify", "1"}, // also when the link comes back later
	} {
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
		if err := h.AddrAdd(peer, addrOf(a)); err != nil {
			return fmt.Errorf("adding address %s: %w", a, err)
		}
	}
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}} // lo is 1 in every namespace
	if err := h.LinkSetUp(lo); err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	if err := h.LinkSetUp(peer); err != nil {
		return fmt.Errorf("bringing up %s: %w", e.IfName, err)
	}
	for _, gw := range e.Gateways {
		if err := h.RouteReplace(routeVia(gw, e.Addresses, peer.Attrs().Index)); err != nil {
			return fmt.Errorf("adding the default route via %s: %w", gw, err)
		}
	}
	return nil
}

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
	return v.inside(ns, func(h *netlink.Handle) error { return verify(h, host, e) })
}

func verify(h *netlink.Handle, host netlink.Link, e Endpoint) error {
	pod, err := find(h, e.IfName)
	if err != nil {
		return err
	}
	if pod == nil || pod.Type() != "veth" || pod.Attrs().ParentIndex != host.Attrs().Index {
		return fmt.Errorf("%s in the sandbox is not the peer of %s", e.IfName, host.Attrs().Name)
	}
	if pod.Attrs().Flags&net.FlagUp == 0 || host.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("%s or %s is down", e.IfName, host.Attrs().Name)
	}
	addrs, err := h.AddrList(pod, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	var missing []error
	for _, want := range e.Addresses {
		if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == want.String() }) {
			missing = append(missing, fmt.Errorf("%s has no address %s", e.IfName, want))
		}
	}
	routes, err := h.RouteList(pod, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, gw := range e.Gateways {
		if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw.Equal(gw.AsSlice()) && isDefault(r.Dst) }) {
			missing = append(missing, fmt.Errorf("%s has no default route via %s", e.IfName, gw))
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
