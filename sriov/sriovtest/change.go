package sriovtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/sriov"
)

// DropVFs takes a NIC's virtual functions and their representors away.
func (m *Machine) DropVFs(n NIC) {
	for vf := range n.VFs {
		m.BindVF(n, vf, "")
		id := n.VFAddress(vf)
		m.Remove("devices/pci" + id[:7] + "/" + id[:7] + ":1f.0/" + id)
		m.Remove("bus/pci/devices/" + id)
		m.Remove("bus/pci/devices/" + n.Address + "/virtfn" + strconv.Itoa(vf))
		if name := n.representor(vf); m.has("class/net/" + name) {
			m.Drop(name)
			m.Devlink.Delete(name)
		}
	}
	m.Write("bus/pci/devices/"+n.Address+"/sriov_numvfs", "0")
}

// MakeVFs makes as many functions as a NIC has, in its mode. There are none yet.
func (m *Machine) MakeVFs(n NIC) {
	dir, err := filepath.EvalSymlinks(m.path("bus/pci/devices", n.Address))
	m.check(err)
	n.dir = strings.TrimPrefix(dir, m.Root+"/")
	owner := n.PortsOf
	if owner == "" {
		owner = n.Address
	}
	for vf := range n.VFs {
		m.addVF(n, owner, vf)
	}
	m.Write(n.dir+"/sriov_numvfs", strconv.Itoa(n.VFs))
}

// SwitchNIC makes a NIC's uplink what it is in its mode. There are no functions.
func (m *Machine) SwitchNIC(n NIC) {
	uplink := "class/net/" + n.Netdev
	for _, file := range []string{"/phys_port_name", "/phys_switch_id"} {
		m.Remove(uplink + file)
	}
	if n.Mode == sriov.Switchdev {
		m.Write(uplink+"/phys_port_name", fmt.Sprintf("p%d", n.number()))
		m.Write(uplink+"/phys_switch_id", n.SwitchID)
	}
	if !n.Silent && !n.Mute {
		m.Devlink.SetMode("pci", n.Address, n.Mode)
	}
}

// BindVF binds a function to a driver, or for "" to none; its network device comes and
// goes with the driver.
func (m *Machine) BindVF(n NIC, vf int, driver string) {
	id, name := n.VFAddress(vf), fmt.Sprintf("%sv%d", n.Netdev, vf)
	m.Bind("pci", id, driver)
	dir, err := filepath.EvalSymlinks(m.path("bus/pci/devices", id))
	m.check(err)
	has := m.has("class/net/" + name)
	switch makes := driver != "" && driver != "vfio-pci"; {
	case makes && !has:
		m.Add(Netdev{Name: name, Device: strings.TrimPrefix(dir, m.Root+"/"), MTU: 1500, MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", n.number(), vf)})
	case !makes && has:
		m.Drop(name)
	}
}

// VFDriverOf is the driver that a function has; "" none.
func (m *Machine) VFDriverOf(n NIC, vf int) string {
	target, err := os.Readlink(m.path("bus/pci/devices", n.VFAddress(vf), "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// VFAddress is a function's.
func (n NIC) VFAddress(vf int) string { return address(n.Address, n.Offset+n.Stride*vf) }

func (m *Machine) has(path string) bool {
	_, err := os.Lstat(m.path(path))
	return err == nil
}
