package sriov

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// modePatience is how long a driver may take for a change of mode: with many functions
// it makes and removes as many devices.
const modePatience = 2 * time.Minute

// SetMode changes an e-switch's mode. An error is the kernel's, with what the driver
// says, where it says anything; that the device has no e-switch is
// errors.ErrUnsupported too. The library's way drops what the driver says.
func (k *KernelDevlink) SetMode(bus, device string, m Mode) error {
	doing := fmt.Sprintf("changing the e-switch of %s/%s", bus, device)
	var mode uint16
	switch m {
	case Legacy:
		mode = nl.DEVLINK_ESWITCH_MODE_LEGACY
	case Switchdev:
		mode = nl.DEVLINK_ESWITCH_MODE_SWITCHDEV
	default:
		return fmt.Errorf("%s: mode %q is none of %q and %q", doing, m, Legacy, Switchdev)
	}
	r, err := k.request(nl.DEVLINK_CMD_ESWITCH_SET, bus, device)
	if err != nil {
		return unsupported(err, doing)
	}
	r.AddData(nl.NewRtAttr(nl.DEVLINK_ATTR_ESWITCH_MODE, nl.Uint16Attr(mode)))
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_GENERIC)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer s.Close()
	limit := unix.NsecToTimeval(modePatience.Nanoseconds())
	if err := s.SetReceiveTimeout(&limit); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	_ = s.SetExtAck(true) // a kernel from before there was such a thing says less
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: {Socket: s}}
	if _, err := r.Execute(unix.NETLINK_GENERIC, 0); err != nil {
		return unsupported(err, doing)
	}
	return nil
}
