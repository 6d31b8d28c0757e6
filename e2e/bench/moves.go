package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// moves are the changes of the kernel that giving a soft device takes, and no more: the
// representor made mute, the function moved by way of a namespace of its own, renamed,
// given MAC, MTU and an address, both brought up; and all of it back. No record, no lock,
// no look at what was there before, no switch, no process that starts.
type moves struct {
	soft     softPair
	home     *os.File
	handle   *netlink.Handle // in the node's namespace
	function *netlink.LinkAttrs
}

func newMoves(p softPair) (*moves, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	l, err := h.LinkByName(p.netdev)
	if err != nil {
		return nil, err
	}
	return &moves{soft: p, home: home, handle: h, function: l.Attrs()}, nil
}

func (m *moves) name() string                         { return "the same changes, bare" }
func (m *moves) bind(context.Context, sandbox) error  { return nil }
func (m *moves) clear(context.Context, sandbox) error { return nil }

// end is what a device is to be.
type end struct {
	name string
	mac  net.HardwareAddr
	mtu  int
}

func (m *moves) add(_ context.Context, s sandbox) error {
	l, err := m.handle.LinkByName(m.soft.representor)
	if err != nil {
		return err
	}
	for _, v := range []struct{ family, key, value string }{{"ipv6", "disable_ipv6", "1"}, {"ipv6", "accept_ra", "0"}, {"ipv4", "arp_ignore", "8"}} {
		if err := os.WriteFile(filepath.Join("/proc/sys/net", v.family, "conf", m.soft.representor, v.key), []byte(v.value), 0); err != nil {
			return err
		}
	}
	if err := errors.Join(m.handle.LinkSetMTU(l, mtu), m.handle.LinkSetAlias(l, s.pod)); err != nil {
		return err
	}
	pod, inPod, err := open(s.netns)
	if err != nil {
		return err
	}
	defer pod.Close()
	defer inPod.Close()
	if err := m.through(m.handle, m.soft.netdev, end{deviceIfName, softMAC, mtu}, pod); err != nil {
		return err
	}
	function, err := inPod.LinkByName(deviceIfName)
	if err != nil {
		return err
	}
	address := netip.MustParsePrefix("11.0.0.9/24")
	to := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), 32)}
	return errors.Join(inPod.AddrAdd(function, &netlink.Addr{IPNet: to}), inPod.LinkSetUp(function), m.handle.LinkSetUp(l))
}

func (m *moves) del(_ context.Context, s sandbox) error {
	l, err := m.handle.LinkByName(m.soft.representor)
	if err != nil {
		return err
	}
	pod, inPod, err := open(s.netns)
	if err != nil {
		return err
	}
	defer pod.Close()
	defer inPod.Close()
	if err := m.handle.LinkSetDown(l); err != nil {
		return err
	}
	if err := m.through(inPod, deviceIfName, end{m.soft.netdev, m.function.HardwareAddr, softMTU}, m.home); err != nil {
		return err
	}
	return errors.Join(m.handle.LinkSetMTU(l, softMTU), m.handle.LinkSetAlias(l, ""))
}

// open opens a network namespace, with a socket in it. The caller closes both.
func open(path string) (*os.File, *netlink.Handle, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(f.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, h, nil
}

// through moves a device from one namespace to another, by way of a third.
func (m *moves) through(from *netlink.Handle, name string, want end, to *os.File) error {
	l, err := from.LinkByName(name)
	if err != nil {
		return err
	}
	if err := from.LinkSetDown(l); err != nil {
		return err
	}
	temporary, err := m.temporary()
	if err != nil {
		return err
	}
	defer temporary.Close()
	between, err := netlink.NewHandleAt(netns.NsHandle(temporary.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer between.Close()
	if err := from.LinkSetNsFd(l, int(temporary.Fd())); err != nil {
		return err
	}
	if l, err = between.LinkByName(name); err != nil {
		return err
	}
	return errors.Join(between.LinkSetName(l, want.name), between.LinkSetHardwareAddr(l, want.mac), between.LinkSetMTU(l, want.mtu), between.LinkSetNsFd(l, int(to.Fd())))
}

// temporary makes a namespace without a name.
func (m *moves) temporary() (*os.File, error) {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	f, err := os.Open("/proc/thread-self/ns/net")
	if back := unix.Setns(int(m.home.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, fmt.Errorf("a thread cannot go home: %w", errors.Join(back, err)) // and stays locked
	}
	runtime.UnlockOSThread()
	return f, err
}

const deviceIfName = "net1"

// softMAC is that of functions in pods.
var softMAC = net.HardwareAddr{0x0a, 0x58, 11, 0, 0, 9}
