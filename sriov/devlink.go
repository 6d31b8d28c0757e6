package sriov

import "fmt"

// Flavour is what a devlink port is for.
type Flavour uint16

// The flavours that matter here (include/uapi/linux/devlink.h, devlink_port_flavour).
const (
	Physical Flavour = 0 // the NIC's plug
	PCIPF    Flavour = 3 // of a host's PF, seen by the card's own processor
	PCIVF    Flavour = 4
	PCISF    Flavour = 7
)

// Port is a devlink port. Numbers that it has not are -1.
type Port struct {
	Bus, Device string // the devlink instance that it is of
	Index       uint32
	Flavour     Flavour
	Number      int  // of a physical port
	Controller  int  // 0: of this host
	External    bool // its function is another host's
	PF, VF, SF  int
	Netdev      string // "": none is here
	IfIndex     int    // of Netdev; 0: not known
}

// String is what devlink calls the port.
func (p Port) String() string { return fmt.Sprintf("%s/%s/%d", p.Bus, p.Device, p.Index) }

// Devlink is what is asked of the kernel's devlink. Kernel implements it, and
// sriovtest.Devlink. Where the kernel has no devlink, or a device none, errors are
// errors.ErrUnsupported.
type Devlink interface {
	// Ports dumps the ports of all devices.
	Ports() ([]Port, error)
	// Mode asks one device for its e-switch's mode.
	Mode(bus, device string) (Mode, error)
}
