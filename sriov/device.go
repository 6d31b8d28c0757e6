package sriov

import (
	"errors"
	"fmt"
)

// Kind says what a device is made of.
type Kind string

// The kinds of devices.
const (
	VF   Kind = "vf"   // a virtual function
	SF   Kind = "sf"   // a scalable function, an auxiliary device
	Soft Kind = "soft" // a veth pair of which one end plays the function, the other its representor
)

// Mode is what an e-switch does with packets of its functions.
type Mode string

// The modes of an e-switch.
const (
	Legacy    Mode = "legacy"    // functions are on the physical network; no representors
	Switchdev Mode = "switchdev" // each function's packets come to its representor
)

// Device is a function that a pod can be given.
type Device struct {
	ID     string // by which it is asked for: "0000:03:00.2", "mlx5_core.sf.4", "soft-a-0"
	Kind   Kind
	Bus    string // "pci", "auxiliary", "netdevsim"; of a soft device ""
	Mode   Mode   // of the e-switch that it is on
	PF     PF     // that it is a part of; zero of a soft device
	Index  int    // the VF's at its PF, or the SF's number; of a soft device 0
	Driver string // that is bound to it; "": none
	// Netdev is its network device; "": none is here, as it is in another namespace, or
	// its driver makes none.
	Netdev      string
	Representor string   // its port of the e-switch; "": there is none
	RDMA        []string // its RDMA devices that are here
	VDPA        []string // vDPA devices that were made of it
	Vendor      string   // "0x15b3"; "": not known
	Product     string   // "0x101e"; "": not known
	NUMA        int      // node; -1: none, or not known
	IOMMUGroup  string   // "": none
	// Faults say why it cannot be given to anybody as it is; that its Netdev is not here
	// is none, as it may be somebody's.
	Faults []*DeviceError
}

// PF is a physical function: the NIC's own, whose e-switch its VFs and SFs are on.
type PF struct {
	ID       string // PCI address, or the device's name on its bus
	Bus      string // "pci" or "netdevsim"
	Netdev   string // in switchdev mode the uplink representor; "": none is here
	Driver   string // "": none is bound
	Vendor   string
	Product  string
	Number   int // by which its functions' ports name it: of a PCI device the function
	NUMA     int // -1: none, or not known
	Mode     Mode
	ESwitch  bool   // devlink has an e-switch of it, whose mode can be asked for and changed
	SwitchID string // phys_switch_id as sysfs has it; PFs that share an e-switch share it; "": none
	Bond     string // that Netdev is in; "": none
	BondMode string // "802.3ad", "active-backup", ...; "": no bond
	VFs      int    // there now
	MaxVFs   int    // that the device can have; -1: not known
	Carrier  bool   // Netdev is up and has a link
	MTU      int    // of Netdev, in bytes
	Up       bool   // Netdev is administratively
	LinkType string // "ether" or "infiniband"; "": not known
	// VFProduct is the id that its VFs have, also while there are none; "": not known.
	VFProduct string
	RDMA      []string
}

// Userspace reports whether the device is driven by a program, so that there is no
// network device to move: vfio-pci, or one of the uio drivers.
func (d Device) Userspace() bool { return userspace(d.Driver) }

func userspace(driver string) bool {
	switch driver {
	case "vfio-pci", "mlx5_vfio_pci", "uio_pci_generic", "igb_uio":
		return true
	}
	return false
}

// Fault joins the faults; nil when there are none.
func (d Device) Fault() error {
	errs := make([]error, len(d.Faults))
	for n, f := range d.Faults {
		errs[n] = f
	}
	return errors.Join(errs...)
}

// DeviceError says what is wrong with a device.
type DeviceError struct {
	Device string // its ID
	File   string // that was read, or the operation that failed
	Found  string // there
	Do     string // to set it right
	Err    error  // behind it; may be nil
}

// Error is "device ID: File: Found; Do".
func (e *DeviceError) Error() string {
	text := fmt.Sprintf("device %s: %s: %s", e.Device, e.File, e.Found)
	if e.Do != "" {
		text += "; " + e.Do
	}
	return text
}

func (e *DeviceError) Unwrap() error { return e.Err }

// ErrNotFound is behind the error of a device that does not exist.
var ErrNotFound = errors.New("no such device")
