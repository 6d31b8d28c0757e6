package sriov

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// KernelDevlink is the kernel's Devlink, in the network namespace that it was made in.
type KernelDevlink struct{ handle *netlink.Handle }

// NewKernelDevlink opens a socket to it.
func NewKernelDevlink() (*KernelDevlink, error) {
	h, err := netlink.NewHandle(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("opening generic netlink: %w", err)
	}
	return &KernelDevlink{h}, nil
}

// Close closes the socket.
func (k *KernelDevlink) Close() { k.handle.Close() }

// attempts is how often a dump is begun that the kernel says has changed under it.
const attempts = 10

// Ports implements Devlink.
func (k *KernelDevlink) Ports() ([]Port, error) {
	var list []*netlink.DevlinkPort
	var err error
	for range attempts {
		if list, err = k.handle.DevLinkGetAllPortList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, unsupported(err, "listing devlink ports")
	}
	out := make([]Port, len(list))
	for n, p := range list {
		out[n] = portOf(p)
	}
	return out, nil
}

func portOf(p *netlink.DevlinkPort) Port {
	return Port{Bus: p.BusName, Device: p.DeviceName, Index: p.PortIndex, Flavour: Flavour(p.PortFlavour), Netdev: p.NetdeviceName,
		IfIndex: int(p.NetdevIfIndex), Number: orNone(p.PortNumber), PF: orNone(p.PfNumber), VF: orNone(p.VfNumber), SF: orNone(p.SfNumber),
		Controller: max(orNone(p.ControllerNumber), 0), External: p.External != nil && *p.External}
}

func orNone[T uint16 | uint32](n *T) int {
	if n == nil {
		return -1
	}
	return int(*n)
}

// unsupported tells what there is nothing to ask from what has failed: the kernel may
// have no devlink (ENOENT of its family), the device none (ENODEV), or no e-switch.
func unsupported(err error, doing string) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%s: %w (%w)", doing, errors.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// request is a devlink request about one device.
func (k *KernelDevlink) request(command uint8, bus, device string) (*nl.NetlinkRequest, error) {
	family, err := k.handle.GenlFamilyGet(nl.GENL_DEVLINK_NAME)
	if err != nil {
		return nil, err
	}
	r := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
	r.AddData(&nl.Genlmsg{Command: command, Version: nl.GENL_DEVLINK_VERSION})
	r.AddData(nl.NewRtAttr(nl.DEVLINK_ATTR_BUS_NAME, nl.ZeroTerminated(bus)))
	r.AddData(nl.NewRtAttr(nl.DEVLINK_ATTR_DEV_NAME, nl.ZeroTerminated(device)))
	return r, nil
}

// Mode implements Devlink. The library's way to ask hides why there is no answer.
func (k *KernelDevlink) Mode(bus, device string) (Mode, error) {
	doing := fmt.Sprintf("asking for the e-switch of %s/%s", bus, device)
	r, err := k.request(nl.DEVLINK_CMD_ESWITCH_GET, bus, device)
	if err != nil {
		return "", unsupported(err, doing)
	}
	answers, err := r.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return "", unsupported(err, doing)
	}
	for _, a := range answers {
		if len(a) < nl.SizeofGenlmsg {
			continue
		}
		attributes, err := netlinkAttributes(a[nl.SizeofGenlmsg:])
		if err != nil {
			return "", fmt.Errorf("%s: %w", doing, err)
		}
		for _, attribute := range attributes {
			if attribute.Attr.Type != nl.DEVLINK_ATTR_ESWITCH_MODE || len(attribute.Value) < 2 {
				continue
			}
			switch mode := nl.NativeEndian().Uint16(attribute.Value); mode {
			case nl.DEVLINK_ESWITCH_MODE_LEGACY:
				return Legacy, nil
			case nl.DEVLINK_ESWITCH_MODE_SWITCHDEV:
				return Switchdev, nil
			default:
				return "", fmt.Errorf("%s: its mode is %d, and known are %d (legacy) and %d (switchdev)", doing, mode,
					nl.DEVLINK_ESWITCH_MODE_LEGACY, nl.DEVLINK_ESWITCH_MODE_SWITCHDEV)
			}
		}
	}
	return "", fmt.Errorf("%s: %w: the answer has no mode", doing, errors.ErrUnsupported)
}
