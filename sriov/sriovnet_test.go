package sriov_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/k8snetworkplumbingwg/sriovnet"
	"github.com/k8snetworkplumbingwg/sriovnet/pkg/utils/filesystem"
	"github.com/k8snetworkplumbingwg/sriovnet/pkg/utils/netlinkops"
	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// rooted shows sriovnet a machine's sysfs.
type rooted struct {
	filesystem.DefaultFs
	root string
}

func (r rooted) under(name string) string { return r.root + strings.TrimPrefix(name, "/sys") }

func (r rooted) Stat(name string) (os.FileInfo, error) { return r.DefaultFs.Stat(r.under(name)) }
func (r rooted) Readlink(name string) (string, error)  { return r.DefaultFs.Readlink(r.under(name)) }
func (r rooted) ReadFile(name string) ([]byte, error)  { return r.DefaultFs.ReadFile(r.under(name)) }
func (r rooted) ReadDir(name string) ([]os.FileInfo, error) {
	return r.DefaultFs.ReadDir(r.under(name))
}

// answers shows sriovnet a machine's devlink.
type answers struct {
	netlinkops.NetlinkOps
	devlink *sriovtest.Devlink
}

func (a answers) DevLinkGetAllPortList() ([]*netlink.DevlinkPort, error) {
	ports, err := a.devlink.Ports()
	var out []*netlink.DevlinkPort
	for _, p := range ports {
		d := &netlink.DevlinkPort{BusName: p.Bus, DeviceName: p.Device, PortIndex: p.Index, PortFlavour: uint16(p.Flavour), NetdeviceName: p.Netdev,
			NetdevIfIndex: uint32(p.IfIndex), External: &p.External}
		pf, vf, sf, controller := uint16(p.PF), uint16(p.VF), uint32(p.SF), uint32(p.Controller)
		d.ControllerNumber = &controller
		if p.PF >= 0 {
			d.PfNumber = &pf
		}
		if p.VF >= 0 {
			d.VfNumber = &vf
		}
		if p.SF >= 0 {
			d.SfNumber = &sf
		}
		out = append(out, d)
	}
	return out, err
}

func (a answers) DevLinkGetDevicePortList(bus, device string) ([]*netlink.DevlinkPort, error) {
	all, err := a.DevLinkGetAllPortList()
	var out []*netlink.DevlinkPort
	for _, p := range all {
		if p.BusName == bus && p.DeviceName == device {
			out = append(out, p)
		}
	}
	return out, err
}

func (a answers) DevLinkGetPortByNetdevName(name string) (*netlink.DevlinkPort, error) {
	all, err := a.DevLinkGetAllPortList()
	for _, p := range all {
		if p.NetdeviceName == name {
			return p, err
		}
	}
	return nil, os.ErrNotExist
}

// TestAgreesWithSriovnet asks the library that other plugins use, of every shape. Its
// search for a VF's index reads the machine's own sysfs, so it is given ours.
func TestAgreesWithSriovnet(t *testing.T) {
	defer func() { filesystem.Fs = filesystem.DefaultFs{} }()
	defer netlinkops.ResetNetlinkOps()
	for shape := range sriovtest.Shapes() {
		m := machine(t, shape)
		filesystem.Fs = rooted{root: m.Root}
		netlinkops.SetNetlinkOps(answers{devlink: m.Devlink})
		devices, err := m.Inventory().Devices()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range devices {
			if d.Mode != sriov.Switchdev {
				continue
			}
			uplink, representor, err := theirs(d)
			if shape == "connectx-7-shared" && errors.Is(err, sriovnet.ErrMultipleRepresentorsFound) {
				continue // it does not ask of which PF a port is
			}
			if err != nil || uplink != d.PF.Netdev || representor != d.Representor {
				t.Errorf("%s %s: uplink %s, representor %s by sriovnet, %v; ours %s, %s", shape, d.ID, uplink, representor, err, d.PF.Netdev, d.Representor)
			}
		}
	}
}

func theirs(d sriov.Device) (uplink, representor string, err error) {
	if d.Kind == sriov.SF {
		if uplink, err = sriovnet.GetUplinkRepresentorFromAux(d.ID); err == nil {
			representor, err = sriovnet.GetSfRepresentor(uplink, d.Index)
		}
		return
	}
	if uplink, err = sriovnet.GetUplinkRepresentor(d.ID); err == nil {
		representor, err = sriovnet.GetVfRepresentor(uplink, d.Index)
	}
	return
}
