package sriov

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// NetlinkKernel is the kernel, in the network namespace that it was opened in: the
// node's.
type NetlinkKernel struct {
	host    *namespace
	route   *netlink.Handle
	devlink *KernelDevlink
	ethtool *ethtool.Ethtool
}

// NewKernel opens sockets to the kernel. Close it when done.
func NewKernel() (*NetlinkKernel, error) {
	runtime.LockOSThread() // all sockets are of one thread, so of one namespace
	defer runtime.UnlockOSThread()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	k := &NetlinkKernel{}
	if k.host, err = newNamespace(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	k.host.home = true
	if k.route, err = k.host.handle(unix.NETLINK_ROUTE); err == nil {
		if k.devlink, err = NewKernelDevlink(); err == nil {
			k.ethtool, err = ethtool.NewEthtool()
		}
	}
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("opening sockets to the kernel: %w", err)
	}
	return k, nil
}

// Close closes the sockets.
func (k *NetlinkKernel) Close() {
	if k.ethtool != nil {
		k.ethtool.Close()
	}
	if k.devlink != nil {
		k.devlink.Close()
	}
	_ = k.host.close()
}

// Devlink is the kernel's.
func (k *NetlinkKernel) Devlink() Devlink { return k.devlink }

// Host implements Kernel.
func (k *NetlinkKernel) Host() Namespace { return k.host }

// Boot implements Kernel.
func (k *NetlinkKernel) Boot() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

func handleOf(ns Namespace) (*netlink.Handle, error) {
	return ns.(*namespace).handle(unix.NETLINK_ROUTE)
}

// Link implements Kernel.
func (k *NetlinkKernel) Link(ns Namespace, name string) (Link, error) {
	h, err := handleOf(ns)
	if err != nil {
		return Link{}, err
	}
	l, err := h.LinkByName(name)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return Link{}, fmt.Errorf("%s: %w", name, ErrNoLink)
	}
	if err != nil {
		return Link{}, err
	}
	return linkOf(l), nil
}

// Links implements Kernel.
func (k *NetlinkKernel) Links(ns Namespace) ([]Link, error) {
	h, err := handleOf(ns)
	if err != nil {
		return nil, err
	}
	var list []netlink.Link
	for range attempts {
		if list, err = h.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]Link, len(list))
	for n, l := range list {
		out[n] = linkOf(l)
	}
	return out, nil
}

func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{Index: a.Index, Name: a.Name, AltNames: a.AltNames, Alias: a.Alias, MAC: a.HardwareAddr.String(), MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0, Promisc: a.RawFlags&unix.IFF_PROMISC != 0, Veth: l.Type() == "veth", Parent: a.ParentDev}
	if out.Veth || a.ParentIndex != a.Index {
		out.Peer = a.ParentIndex
	}
	return out
}

// on calls a handle's function about one device.
func on(ns Namespace, index int, f func(*netlink.Handle, netlink.Link) error) error {
	h, err := handleOf(ns)
	if err != nil {
		return err
	}
	return f(h, &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}})
}

// SetUp implements Kernel.
func (k *NetlinkKernel) SetUp(ns Namespace, index int, up bool) error {
	return on(ns, index, func(h *netlink.Handle, l netlink.Link) error {
		if up {
			return h.LinkSetUp(l)
		}
		return h.LinkSetDown(l)
	})
}

// AddAltName implements Kernel.
func (k *NetlinkKernel) AddAltName(ns Namespace, index int, name string) error {
	return on(ns, index, func(h *netlink.Handle, l netlink.Link) error { return h.LinkAddAltName(l, name) })
}

// DelAltName implements Kernel.
func (k *NetlinkKernel) DelAltName(ns Namespace, index int, name string) error {
	return on(ns, index, func(h *netlink.Handle, l netlink.Link) error { return h.LinkDelAltName(l, name) })
}

// Set implements Kernel.
func (k *NetlinkKernel) Set(ns Namespace, index int, c Change) error {
	return ns.(*namespace).set(index, c.attributes()...)
}

// Move implements Kernel. The kernel moves first (rtnetlink.c, do_setlink: all versions);
// the name is what the device has there also where its old one is taken.
func (k *NetlinkKernel) Move(from Namespace, index int, to Namespace, c Change) error {
	there := nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(to.(*namespace).file.Fd())))
	return from.(*namespace).set(index, append(c.attributes(), there)...)
}

// attributes of a message that makes the change.
func (c Change) attributes() []*nl.RtAttr {
	var out []*nl.RtAttr
	if c.MAC != nil {
		out = append(out, nl.NewRtAttr(unix.IFLA_ADDRESS, c.MAC))
	}
	if c.MTU != 0 {
		out = append(out, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(c.MTU))))
	}
	if c.Name != "" {
		out = append(out, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(c.Name)))
	}
	if c.Alias != nil {
		out = append(out, nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(*c.Alias)))
	}
	return out
}

// Mute implements Kernel. A kernel without IPv6 has none to turn off. What is so already
// is not written: to write disable_ipv6 spins until the kernel's one lock is free.
func (k *NetlinkKernel) Mute(name string) error {
	for _, s := range []struct{ family, key, value string }{
		{"ipv6", "disable_ipv6", "1"}, // no link-local address, no neighbour discovery
		{"ipv6", "accept_ra", "0"},
		{"ipv4", "arp_ignore", "8"}, // no ARP for any of the node's addresses
	} {
		file := filepath.Join("/proc/sys/net", s.family, "conf", name, s.key)
		if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == s.value {
			continue
		}
		err := os.WriteFile(file, []byte(s.value), 0)
		if s.family == "ipv6" && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Offload implements Kernel.
func (k *NetlinkKernel) Offload(name string) (bool, error) {
	features, err := k.ethtool.Features(name)
	return features["hw-tc-offload"], err
}

// MakeSoft implements Kernel. Both ends are down.
func (k *NetlinkKernel) MakeSoft(function, representor string, o SoftOptions) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group = representor, o.MTU, o.Group
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1 // all that a veth uses; unasked, it has one for each processor
	pair := netlink.NewVeth(attrs)
	pair.PeerName = function
	if o.MTU > 0 {
		pair.PeerMTU = uint32(o.MTU)
	}
	if err := k.route.LinkAdd(pair); err != nil || !o.Checksums {
		return err
	}
	for _, name := range []string{function, representor} {
		if err := completeChecksums(name); err != nil {
			return errors.Join(err, k.RemoveSoft(representor))
		}
	}
	return nil
}

// RemoveSoft implements Kernel.
func (k *NetlinkKernel) RemoveSoft(representor string) error {
	l, err := k.Link(k.host, representor)
	if err == nil {
		err = k.route.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}})
	}
	if errors.Is(err, ErrNoLink) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// FunctionMAC implements Kernel.
func (k *NetlinkKernel) FunctionMAC(p Port) (string, error) {
	found, err := k.devlink.handle.DevLinkGetPortByIndex(p.Bus, p.Device, p.Index)
	if err != nil {
		return "", err
	}
	if found.Fn == nil || len(found.Fn.HwAddr) == 0 {
		return "", fmt.Errorf("the port tells no MAC of its function: %w", unix.EOPNOTSUPP)
	}
	return found.Fn.HwAddr.String(), nil
}

// SetFunctionMAC implements Kernel.
func (k *NetlinkKernel) SetFunctionMAC(p Port, mac net.HardwareAddr) error {
	return k.devlink.handle.DevlinkPortFnSet(p.Bus, p.Device, p.Index, netlink.DevlinkPortFnSetAttrs{FnAttrs: netlink.DevlinkPortFn{HwAddr: mac}, HwAddrValid: true})
}

// RDMAExclusive implements Kernel.
func (k *NetlinkKernel) RDMAExclusive() (bool, error) {
	h, err := k.host.handle(unix.NETLINK_RDMA)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return false, nil // a kernel without RDMA
	}
	if err != nil {
		return false, err
	}
	mode, err := h.RdmaSystemGetNetnsMode()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return false, nil // from before there were modes
	}
	return mode == "exclusive", err
}

// RDMADevices implements Kernel.
func (k *NetlinkKernel) RDMADevices(ns Namespace) ([]string, error) {
	h, err := ns.(*namespace).handle(unix.NETLINK_RDMA)
	if err != nil {
		return nil, err
	}
	list, err := h.RdmaLinkList()
	out := make([]string, len(list))
	for n, l := range list {
		out[n] = l.Attrs.Name
	}
	return out, err
}

// MoveRDMA implements Kernel.
func (k *NetlinkKernel) MoveRDMA(from Namespace, name string, to Namespace) error {
	h, err := from.(*namespace).handle(unix.NETLINK_RDMA)
	if err != nil {
		return err
	}
	l, err := h.RdmaLinkByName(name)
	if err != nil {
		return err
	}
	return h.RdmaLinkSetNsFd(l, uint32(to.(*namespace).file.Fd()))
}

// attribute finds one in a list; nil where there is none.
func attribute(list []byte, kind uint16) ([]byte, error) {
	all, err := netlinkAttributes(list)
	for _, a := range all {
		if a.Attr.Type&nl.NLA_TYPE_MASK == kind {
			return a.Value, err
		}
	}
	return nil, err
}
