package host

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
)

// setLinks finds the declared links and gives them MAC, MTU and state.
func (p *pass) setLinks() error {
	var errs []error
	for _, want := range p.cfg.Links {
		l, err := p.nl.LinkByName(want.Name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			p.report.Missing = append(p.report.Missing, want.Name)
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.links[want.Name] = l
		if err := p.setLink(l, want); !p.vanished(want.Name, err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// vanished reports whether an error says that a link went while it was worked on,
// as vswitchd's taps do with it. It counts as missing then: its return is an event.
func (p *pass) vanished(link string, err error) bool {
	if !errors.Is(err, unix.ENODEV) {
		return false
	}
	delete(p.links, link)
	if !slices.Contains(p.report.Missing, link) {
		p.report.Missing = append(p.report.Missing, link)
	}
	return true
}

func (p *pass) setLink(l netlink.Link, want Link) error {
	var errs []error
	have := l.Attrs()
	if want.MAC != "" && have.HardwareAddr.String() != want.MAC {
		mac, err := net.ParseMAC(want.MAC)
		if err == nil {
			err = p.changed(p.nl.LinkSetHardwareAddr(l, mac), "link %s: set MAC %s", want.Name, want.MAC)
		}
		errs = append(errs, err)
	}
	if want.MTU != 0 && have.MTU != want.MTU {
		errs = append(errs, p.changed(p.nl.LinkSetMTU(l, want.MTU), "link %s: set MTU %d", want.Name, want.MTU))
	}
	if have.Flags&net.FlagUp == 0 {
		if want.GiveBack && !slices.Contains(p.record.now.Down, want.Name) {
			p.record.now.Down = append(p.record.now.Down, want.Name)
			if err := p.record.save(); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
		errs = append(errs, p.changed(p.nl.LinkSetUp(l), "link %s: set up", want.Name))
	}
	return errors.Join(errs...)
}

// giveBackLinks takes down what was down before an earlier Set, and is not declared
// any more.
func (p *pass) giveBackLinks() error {
	var errs []error
	p.record.now.Down = slices.DeleteFunc(p.record.now.Down, func(name string) bool {
		if l, ok := p.cfg.link(name); ok && l.GiveBack {
			return false
		}
		if l, err := p.nl.LinkByName(name); err == nil && l.Attrs().Flags&net.FlagUp != 0 {
			if err := p.changed(p.nl.LinkSetDown(l), "link %s: set down", name); err != nil {
				errs = append(errs, err)
				return false
			}
		}
		return true
	})
	return errors.Join(errs...)
}

// setAddresses takes back what an earlier Set added, adds what is declared, and
// takes that off other declared links. In this order, for with a subnet's first
// address on a link go the others.
func (p *pass) setAddresses() error {
	errs := []error{p.sweepAddresses()}
	have := map[string][]netip.Prefix{}
	for name, l := range p.links {
		as, err := p.addresses(l)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		have[name] = as
	}
	for _, l := range p.cfg.Links {
		for _, a := range l.Addresses {
			if p.links[l.Name] != nil && !slices.Contains(have[l.Name], a) {
				p.record.now.claim(ownedAddress{l.Name, a})
			}
		}
	}
	if err := p.record.save(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, l := range p.cfg.Links {
		if p.links[l.Name] != nil {
			errs = append(errs, p.setLinkAddresses(l, have))
		}
	}
	return errors.Join(errs...)
}

// setLinkAddresses gives one link its addresses, then takes them off the others,
// so that the host always has each somewhere and sockets stay bound.
func (p *pass) setLinkAddresses(want Link, have map[string][]netip.Prefix) error {
	var errs []error
	mine := map[netip.Addr]bool{}
	for _, a := range want.Addresses {
		if !slices.Contains(have[want.Name], a) {
			err := p.changed(p.nl.AddrAdd(p.links[want.Name], newAddr(a)), "link %s: add %s", want.Name, a)
			if p.vanished(want.Name, err) {
				break
			}
			if errs = append(errs, err); err != nil {
				continue
			}
		}
		mine[a.Addr()] = true
	}
	for _, other := range slices.Sorted(maps.Keys(have)) {
		for _, a := range have[other] {
			if other != want.Name && mine[a.Addr()] {
				errs = append(errs, p.removeAddress(p.links[other], a))
			}
		}
	}
	return errors.Join(errs...)
}

// removeAddress removes an address, which may be gone already.
func (p *pass) removeAddress(l netlink.Link, a netip.Prefix) error {
	err := p.nl.AddrDel(l, newAddr(a))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return p.changed(err, "link %s: remove %s", l.Attrs().Name, a)
}

// sweepAddresses removes recorded addresses that are not declared any more.
func (p *pass) sweepAddresses() error {
	var errs []error
	for _, o := range slices.Clone(p.record.now.Addresses) {
		if l, ok := p.cfg.link(o.Link); ok && slices.Contains(l.Addresses, o.Prefix) {
			continue
		}
		if l, err := p.nl.LinkByName(o.Link); err == nil {
			if err := p.removeAddress(l, o.Prefix); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		p.record.now.release(o)
	}
	return errors.Join(errs...)
}

// addresses lists a link's addresses without link-local ones.
func (k *Kernel) addresses(l netlink.Link) ([]netip.Prefix, error) {
	as, err := dump.Whole(func() ([]netlink.Addr, error) { return k.nl.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var ps []netip.Prefix
	for _, a := range as {
		if p, ok := prefixOf(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
			ps = append(ps, p)
		}
	}
	return ps, nil
}

// newAddr skips duplicate address detection: the address is this host's already,
// or this host chose it, and a tentative address answers nobody for a second.
func newAddr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}
