package sriovtest

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/portolan-cni/portolan/sriov"
)

// NIC is one physical function with what hangs on it.
type NIC struct {
	Address, Netdev        string
	Vendor, Product, VF    string // ids; VF is its VFs' product
	Driver, VFDriver       string
	NUMA                   int
	Offset, Stride, MaxVFs int
	VFs                    int
	SFs                    []int // numbers of local scalable functions
	Mode                   sriov.Mode
	SwitchID               string
	Silent                 bool   // its driver says nothing to devlink
	Mute                   bool   // its driver's devlink has ports, but no e-switch
	PortsOf                string // the PF whose instance has its functions' ports; "": its own
	AuxiliaryUplink        bool   // its physical port is of an auxiliary instance
	RepresentorName        func(pf, vf int) string
	External               int // VFs of another host, whose ports are here
	dir                    string
}

func (n NIC) number() int { return int(n.Address[len(n.Address)-1] - '0') }

func (n NIC) representor(vf int) string {
	if n.RepresentorName != nil {
		return n.RepresentorName(n.number(), vf)
	}
	return fmt.Sprintf("%s_%d", n.Netdev, vf)
}

// Machine is a sysfs and the devlink that belongs to it.
type Machine struct {
	*Tree
	Devlink *Devlink
}

// NewMachine makes a machine of NICs.
func NewMachine(tree *Tree, nics ...NIC) *Machine {
	m := &Machine{tree, NewDevlink()}
	for _, n := range nics {
		m.AddNIC(n)
	}
	return m
}

// Inventory is the machine's.
func (m *Machine) Inventory() *sriov.Inventory { return sriov.NewInventory(m.Root, m.Devlink) }

// AddNIC puts a physical function into the machine.
func (m *Machine) AddNIC(n NIC) {
	n.dir = m.PCI(n.Address, map[string]string{
		"vendor": n.Vendor, "device": n.Product, "class": "0x020000", "numa_node": strconv.Itoa(n.NUMA),
		"sriov_totalvfs": strconv.Itoa(n.MaxVFs), "sriov_numvfs": strconv.Itoa(n.VFs),
		"sriov_offset": strconv.Itoa(n.Offset), "sriov_stride": strconv.Itoa(n.Stride),
	}, n.Driver)
	uplink := Netdev{Name: n.Netdev, Device: n.dir, MTU: 1500, Up: true}
	if n.Mode == sriov.Switchdev {
		uplink.PortName, uplink.SwitchID = "p"+strconv.Itoa(n.number()), n.SwitchID
	}
	index := m.Add(uplink)
	owner := n.PortsOf
	if owner == "" {
		owner = n.Address
	}
	if !n.Silent {
		physical := sriov.Port{Bus: "pci", Device: n.Address, Index: 65535, Flavour: sriov.Physical, Number: n.number(), PF: -1, VF: -1, SF: -1,
			Netdev: n.Netdev, IfIndex: index}
		if n.AuxiliaryUplink {
			physical.Bus, physical.Device = "auxiliary", fmt.Sprintf("mlx5_core.eth.%d", n.number())
		}
		m.Devlink.Set(physical)
		if !n.Mute {
			m.Devlink.SetMode("pci", n.Address, n.Mode)
		}
	}
	for vf := range n.VFs {
		m.addVF(n, owner, vf)
	}
	for i, sf := range n.SFs {
		m.addSF(n, owner, i, sf)
	}
	for vf := range n.External {
		m.addPort(n, sriov.Port{Bus: "pci", Device: owner, Index: uint32(100_000 + vf), Flavour: sriov.PCIVF, Controller: 1, External: true,
			PF: n.number(), VF: vf, SF: -1, Netdev: fmt.Sprintf("pf%dvf%d", n.number(), vf)}, fmt.Sprintf("c1pf%dvf%d", n.number(), vf))
	}
}

func (m *Machine) addVF(n NIC, owner string, vf int) {
	id := address(n.Address, n.Offset+n.Stride*vf)
	dir := m.PCI(id, map[string]string{"vendor": n.Vendor, "device": n.VF, "class": "0x020000", "numa_node": strconv.Itoa(n.NUMA)}, n.VFDriver)
	m.Link(dir+"/physfn", n.dir)
	m.Link(n.dir+"/virtfn"+strconv.Itoa(vf), dir)
	m.Link(dir+"/iommu_group", fmt.Sprintf("kernel/iommu_groups/%d", 40+vf))
	if n.VFDriver != "" && n.VFDriver != "vfio-pci" {
		m.Add(Netdev{Name: fmt.Sprintf("%sv%d", n.Netdev, vf), Device: dir, MTU: 1500, MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", n.number(), vf)})
	}
	if n.Driver == "mlx5_core" && n.VFDriver == "mlx5_core" {
		m.dir(fmt.Sprintf("%s/infiniband/mlx5_%d", dir, 2+n.number()*128+vf))
	}
	if n.Mode == sriov.Switchdev {
		m.addPort(n, sriov.Port{Bus: "pci", Device: owner, Index: uint32(n.number()*1000 + vf + 1), Flavour: sriov.PCIVF, Number: -1, PF: n.number(), VF: vf, SF: -1,
			Netdev: n.representor(vf)}, fmt.Sprintf("pf%dvf%d", n.number(), vf))
	}
}

func (m *Machine) addSF(n NIC, owner string, i, sf int) {
	id := fmt.Sprintf("mlx5_core.sf.%d", 2+i+10*n.number())
	dir := m.Auxiliary(id, n.dir, sf)
	m.dir("bus/auxiliary/drivers/mlx5_core.sf")
	m.Link(dir+"/driver", "bus/auxiliary/drivers/mlx5_core.sf")
	m.Add(Netdev{Name: fmt.Sprintf("en%df%ds%d", 3, n.number(), sf), Device: dir, MTU: 1500})
	m.addPort(n, sriov.Port{Bus: "pci", Device: owner, Index: uint32(32768 + i), Flavour: sriov.PCISF, Number: -1, PF: n.number(), VF: -1, SF: sf,
		Netdev: fmt.Sprintf("en3f%dpf%dsf%d", n.number(), n.number(), sf)}, fmt.Sprintf("pf%dsf%d", n.number(), sf))
}

// addPort makes a representor and its devlink port.
func (m *Machine) addPort(n NIC, p sriov.Port, name string) {
	p.IfIndex = m.Add(Netdev{Name: p.Netdev, Device: n.dir, MTU: 1500, PortName: name, SwitchID: n.SwitchID})
	if !n.Silent {
		m.Devlink.Set(p)
	}
}

// Shapes are the NICs that listings in public show, each as few functions as say what
// is particular of it.
func Shapes() map[string][]NIC {
	mellanox := NIC{Vendor: "0x15b3", Driver: "mlx5_core", VFDriver: "mlx5_core", Stride: 1, Offset: 2, MaxVFs: 16, VFs: 2, Mode: sriov.Switchdev}
	with := func(n NIC, f func(*NIC)) NIC { f(&n); return n }
	first := with(mellanox, func(n *NIC) { n.Address, n.Netdev, n.SwitchID = "0000:3b:00.0", "ens1f0np0", "3a5f4e0003ebcfb8" })
	second := with(first, func(n *NIC) { n.Address, n.Netdev, n.Offset = "0000:3b:00.1", "ens1f1np1", 17 })
	cx5 := func(n *NIC) { n.Product, n.VF = "0x1017", "0x1018" }
	cx6 := func(n *NIC) { n.Product, n.VF = "0x101d", "0x101e" }
	cx7 := func(n *NIC) {
		n.Product, n.VF, n.AuxiliaryUplink = "0x1021", "0x101e", true
		n.RepresentorName = func(pf, vf int) string { return fmt.Sprintf("ens1f%dnpf%dvf%d", pf, pf, vf) }
	}
	shapes := map[string][]NIC{
		// Two ports, each PF with an e-switch of its own under one switch id.
		"connectx-5": {with(first, cx5), with(second, cx5)},
		"connectx-6": {with(first, cx6), with(second, cx6)},
		// Uplinks are ports of auxiliary instances.
		"connectx-7": {with(first, cx7), with(second, cx7)},
		// One e-switch has the ports of both PFs' functions, under the first's instance.
		"connectx-7-shared": {with(first, cx7), with(with(second, cx7), func(n *NIC) { n.PortsOf = "0000:3b:00.0" })},
		"connectx-6-legacy": {with(with(first, cx6), func(n *NIC) { n.Mode = sriov.Legacy }), with(with(second, cx6), func(n *NIC) { n.Mode, n.VFDriver = sriov.Legacy, "vfio-pci" })},
		// The card's own processor: no VFs, scalable functions, and the ports of its host's.
		"bluefield-2": {{Address: "0000:03:00.0", Netdev: "p0", Vendor: "0x15b3", Product: "0xa2d6", Driver: "mlx5_core", NUMA: -1, MaxVFs: 8, Mode: sriov.Switchdev,
			SwitchID: "84bf2f0003a1420c", SFs: []int{88, 4000}, External: 2}},
		// Eight PFs are possible, so VFs begin at the next slot.
		"e810": {{Address: "0000:18:00.0", Netdev: "ens801f0", Vendor: "0x8086", Product: "0x1592", VF: "0x1889", Driver: "ice", VFDriver: "iavf",
			Offset: 8, Stride: 1, MaxVFs: 128, VFs: 2, Mode: sriov.Switchdev, SwitchID: "0100000000ca3a1c",
			RepresentorName: func(_, vf int) string { return "eth" + strconv.Itoa(vf) }}},
		"e810-legacy": {{Address: "0000:18:00.0", Netdev: "ens801f0", Vendor: "0x8086", Product: "0x1592", VF: "0x1889", Driver: "ice", VFDriver: "iavf",
			Offset: 8, Stride: 1, MaxVFs: 128, VFs: 2, Mode: sriov.Legacy}},
		// 82576: no devlink; VFs are every second function, 128 and a half slots on.
		"igb": {{Address: "0000:01:00.0", Netdev: "enp1s0f0", Vendor: "0x8086", Product: "0x10c9", VF: "0x10ca", Driver: "igb", VFDriver: "igbvf",
			Offset: 384, Stride: 2, MaxVFs: 7, VFs: 3, Mode: sriov.Legacy, Silent: true, NUMA: -1},
			{Address: "0000:01:00.1", Netdev: "enp1s0f1", Vendor: "0x8086", Product: "0x10c9", VF: "0x10ca", Driver: "igb", VFDriver: "igbvf",
				Offset: 384, Stride: 2, MaxVFs: 7, VFs: 1, Mode: sriov.Legacy, Silent: true, NUMA: -1}},
	}
	return maps.Clone(shapes)
}
