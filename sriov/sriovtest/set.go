package sriovtest

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

// set changes a device as the kernel does: in its order, as far as nothing is refused. Each
// part may be made to fail, by the names SetMAC, SetMTU, Rename and SetAlias.
func (k *Kernel) set(l *link, c sriov.Change) error {
	for _, part := range []struct {
		name string
		want bool
		set  func() error
	}{
		{"SetMAC", c.MAC != nil, func() error { return k.setMAC(l, c.MAC) }},
		{"SetMTU", c.MTU != 0, func() error { return k.setMTU(l, c.MTU) }},
		{"Rename", c.Name != "", func() error { return k.rename(l, c.Name) }},
		{"SetAlias", c.Alias != nil, func() error { l.Alias = *c.Alias; return nil }},
	} {
		if !part.want {
			continue
		}
		if err := k.fail(part.name); err != nil {
			return err
		}
		if err := part.set(); err != nil {
			return err
		}
	}
	return nil
}

// setMAC: drivers but Mellanox's let a function that is not trusted have no other MAC than
// the PF has given it.
func (k *Kernel) setMAC(l *link, mac net.HardwareAddr) error {
	if l.Up {
		return unix.EBUSY
	}
	if l.pf != nil && l.pf.driver != "mlx5_core" {
		v := l.pf.vfs[l.vf]
		if v.MAC != noMAC && (v.MAC != mac.String() || l.pf.driver == "igb") && v.Trust != "on" {
			return unix.EADDRNOTAVAIL
		}
	}
	l.MAC = mac.String()
	return nil
}

func (k *Kernel) setMTU(l *link, mtu int) error {
	if mtu < 68 || l.pf != nil && mtu > 9000 {
		return unix.EINVAL
	}
	l.MTU = mtu
	return nil
}

func (k *Kernel) rename(l *link, name string) error {
	switch {
	case name == l.Name:
		return nil
	case l.Up:
		return unix.EBUSY
	case k.taken(l.in, name, nil):
		return unix.EEXIST
	case len(name) >= unix.IFNAMSIZ:
		return unix.EINVAL
	}
	l.Name = name
	return nil
}
