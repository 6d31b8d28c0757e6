package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// Conntrack forgets the connections of addresses that pass from one pod to another
// (decision 32). The kernel's table is asked on every node: the host's own
// netfilter may track what passes the management port. On the userspace datapath
// OVN's connections are in vswitchd, and its table is asked as well.
type Conntrack struct {
	tables []connections
}

// connections is one table of connections.
type connections interface {
	// holders lists addresses that connections have and that are in subnets; it may
	// repeat itself.
	holders(ctx context.Context, subnets []netip.Prefix) ([]netip.Addr, error)
	// forget removes every connection that has one of the addresses at an end, be it
	// translated or not.
	forget(ctx context.Context, addresses []netip.Addr) error
}

// Conntrack opens the tables that connections of a datapath are in. runDir is where
// vswitchd has its sockets.
func (k *Kernel) Conntrack(dp intent.Datapath, runDir string) *Conntrack {
	c := &Conntrack{tables: []connections{kernelConnections{k.nl}}}
	if dp == intent.UserspaceDatapath {
		c.tables = append(c.tables, switchConnections{control: func() (string, error) { return controlSocket(runDir, "ovs-vswitchd") }})
	}
	return c
}

// Flush forgets the connections of addresses.
func (c *Conntrack) Flush(ctx context.Context, addresses []netip.Addr) error {
	var errs []error
	for _, t := range c.tables {
		errs = append(errs, t.forget(ctx, addresses))
	}
	return errors.Join(errs...)
}

// Sweep forgets the connections of all addresses in subnets but those to keep:
// nobody has flushed what was freed while no agent ran.
func (c *Conntrack) Sweep(ctx context.Context, subnets []netip.Prefix, keep []netip.Addr) error {
	var errs []error
	for _, t := range c.tables {
		found, err := t.holders(ctx, subnets)
		if err == nil {
			slices.SortFunc(found, netip.Addr.Compare)
			stale := slices.DeleteFunc(slices.Compact(found), func(a netip.Addr) bool { return slices.Contains(keep, a) })
			err = t.forget(ctx, stale)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func within(subnets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
}

// kernelConnections is the table of the network namespace of a netlink handle.
type kernelConnections struct{ nl *netlink.Handle }

// forget implements connections.
func (k kernelConnections) forget(_ context.Context, addresses []netip.Addr) error {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		doomed := flowOf(addresses)
		if len(ofFamily(addresses, family)) == 0 {
			continue
		}
		if _, err := k.nl.ConntrackDeleteFilters(netlink.ConntrackTable, family, doomed); untracked(err) {
			return nil
		} else if err != nil {
			return fmt.Errorf("kernel's connections of %v: %w", addresses, err)
		}
	}
	return nil
}

// holders implements connections.
func (k kernelConnections) holders(_ context.Context, subnets []netip.Prefix) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		list, err := k.nl.ConntrackTableList(netlink.ConntrackTable, family)
		if untracked(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list the kernel's connections: %w", err)
		}
		for _, f := range list {
			for _, a := range ends(f) {
				if within(subnets, a) {
					out = append(out, a)
				}
			}
		}
	}
	return out, nil
}

// untracked reports the error of a kernel that has no connection tracking to ask:
// no netfilter sockets, or no table behind them.
func untracked(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EINVAL)
}

// flowOf is a netlink.CustomConntrackFilter.
type flowOf []netip.Addr

// MatchConntrackFlow reports whether a flow has one of the addresses.
func (f flowOf) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	for _, a := range ends(flow) {
		if slices.Contains(f, a) {
			return true
		}
	}
	return false
}

// ends are the addresses of both directions of a flow.
func ends(f *netlink.ConntrackFlow) []netip.Addr {
	var out []netip.Addr
	for _, ip := range []net.IP{f.Forward.SrcIP, f.Forward.DstIP, f.Reverse.SrcIP, f.Reverse.DstIP} {
		out = append(out, addrOf(ip))
	}
	return out
}

func ofFamily(addresses []netip.Addr, family netlink.InetFamily) (out []netip.Addr) {
	for _, a := range addresses {
		if a.Is4() == (family == unix.AF_INET) {
			out = append(out, a)
		}
	}
	return out
}

// switchConnections is the table inside vswitchd, which its control socket reaches
// (ovs-vswitchd(8), dpctl/dump-conntrack and dpctl/flush-conntrack).
type switchConnections struct {
	control func() (socket string, err error)
}

// userspaceDP is the one datapath that all bridges of type netdev share.
const userspaceDP = string(intent.UserspaceDatapath) + "@ovs-netdev"

// call calls vswitchd. What is not there has no connections: neither a vswitchd
// that is down nor one without bridges yet is an error.
func (s switchConnections) call(ctx context.Context, method string, args ...string) (string, error) {
	socket, err := s.control()
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	out, err := unixctl(ctx, socket, method, append([]string{userspaceDP}, args...)...)
	var refused *unixctlError
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
		return "", nil
	case errors.As(err, &refused) && strings.Contains(refused.text, unix.ENODEV.Error()):
		return "", nil
	}
	return out, err
}

// forget implements connections. Two calls an address: whoever began, and whatever
// the packets were translated to, the address begins either the original direction
// or the reply.
func (s switchConnections) forget(ctx context.Context, addresses []netip.Addr) error {
	for _, a := range addresses {
		tuple := "ct_nw_src=" + a.String()
		if a.Is6() {
			tuple = "ct_ipv6_src=" + a.String()
		}
		for _, args := range [][]string{{tuple}, {"", tuple}} {
			if _, err := s.call(ctx, "dpctl/flush-conntrack", args...); err != nil {
				return fmt.Errorf("vswitchd's connections of %s: %w", a, err)
			}
		}
	}
	return nil
}

// holders implements connections. A line is
// udp,orig=(src=10.244.1.3,dst=…,sport=…),reply=(src=…),zone=1.
func (s switchConnections) holders(ctx context.Context, subnets []netip.Prefix) ([]netip.Addr, error) {
	dump, err := s.call(ctx, "dpctl/dump-conntrack")
	if err != nil {
		return nil, fmt.Errorf("list vswitchd's connections: %w", err)
	}
	var out []netip.Addr
	for _, word := range strings.FieldsFunc(dump, func(r rune) bool { return strings.ContainsRune(",()\n", r) }) {
		text, ok := strings.CutPrefix(word, "src=")
		if !ok {
			continue // each end is the source of one direction
		}
		if a, err := netip.ParseAddr(text); err == nil && within(subnets, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// controlSocket finds the control socket of a daemon of OVS's in its run directory,
// by the process id in its pidfile; os.ErrNotExist when it has none.
func controlSocket(runDir, daemon string) (string, error) {
	pid, err := os.ReadFile(filepath.Join(runDir, daemon+".pid"))
	if err != nil {
		return "", err
	}
	return filepath.Join(runDir, daemon+"."+strings.TrimSpace(string(pid))+".ctl"), nil
}
