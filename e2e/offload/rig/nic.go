package rig

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// NIC is an emulated NIC with an e-switch: a netdevsim whose VFs' representors,
// and whose own port, are linked with ports of other netdevsims. Those play the
// VFs, and the far end of the cable. It needs the own kernel.
type NIC struct {
	Host *Host
	ID   int
	PF   string // the netdev of the NIC's own port
	VFs  []VF
}

// VF is a virtual function.
type VF struct {
	Index  int
	Netdev string // what a pod gets
	Rep    string // its representor's netdev; empty in mode legacy
}

// The numbers of netdevsims that play VFs and far ends, beside a NIC's own.
const players, farEnds = 100, 200

// NewNIC makes a NIC with virtual functions, in mode legacy. IDs are of the whole
// guest, below 100.
func (h *Host) NewNIC(id, vfs int) *NIC {
	h.t().Helper()
	n := h.BareNIC(id)
	h.Sh(fmt.Sprintf("echo %d > /sys/bus/netdevsim/devices/netdevsim%d/sriov_numvfs", vfs, id))
	n.Players(vfs)
	return n
}

// BareNIC makes a NIC without functions, for a test of who makes them.
func (h *Host) BareNIC(id int) *NIC {
	h.t().Helper()
	if _, err := os.Stat("/sys/bus/netdevsim/link_device"); err != nil {
		h.t().Fatalf("no netdevsim here: this needs the own kernel (bin/guest run --kernel own): %v", err)
	}
	n := &NIC{Host: h, ID: id}
	h.newDevice(id, 1)
	n.PF = h.devicePorts(id)[0]
	return n
}

// Players makes the devices that play the virtual functions.
func (n *NIC) Players(vfs int) {
	n.Host.t().Helper()
	n.Host.newDevice(n.ID+players, vfs)
	for i, name := range n.Host.devicePorts(n.ID + players) {
		n.VFs = append(n.VFs, VF{Index: i, Netdev: name})
	}
}

// newDevice makes a netdevsim in the host's network namespace, until the test ends.
func (h *Host) newDevice(id, ports int) {
	h.t().Helper()
	h.Sh(fmt.Sprintf(`echo "%d %d" > /sys/bus/netdevsim/new_device`, id, ports))
	// It would outlive its namespace: devlink moves it to the first one.
	h.t().Cleanup(func() {
		if err := os.WriteFile("/sys/bus/netdevsim/del_device", []byte(strconv.Itoa(id)), 0); err != nil {
			h.t().Errorf("remove netdevsim%d: %v", id, err)
		}
	})
}

// devicePorts are the netdevs of a netdevsim, by port.
func (h *Host) devicePorts(id int) []string {
	h.t().Helper()
	out := map[string]string{}
	names := strings.Fields(h.Run("ls", fmt.Sprintf("/sys/bus/netdevsim/devices/netdevsim%d/net", id)))
	for _, name := range names {
		out[strings.TrimSpace(h.Run("cat", "/sys/class/net/"+name+"/phys_port_name"))] = name
	}
	var sorted []string
	for i := range names {
		name, ok := out[fmt.Sprintf("p%d", i+1)]
		if !ok {
			h.t().Fatalf("netdevsim%d has ports %v, no p%d", id, out, i+1)
		}
		sorted = append(sorted, name)
	}
	return sorted
}

// Device is the NIC's devlink handle.
func (n *NIC) Device() string { return fmt.Sprintf("netdevsim/netdevsim%d", n.ID) }

// Mode gives the mode of the e-switch.
func (n *NIC) Mode() string {
	n.Host.t().Helper()
	_, after, _ := strings.Cut(n.Host.Run("devlink", "dev", "eswitch", "show", n.Device()), "mode ")
	mode, _, _ := strings.Cut(after, " ")
	return strings.TrimSpace(mode)
}

// SetMode sets it: "switchdev" or "legacy".
func (n *NIC) SetMode(mode string) {
	n.Host.t().Helper()
	n.Host.Run("devlink", "dev", "eswitch", "set", n.Device(), "mode", mode)
}

// Switchdev sets mode switchdev, and makes the representors ready for a bridge:
// linked with their VFs, hw-tc-offload on, up.
func (n *NIC) Switchdev() {
	h := n.Host
	h.t().Helper()
	n.SetMode("switchdev")
	n.Play()
	for _, vf := range n.VFs {
		h.Run("ethtool", "-K", vf.Rep, "hw-tc-offload", "on")
		h.Run("ip", "link", "set", vf.Rep, "up")
	}
}

// Play links representors, which whoever has set mode switchdev has made, with what
// plays their VFs.
func (n *NIC) Play() {
	n.Host.t().Helper()
	reps := n.Representors()
	if len(n.VFs) == 0 {
		n.Players(len(reps))
	}
	for i := range n.VFs {
		vf := &n.VFs[i]
		name, ok := reps[i]
		if !ok {
			n.Host.t().Fatalf("VF %d has no representor; there are %v", i, reps)
		}
		vf.Rep = name
		link(n.Host, vf.Rep, n.Host, vf.Netdev)
	}
}

// VFID is a VF's id, as sriov.Inventory has it.
func (n *NIC) VFID(i int) string { return fmt.Sprintf("netdevsim%d.vf%d", n.ID, i) }

// Representors are the netdevs of the VFs' representors, by VF: those with the
// NIC's switch id and a port name pf0vfN.
func (n *NIC) Representors() map[int]string {
	h := n.Host
	h.t().Helper()
	id := strings.TrimSpace(h.Run("cat", "/sys/class/net/"+n.PF+"/phys_switch_id"))
	out := map[int]string{}
	for _, name := range h.Links() {
		this, err := h.Try("cat", "/sys/class/net/"+name+"/phys_switch_id", "/sys/class/net/"+name+"/phys_port_name")
		words := strings.Fields(this)
		if err != nil || len(words) != 2 || words[0] != id {
			continue
		}
		if number, ok := strings.CutPrefix(words[1], "pf0vf"); ok {
			if i, err := strconv.Atoi(number); err == nil {
				out[i] = name
			}
		}
	}
	return out
}

// Cable puts the NIC's own port on a wire, and gives the device there that is its far end.
func (n *NIC) Cable(w Wire) (far string) {
	n.Host.t().Helper()
	w.newDevice(n.ID+farEnds, 1)
	far = w.devicePorts(n.ID + farEnds)[0]
	link(n.Host, n.PF, w.Host, far)
	w.Join(far)
	n.Host.Run("ip", "link", "set", n.PF, "up")
	return far
}

// link joins two ports of netdevsims by a cable.
func link(a *Host, deviceA string, b *Host, deviceB string) {
	a.t().Helper()
	var ends []string
	for _, end := range []struct {
		host   *Host
		device string
	}{{a, deviceA}, {b, deviceB}} {
		ns, err := os.Open(end.host.netns())
		if err != nil {
			a.t().Fatal(err)
		}
		defer ns.Close()
		err = end.host.In(func() error {
			i, err := net.InterfaceByName(end.device)
			if err == nil {
				ends = append(ends, fmt.Sprintf("%d:%d", ns.Fd(), i.Index))
			}
			return err
		})
		if err != nil {
			a.t().Fatalf("%s: %s: %v", end.host.Name, end.device, err)
		}
	}
	if err := os.WriteFile("/sys/bus/netdevsim/link_device", []byte(strings.Join(ends, " ")), 0); err != nil {
		a.t().Fatalf("link %s and %s: %v", deviceA, deviceB, err)
	}
}
