package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Veths makes pairs in the network namespace that the process is in.
type Veths struct {
	handle   *netlink.Handle
	home     *os.File // the namespace that the host's ends are in
	checksum bool     // leave checksum offload on
}

// NewVeths opens a netlink socket in the calling process's network namespace.
// userspace says that the datapath is vswitchd's own, which needs complete
// checksums in every packet: "tx off" on both ends.
func NewVeths(userspace bool) (*Veths, error) {
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
	return &Veths{handle: h, home: home, checksum: !userspace}, nil
}

// Close closes the netlink socket and the namespace.
func (v *Veths) Close() {
	v.handle.Close()
	_ = v.home.Close()
}

// Create implements Links.
func (v *Veths) Create(d Device) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = d.Host, d.MTU
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = d.Parked, d.MAC
	if d.MTU > 0 {
		pair.PeerMTU = uint32(d.MTU)
	}
	err := v.handle.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		if err := v.Delete(d.Host); err != nil {
			return err
		}
		err = v.handle.LinkAdd(pair)
	}
	if err != nil {
		return fmt.Errorf("making the veth pair %s, %s: %w", d.Host, d.Parked, err)
	}
	if err := v.tune(d); err != nil {
		return errors.Join(err, v.Delete(d.Host))
	}
	return nil
}

// tune makes the host's end mute for the node's own stack, then brings it up.
func (v *Veths) tune(d Device) error {
	host, err := v.handle.LinkByName(d.Host)
	if err != nil {
		return fmt.Errorf("finding %s: %w", d.Host, err)
	}
	if err := v.handle.LinkSetAlias(host, d.Alias); err != nil {
		return fmt.Errorf("naming %s after its pod: %w", d.Host, err)
	}
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
		if err := txOff(d.Host, d.Parked); err != nil {
			return err
		}
	}
	if err := v.handle.LinkSetUp(host); err != nil {
		return fmt.Errorf("bringing up %s: %w", d.Host, err)
	}
	return nil
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

// txOff turns transmit checksum offload off: a veth otherwise passes packets whose
// checksum nobody has computed, and vswitchd forwards them so.
func txOff(devices ...string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("ethtool: %w", err)
	}
	defer e.Close()
	for _, dev := range devices {
		off := map[string]bool{"tx-checksum-ip-generic": false, "tx-checksum-sctp": false}
		if err := e.Change(dev, off); err != nil {
			return fmt.Errorf("turning off checksum offload of %s: %w", dev, err)
		}
	}
	return nil
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

// Parked implements Links.
func (v *Veths) Parked(d Device) (bool, error) {
	peer, err := find(v.handle, d.Parked)
	if err != nil || peer == nil {
		return false, err
	}
	host, err := find(v.handle, d.Host)
	// ParentIndex of a veth is its peer: both here, and of one pair.
	return host != nil && host.Attrs().ParentIndex == peer.Attrs().Index, err
}

// deletePause is how long a deletion has the kernel's lock to itself before it is
// asked after; each question waits for the lock.
const deletePause = 500 * time.Microsecond

// Delete implements Links.
func (v *Veths) Delete(name string) error {
	l, err := find(v.handle, name)
	if err != nil || l == nil {
		return err
	}
	// Both ends are gone from their namespaces within a millisecond; then the kernel
	// holds the caller for an RCU barrier (15 to 20 ms), without its lock, until the
	// memory is free. That is waited for by a goroutine, which ends with the system
	// call. Looking the device up takes the lock, so it waits just long enough.
	done := make(chan error, 1)
	go func() { done <- remove(l) }()
	look := time.NewTicker(deletePause)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("deleting %s: %w", name, err)
			}
			return nil
		case <-look.C:
		}
		if still, err := find(v.handle, name); err != nil || still == nil {
			return err
		}
	}
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
	links, err := v.handle.LinkList()
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
