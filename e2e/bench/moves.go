package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// moves are the changes of the kernel that giving a soft device takes, and no more: the
// representor made mute, the function moved, renamed, given MAC, MTU and an address, both
// brought up; and all of it back. No record, no lock, no look at what was there before, no
// switch, no process that starts.
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
	if err := m.move(pod); err != nil {
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
	f, err := inPod.LinkByName(deviceIfName)
	if err != nil {
		return err
	}
	if err := errors.Join(inPod.LinkSetDown(f), inPod.LinkSetName(f, m.soft.netdev), inPod.LinkSetHardwareAddr(f, m.function.HardwareAddr),
		inPod.LinkSetMTU(f, softMTU), inPod.LinkSetNsFd(f, int(m.home.Fd()))); err != nil {
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

// move moves the function to a pod, and makes it what it is to be there, in one message.
func (m *moves) move(to *os.File) error {
	l, err := m.handle.LinkByName(m.soft.netdev)
	if err != nil {
		return err
	}
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(l.Attrs().Index)
	request.AddData(head)
	for kind, value := range map[int][]byte{unix.IFLA_NET_NS_FD: nl.Uint32Attr(uint32(to.Fd())), unix.IFLA_IFNAME: nl.ZeroTerminated(deviceIfName),
		unix.IFLA_ADDRESS: softMAC, unix.IFLA_MTU: nl.Uint32Attr(mtu)} {
		request.AddData(nl.NewRtAttr(kind, value))
	}
	_, err = request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

const deviceIfName = "net1"

// softMAC is that of functions in pods.
var softMAC = net.HardwareAddr{0x0a, 0x58, 11, 0, 0, 9}
