package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
)

// Veths makes pairs in the network namespace that the process is in.
type Veths struct {
	handle   *netlink.Handle
	home     *os.File // the namespace that the host's ends are in
	checksum bool     // leave checksum offload on
	group    uint32   // link group of the host's ends

	making sync.Mutex // held while pairs are made
}

// NewVeths opens a netlink socket in the calling process's network namespace.
// userspace says that the datapath is vswitchd's own, which needs complete
// checksums in every packet: "tx off" on both ends. The host's ends are in the
// link group from their birth, by which a rule may hide them from the kernel's stack.
func NewVeths(userspace bool, group uint32) (*Veths, error) {
	runtime.LockOSThread() // handle and home are of one thread, so of one namespace
	defer runtime.UnlockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening netlink: %w", err), home.Close())
	}
	return &Veths{handle: h, home: home, checksum: !userspace, group: group}, nil
}

// Close closes the netlink socket and the namespace.
func (v *Veths) Close() {
	v.handle.Close()
	_ = v.home.Close()
}

// Create implements Links. A device that is made in a namespace is there at once;
// one that is moved to another waits for an RCU barrier (15 to 20 ms) on the way.
// Pairs are made one after the other, and one call at a time: the kernel has one lock
// for all of it, and writing disable_ipv6 spins until it has got that lock.
func (v *Veths) Create(list ...Pair) error {
	if len(list) == 0 {
		return nil
	}
	ns, err := openNetns(list[0].Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	v.making.Lock()
	defer v.making.Unlock()
	for _, p := range list {
		if err := v.create(p, ns); err != nil {
			return err
		}
	}
	return nil
}

func (v *Veths) create(p Pair, ns *os.File) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group = p.Host, p.MTU, v.group
	// What a veth uses of its queues by itself. Unasked, the kernel makes one for each
	// processor there could be and then, behind an RCU grace period an end, turns off all
	// but the first (since 5.16, veth_init_queues).
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr, pair.PeerNamespace = p.IfName, p.MAC, netlink.NsFd(ns.Fd())
	if p.MTU > 0 {
		pair.PeerMTU = uint32(p.MTU)
	}
	err := v.handle.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		if err := v.Delete(p.Host); err != nil {
			return err
		}
		if err = v.handle.LinkAdd(pair); errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("the sandbox has an interface %s already: %w", p.IfName, err)
		}
	}
	if err != nil {
		return fmt.Errorf("making the veth pair %s, %s in %s: %w", p.Host, p.IfName, p.Netns, err)
	}
	return v.tune(p.Device)
}

// tune makes the host's end mute for the node's own stack, then brings it up: before
// vswitchd is told of it, which reads the device's flags, adds promiscuous mode and
// writes all of them (SIOCSIFFLAGS), and would take a device down that is brought up
// between the two.
func (v *Veths) tune(d Device) error {
	for _, s := range []struct{ family, key, value string }{
		{"ipv6", "disable_ipv6", "1"}, // no link-local address, no neighbour discovery
		{"ipv6", "accept_ra", "0"},    // decision 31
		{"ipv4", "arp_ignore", "8"},   // answer no ARP for any of the node's addresses
	} {
		if err := sysctl(s.family, d.Host, s.key, s.value); err != nil {
			return err
		}
	}
	if !v.checksum {
		if err := txOff(d.Host); err != nil {
			return err
		}
	}
	if err := raise(d); err != nil {
		return fmt.Errorf("bringing up %s, and naming it after its pod: %w", d.Host, err)
	}
	return nil
}

// raise brings a device up and gives it its alias, in one message. Whoever listens to
// links, as vswitchd does, is told of each by itself, and looks at all of them.
func raise(d Device) error {
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Flags, head.Change = unix.IFF_UP, unix.IFF_UP
	request.AddData(head)
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(d.Host)))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(d.Alias)))
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// sysctl writes a per-device setting in the calling thread's network namespace.
// A kernel without IPv6 has none to turn off.
func sysctl(family, device, key, value string) error {
	dir := filepath.Join("/proc/sys/net", family, "conf", device)
	err := os.WriteFile(filepath.Join(dir, key), []byte(value), 0)
	if family == "ipv6" && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// find returns a link, nil when there is none.
func find(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", name, err)
	}
	return l, nil
}

// deletePause is how long a deletion has the kernel's lock to itself before it is
// asked after; each question waits for the lock.
const deletePause = 500 * time.Microsecond

// Delete implements Links.
func (v *Veths) Delete(names ...string) error {
	var links []netlink.Link
	var errs []error
	for _, name := range names {
		l, err := find(v.handle, name)
		if errs = append(errs, err); l != nil {
			links = append(links, l)
		}
	}
	// Both ends are gone from their namespaces within a millisecond; then the kernel
	// holds the caller for an RCU barrier (15 to 20 ms), without its lock, until the
	// memory is free. That is waited for by goroutines, which end with the system
	// call. Looking a device up takes the lock, so it waits just long enough.
	done := make(chan error, len(links))
	for _, l := range links {
		go func() {
			err := remove(l)
			if err != nil {
				err = fmt.Errorf("deleting %s: %w", l.Attrs().Name, err)
			}
			done <- err
		}()
	}
	look := time.NewTicker(deletePause)
	defer look.Stop()
	for waited := 0; waited < len(links); {
		select {
		case err := <-done:
			waited++
			errs = append(errs, err)
			continue
		case <-look.C:
		}
		still, err := v.left(links)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		if !still {
			break
		}
	}
	return errors.Join(errs...)
}

// left reports whether any of the links is there.
func (v *Veths) left(links []netlink.Link) (bool, error) {
	for _, l := range links {
		if still, err := find(v.handle, l.Attrs().Name); err != nil || still != nil {
			return true, err
		}
	}
	return false, nil
}

// remove deletes a pair over a socket of its own: on a shared one others would
// wait for it to return.
func remove(l netlink.Link) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.LinkDel(l); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil // it went with its namespace meanwhile
}

// List implements Links.
func (v *Veths) List() ([]string, error) {
	links, err := dump.Whole(v.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing links: %w", err)
	}
	var out []string
	ours := isHost()
	for _, l := range links {
		if l.Type() == "veth" && ours.MatchString(l.Attrs().Name) {
			out = append(out, l.Attrs().Name)
		}
	}
	return out, nil
}
