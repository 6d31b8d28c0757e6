package sriov

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// DefaultSys is where the kernel's sysfs is.
const DefaultSys = "/sys"

// Inventory looks devices up. Its methods may be called from anywhere.
type Inventory struct {
	sys     sysfs
	devlink Devlink
	ports   *portCache
}

// NewInventory makes an Inventory of a sysfs, DefaultSys but in tests, which shows the
// network namespace of whoever mounted it: the node's.
func NewInventory(sys string, d Devlink) *Inventory {
	return &Inventory{sysfs(sys), d, &portCache{sys: sysfs(sys), devlink: d}}
}

// Invalidate forgets the last dump of ports. Whoever changes an e-switch calls it; what
// others change is noticed when it is looked up.
func (i *Inventory) Invalidate() { i.ports.drop() }

// Ports lists every port of an e-switch, also those of other hosts' functions.
func (i *Inventory) Ports() ([]Port, error) {
	i.ports.drop()
	t, err := i.ports.get()
	if err != nil {
		return nil, err
	}
	return slices.Clone(t.all), nil
}

// Resolve finds a device by its id. What does not exist, or is no function of a NIC, is
// a *DeviceError; a device that exists and cannot be used is returned with its Faults.
func (i *Inventory) Resolve(id string) (Device, error) {
	id, err := CanonicalID(id)
	switch {
	case err != nil:
		return Device{}, err
	case strings.HasPrefix(id, softPrefix):
		return i.soft(id)
	case pciAddress.MatchString(id):
		return i.virtualFunction(id)
	case simulated.MatchString(id):
		m := simulated.FindStringSubmatch(id)
		n, err := strconv.Atoi(m[2])
		if err != nil {
			return Device{}, unknown(id)
		}
		return i.simulatedFunction(id, m[1], n)
	}
	return i.scalableFunction(id)
}

// CanonicalID is the one spelling of a device's id; an error when it is of no form that
// an id has. It says nothing of whether the device exists.
func CanonicalID(id string) (string, error) {
	if lower := strings.ToLower(id); pciAddress.MatchString(lower) {
		return lower, nil
	}
	if strings.HasPrefix(id, softPrefix) {
		_, _, err := SoftNames(id)
		return id, err
	}
	if len(id) > longestID || !simulated.MatchString(id) && !auxiliary.MatchString(id) {
		return "", unknown(id)
	}
	return id, nil
}

// longestID is more than any device's name has.
const longestID = 64

func unknown(id string) error {
	return &DeviceError{fmt.Sprintf("%.64q", id), "id", "it is no PCI address, auxiliary device or soft device",
		"give the id that the device plugin gave, such as 0000:03:00.2, mlx5_core.sf.4 or soft-a-0", ErrNotFound}
}

func (i *Inventory) missing(bus, id string) error {
	return &DeviceError{id, i.sys.path(device(bus, id)), "it does not exist",
		"see whether the number of VFs was changed, or the NIC was removed or reset", ErrNotFound}
}

// virtualFunction reads a PCI device that is one.
func (i *Inventory) virtualFunction(id string) (Device, error) {
	dir := device("pci", id)
	if !i.sys.exists(dir) {
		return Device{}, i.missing("pci", id)
	}
	parent := i.sys.link(dir, "physfn")
	if parent == "" {
		return Device{}, &DeviceError{id, i.sys.path(dir, "physfn"), "it does not exist: the device is no virtual function",
			"give a VF of it (virtfn0, virtfn1, ...)", ErrNotFound}
	}
	d := Device{ID: id, Kind: VF, Bus: "pci"}
	i.describe(&d, dir)
	d.IOMMUGroup = i.sys.link(dir, "iommu_group")
	pf, err := i.pf("pci", parent)
	if err != nil {
		return Device{}, err
	}
	if d.Index, err = i.indexOf(id, parent); err != nil {
		return Device{}, err
	}
	return i.onSwitch(d, pf, dir)
}

// describe reads what devices of a bus have in common.
func (i *Inventory) describe(d *Device, dir string) {
	d.Vendor, d.Product = i.sys.optional(dir, "vendor"), i.sys.optional(dir, "device")
	d.NUMA = i.sys.number(-1, dir, "numa_node")
	d.Driver = i.sys.link(dir, "driver")
	d.RDMA, _ = i.sys.names(dir, "infiniband")
	all, _ := i.sys.names("bus", "vdpa", "devices")
	for _, name := range all {
		if target, err := os.Readlink(i.sys.path("bus", "vdpa", "devices", name)); err == nil && filepath.Base(filepath.Dir(target)) == d.ID {
			d.VDPA = append(d.VDPA, name)
		}
	}
}

// indexOf is a VF's number at its PF: computed, and then looked at; where the kernel
// does not say of what to compute it, searched for.
func (i *Inventory) indexOf(id, parent string) (int, error) {
	dir := device("pci", parent)
	vf, ok := routingID(id)
	pf, ok2 := routingID(parent)
	offset, stride := i.sys.number(0, dir, "sriov_offset"), i.sys.number(0, dir, "sriov_stride")
	if n := vf - pf - offset; ok && ok2 && stride > 0 && n >= 0 && n%stride == 0 {
		if i.sys.link(dir, "virtfn"+strconv.Itoa(n/stride)) == id {
			return n / stride, nil
		}
	}
	names, err := i.sys.names(dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "virtfn")); err == nil && i.sys.link(dir, name) == id {
			return n, nil
		}
	}
	return 0, &DeviceError{id, i.sys.path(dir, "virtfn*"), "none leads to it",
		"look whether the VFs of " + parent + " are being made or removed", ErrNotFound}
}

// onSwitch completes a function of a NIC by what its PF's e-switch has of it.
func (i *Inventory) onSwitch(d Device, pf PF, dir string) (Device, error) {
	d.PF, d.Mode = pf, pf.Mode
	nets, err := i.sys.names(dir, "net")
	if err != nil {
		return Device{}, err
	}
	switch {
	case len(nets) > 1:
		return Device{}, &DeviceError{d.ID, i.sys.path(dir, "net"), "several network devices: " + strings.Join(nets, ", "),
			"give a function that has one: with several ports on one function it is not known which is meant", nil}
	case len(nets) == 1:
		d.Netdev = nets[0]
	}
	if d.Driver == "" {
		d.fault(i.sys.path(dir, "driver"), "no driver is bound", "bind one: the NIC's own for a network device, or vfio-pci")
	}
	if d.Mode == Switchdev {
		f := function{PCIVF, pf.Number, d.Index}
		if d.Kind == SF {
			f.flavour = PCISF
		}
		if err := i.representor(&d, f); err != nil {
			return Device{}, err
		}
	}
	return d, nil
}

func (d *Device) fault(file, found, do string) {
	d.Faults = append(d.Faults, &DeviceError{d.ID, file, found, do, nil})
}

// representor finds a function's. What is remembered is dropped, and the kernel asked,
// when it leads nowhere; once.
func (i *Inventory) representor(d *Device, f function) error {
	t, err := i.ports.get()
	if err != nil {
		return err
	}
	found := t.find(d.PF, f)
	if len(found) != 1 || !i.ports.holds(found[0]) {
		if t, err = i.ports.after(t); err != nil {
			return err
		}
		found = t.find(d.PF, f)
	}
	what := fmt.Sprintf("port pf%dvf%d of %s", f.pf, f.n, d.PF.ID)
	if f.flavour == PCISF {
		what = fmt.Sprintf("port pf%dsf%d of %s", f.pf, f.n, d.PF.ID)
	}
	switch {
	case len(found) == 0:
		d.fault("devlink", "there is no "+what, "look at devlink port show, and whether the driver has ended changing the e-switch's mode")
	case len(found) > 1:
		names := make([]string, len(found))
		for n, p := range found {
			names[n] = fmt.Sprintf("%s (%s/%s/%d)", p.Netdev, p.Bus, p.Device, p.Index)
		}
		slices.Sort(names)
		d.fault("devlink", fmt.Sprintf("%d ports are %s: %s", len(found), what, strings.Join(names, ", ")), "report it with devlink port show")
	case !i.ports.holds(found[0]):
		d.fault("devlink", "the "+what+" has no network device here", "look whether its representor was moved to another network namespace")
	default:
		d.Representor = found[0].Netdev
	}
	return nil
}

// scalableFunction reads an auxiliary device that is one.
func (i *Inventory) scalableFunction(id string) (Device, error) {
	dir := device("auxiliary", id)
	if !i.sys.exists(dir) {
		return Device{}, i.missing("auxiliary", id)
	}
	d := Device{ID: id, Kind: SF, Bus: "auxiliary"}
	i.describe(&d, dir)
	if d.Index = i.sys.number(-1, dir, "sfnum"); d.Index < 0 {
		return Device{}, &DeviceError{id, i.sys.path(dir, "sfnum"), "it has no number: it is no scalable function",
			"give an auxiliary device that is one, such as mlx5_core.sf.4", ErrNotFound}
	}
	parent, err := i.parentOf(dir)
	if err != nil {
		return Device{}, err
	}
	pf, err := i.pf("pci", parent)
	if err != nil {
		return Device{}, err
	}
	if d.Vendor == "" {
		d.Vendor, d.Product = pf.Vendor, pf.Product
	}
	if d.NUMA < 0 {
		d.NUMA = pf.NUMA
	}
	return i.onSwitch(d, pf, dir)
}

// devicePath finds the PCI device that an auxiliary device is a part of.
func (i *Inventory) parentOf(dir string) (string, error) {
	path := i.sys.path(dir)
	target, err := i.sys.real(dir)
	if err != nil {
		return "", err
	}
	parts := strings.Split(target, "/")
	for n := len(parts) - 1; n >= 0; n-- {
		if pciAddress.MatchString(parts[n]) {
			return parts[n], nil
		}
	}
	return "", &DeviceError{dir[strings.LastIndexByte(dir, '/')+1:], path, "it leads to " + target + ", below no PCI device",
		"give a scalable function of a NIC", nil}
}

// simulatedFunction reads a VF of netdevsim, which is a port and, where somebody has
// linked its representor to another simulated device, that device.
func (i *Inventory) simulatedFunction(id, parent string, n int) (Device, error) {
	pf, err := i.pf("netdevsim", parent)
	if err != nil {
		return Device{}, err
	}
	if n >= pf.VFs {
		return Device{}, &DeviceError{id, i.sys.path(device("netdevsim", parent), "sriov_numvfs"), fmt.Sprintf("%d VFs", pf.VFs),
			"give one of them, or make more", ErrNotFound}
	}
	d := Device{ID: id, Kind: VF, Bus: "netdevsim", Driver: "netdevsim", PF: pf, Mode: pf.Mode, Index: n, NUMA: -1}
	if d.Mode != Switchdev {
		return d, nil
	}
	if err := i.representor(&d, function{PCIVF, pf.Number, n}); err != nil || d.Representor == "" {
		return d, err
	}
	d.Netdev, err = i.peerOf(d.Representor)
	return d, err
}

// peerOf finds the device of this namespace that a device is joined to; "" where there
// is none.
func (i *Inventory) peerOf(name string) (string, error) {
	own, peer := i.sys.optional(netdev(name), "ifindex"), i.sys.optional(netdev(name), "iflink")
	if peer == own || peer == "0" {
		return "", nil
	}
	names, err := i.sys.names("class", "net")
	for _, n := range names {
		if i.sys.optional(netdev(n), "ifindex") == peer && i.sys.optional(netdev(n), "iflink") == own {
			return n, nil
		}
	}
	return "", err
}

// IsNotFound reports whether an error is of a device that does not exist.
func IsNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// port is the devlink port of a function.
func (i *Inventory) port(d Device) (Port, error) {
	t, err := i.ports.get()
	if err != nil {
		return Port{}, err
	}
	f := function{PCIVF, d.PF.Number, d.Index}
	if d.Kind == SF {
		f.flavour = PCISF
	}
	if found := t.find(d.PF, f); len(found) == 1 {
		return found[0], nil
	}
	return Port{}, &DeviceError{d.ID, "devlink", "it has no port", "look at devlink port show", nil}
}
