package nic

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

// offloadFeature is the kernel's name of it (net/core, netdev_features_strings).
const offloadFeature = "hw-tc-offload"

// Kernel is the kernel, in the network namespace that it was made in: the node's.
type Kernel struct {
	sys     string
	route   *netlink.Handle
	devlink *sriov.KernelDevlink
	ethtool *ethtool.Ethtool
}

// NewKernel opens sockets to it. sys is where sysfs is, writable.
func NewKernel(sys string) (*Kernel, error) {
	k := &Kernel{sys: sys}
	var err error
	if k.route, err = netlink.NewHandle(unix.NETLINK_ROUTE); err == nil {
		if k.devlink, err = sriov.NewKernelDevlink(); err == nil {
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
func (k *Kernel) Close() {
	if k.ethtool != nil {
		k.ethtool.Close()
	}
	if k.devlink != nil {
		k.devlink.Close()
	}
	if k.route != nil {
		k.route.Close()
	}
}

// write writes an attribute: at once and whole, as sysfs takes it.
func (k *Kernel) write(value string, parts ...string) error {
	path := filepath.Join(append([]string{k.sys}, parts...)...)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// SetVFs implements Machine.
func (k *Kernel) SetVFs(bus, pf string, n int) error {
	return k.write(strconv.Itoa(n), "bus", bus, "devices", pf, "sriov_numvfs")
}

// SetMode implements Machine.
func (k *Kernel) SetMode(bus, pf string, m sriov.Mode) error { return k.devlink.SetMode(bus, pf, m) }

// Unbind implements Machine.
func (k *Kernel) Unbind(bus, id string) error {
	err := k.write(id, "bus", bus, "devices", id, "driver", "unbind")
	if errors.Is(err, os.ErrNotExist) {
		return nil // it has none
	}
	return err
}

// Bind implements Machine: the override says which driver may have the function, and
// is emptied by a newline.
func (k *Kernel) Bind(bus, id, driver string) error {
	if driver != OwnDriver {
		if _, err := os.Stat(filepath.Join(k.sys, "bus", bus, "drivers", driver)); err != nil {
			return fmt.Errorf("the kernel has no driver %s: load it with modprobe %s (%w)", driver, driver, err)
		}
	}
	override := driver
	if driver == OwnDriver {
		override = "\n"
	}
	if err := k.write(override, "bus", bus, "devices", id, "driver_override"); err != nil {
		return err
	}
	if err := k.Unbind(bus, id); err != nil {
		return err
	}
	return k.write(id, "bus", bus, "drivers_probe")
}

// link finds a network device, which is there.
func (k *Kernel) link(name string) (netlink.Link, error) {
	if name == "" {
		return nil, fmt.Errorf("its network device is not here")
	}
	return k.route.LinkByName(name)
}

// SetUp implements Machine.
func (k *Kernel) SetUp(netdev string) error {
	l, err := k.link(netdev)
	if err != nil {
		return err
	}
	return k.route.LinkSetUp(l)
}

// SetMTU implements Machine.
func (k *Kernel) SetMTU(netdev string, mtu int) error {
	l, err := k.link(netdev)
	if err != nil {
		return err
	}
	return k.route.LinkSetMTU(l, mtu)
}

// Offload implements Machine.
func (k *Kernel) Offload(netdev string) (Offload, error) {
	all, err := k.ethtool.FeaturesWithState(netdev)
	if err != nil {
		return "", err
	}
	f, ok := all[offloadFeature]
	switch {
	case ok && f.Active:
		return On, nil
	case ok && f.Available && !f.NeverChanged:
		return Off, nil
	}
	return Fixed, nil
}

// SetOffload implements Machine.
func (k *Kernel) SetOffload(netdev string) error {
	return k.ethtool.Change(netdev, map[string]bool{offloadFeature: true})
}
