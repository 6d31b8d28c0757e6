package host

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// managementFile holds what the management port's device was before it was that.
const managementFile = "management.json"

// ManagementDevice is a function of a NIC that is, or is to be, the management port.
type ManagementDevice struct {
	Device      string `json:"device"`      // its id
	Netdev      string `json:"netdev"`      // its name of its own
	Representor string `json:"representor"` // its port of br-int
	MAC         string `json:"mac"`         // of its own
	Index       int    `json:"index"`       // of Netdev
	Virtual     bool   `json:"virtual"`     // a veth: nothing finishes its checksums
}

// ManagementDevice is the device that an earlier call has taken; false: none.
func (k *Kernel) ManagementDevice() (d ManagementDevice, found bool, err error) {
	found, err = readJSON(filepath.Join(k.record.dir, managementFile), &d)
	return d, found, err
}

// ManagementHeld reports whether the management port is a device's function, as it was
// taken: Open vSwitch's own port of that name is another link.
func (k *Kernel) ManagementHeld(d ManagementDevice) bool {
	l, err := k.nl.LinkByName(intent.ManagementPort)
	return err == nil && l.Attrs().Index == d.Index && !slices.Contains([]string{"openvswitch", "tuntap", "tun"}, l.Type())
}

// TakeManagement makes a device's function the management port. What it was is written
// down before. False: Open vSwitch's own port still has the name, and is on its way out.
func (k *Kernel) TakeManagement(d ManagementDevice) (bool, error) {
	had, found, err := k.ManagementDevice()
	if err != nil {
		return false, err
	}
	if found && had.Device == d.Device && k.ManagementHeld(had) {
		return true, nil
	}
	l, err := k.nl.LinkByName(d.Netdev)
	if err != nil {
		return false, fmt.Errorf("device %s: network device %s: %w", d.Device, d.Netdev, err)
	}
	d.MAC, d.Index = l.Attrs().HardwareAddr.String(), l.Attrs().Index
	if d != had {
		if err := writeJSON(filepath.Join(k.record.dir, managementFile), d); err != nil {
			return false, err
		}
	}
	if _, err := k.nl.LinkByName(intent.ManagementPort); !errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, err
	}
	return true, k.rename(l, intent.ManagementPort)
}

// ReturnManagement gives the device that was taken its name and MAC again, without
// addresses. One that is gone is forgotten.
func (k *Kernel) ReturnManagement() error {
	d, found, err := k.ManagementDevice()
	if err != nil || !found {
		return err
	}
	if k.ManagementHeld(d) {
		l, err := k.nl.LinkByName(intent.ManagementPort)
		if err != nil {
			return err
		}
		have, err := k.addresses(l)
		if err != nil {
			return err
		}
		for _, a := range have {
			if err := k.nl.AddrDel(l, newAddr(a)); err != nil {
				return fmt.Errorf("device %s: remove %s: %w", d.Device, a, err)
			}
		}
		mac, err := net.ParseMAC(d.MAC)
		if err == nil {
			err = k.nl.LinkSetDown(l)
		}
		if err == nil {
			err = k.nl.LinkSetHardwareAddr(l, mac)
		}
		if err == nil {
			err = k.nl.LinkSetName(l, d.Netdev)
		}
		if err != nil {
			return fmt.Errorf("device %s: give %s its name %s and MAC %s again: %w", d.Device, intent.ManagementPort, d.Netdev, d.MAC, err)
		}
	}
	return durable.Remove(filepath.Join(k.record.dir, managementFile))
}

// rename gives a link a name, which it takes only while it is down.
func (k *Kernel) rename(l netlink.Link, name string) error {
	err := k.nl.LinkSetDown(l)
	if err == nil {
		err = k.nl.LinkSetName(l, name)
	}
	if err != nil {
		return fmt.Errorf("name %s %s: %w", l.Attrs().Name, name, err)
	}
	return nil
}

// ports declares the two ends of a device that is the management port, mp the function's.
func (m Management) ports(mp Link, userspace bool) ([]Link, []Hidden) {
	if m.Representor == "" {
		return []Link{mp}, nil
	}
	bare := userspace && m.Virtual
	mp.MAC, mp.TxChecksumOff = m.MAC, bare
	port := Link{Name: m.Representor, MTU: m.MTU, TxChecksumOff: bare}
	if !userspace {
		return []Link{mp, port}, nil
	}
	return []Link{mp, port}, []Hidden{{NIC: m.Representor}}
}
