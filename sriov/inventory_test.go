package sriov_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

func machine(t testing.TB, shape string) *sriovtest.Machine {
	t.Helper()
	nics, ok := sriovtest.Shapes()[shape]
	if !ok {
		t.Fatalf("no shape %s", shape)
	}
	return sriovtest.NewMachine(sriovtest.NewTree(t), nics...)
}

// line is a device in the form of the table of TestShapes.
func line(d sriov.Device) string {
	text := fmt.Sprintf("%s %s %s pf=%s/%s index=%d driver=%s netdev=%s rep=%s", d.ID, d.Kind, d.Mode, d.PF.ID, d.PF.Netdev, d.Index, d.Driver, d.Netdev, d.Representor)
	if len(d.RDMA) > 0 {
		text += " rdma=" + strings.Join(d.RDMA, ",")
	}
	for _, f := range d.Faults {
		text += " FAULT " + f.Found
	}
	return text
}

func list(t testing.TB, m *sriovtest.Machine) string {
	t.Helper()
	devices, err := m.Inventory().Devices()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, d := range devices {
		out.WriteString(line(d) + "\n")
	}
	return out.String()
}

// TestShapes holds, for each NIC, what its functions resolve to.
func TestShapes(t *testing.T) {
	mellanox := `0000:3b:00.2 vf switchdev pf=0000:3b:00.0/ens1f0np0 index=0 driver=mlx5_core netdev=ens1f0np0v0 rep=ens1f0np0_0 rdma=mlx5_2
0000:3b:00.3 vf switchdev pf=0000:3b:00.0/ens1f0np0 index=1 driver=mlx5_core netdev=ens1f0np0v1 rep=ens1f0np0_1 rdma=mlx5_3
0000:3b:02.2 vf switchdev pf=0000:3b:00.1/ens1f1np1 index=0 driver=mlx5_core netdev=ens1f1np1v0 rep=ens1f1np1_0 rdma=mlx5_130
0000:3b:02.3 vf switchdev pf=0000:3b:00.1/ens1f1np1 index=1 driver=mlx5_core netdev=ens1f1np1v1 rep=ens1f1np1_1 rdma=mlx5_131
`
	newer := strings.NewReplacer("rep=ens1f0np0_", "rep=ens1f0npf0vf", "rep=ens1f1np1_", "rep=ens1f1npf1vf").Replace(mellanox)
	want := map[string]string{
		"connectx-5": mellanox, "connectx-6": mellanox, "connectx-7": newer, "connectx-7-shared": newer,
		"connectx-6-legacy": `0000:3b:00.2 vf legacy pf=0000:3b:00.0/ens1f0np0 index=0 driver=mlx5_core netdev=ens1f0np0v0 rep= rdma=mlx5_2
0000:3b:00.3 vf legacy pf=0000:3b:00.0/ens1f0np0 index=1 driver=mlx5_core netdev=ens1f0np0v1 rep= rdma=mlx5_3
0000:3b:02.2 vf legacy pf=0000:3b:00.1/ens1f1np1 index=0 driver=vfio-pci netdev= rep=
0000:3b:02.3 vf legacy pf=0000:3b:00.1/ens1f1np1 index=1 driver=vfio-pci netdev= rep=
`,
		"bluefield-2": `mlx5_core.sf.2 sf switchdev pf=0000:03:00.0/p0 index=88 driver=mlx5_core.sf netdev=en3f0s88 rep=en3f0pf0sf88
mlx5_core.sf.3 sf switchdev pf=0000:03:00.0/p0 index=4000 driver=mlx5_core.sf netdev=en3f0s4000 rep=en3f0pf0sf4000
`,
		"e810": `0000:18:01.0 vf switchdev pf=0000:18:00.0/ens801f0 index=0 driver=iavf netdev=ens801f0v0 rep=eth0
0000:18:01.1 vf switchdev pf=0000:18:00.0/ens801f0 index=1 driver=iavf netdev=ens801f0v1 rep=eth1
`,
		"e810-legacy": `0000:18:01.0 vf legacy pf=0000:18:00.0/ens801f0 index=0 driver=iavf netdev=ens801f0v0 rep=
0000:18:01.1 vf legacy pf=0000:18:00.0/ens801f0 index=1 driver=iavf netdev=ens801f0v1 rep=
`,
		"igb": `0000:02:10.0 vf legacy pf=0000:01:00.0/enp1s0f0 index=0 driver=igbvf netdev=enp1s0f0v0 rep=
0000:02:10.2 vf legacy pf=0000:01:00.0/enp1s0f0 index=1 driver=igbvf netdev=enp1s0f0v1 rep=
0000:02:10.4 vf legacy pf=0000:01:00.0/enp1s0f0 index=2 driver=igbvf netdev=enp1s0f0v2 rep=
0000:02:10.1 vf legacy pf=0000:01:00.1/enp1s0f1 index=0 driver=igbvf netdev=enp1s0f1v0 rep=
`,
	}
	for shape := range sriovtest.Shapes() {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			m := machine(t, shape)
			if diff := cmp.Diff(want[shape], list(t, m)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWithoutDevlink: sysfs alone gives the same, where the NIC names its ports there.
func TestWithoutDevlink(t *testing.T) {
	for _, shape := range []string{"connectx-5", "connectx-7", "bluefield-2", "e810", "e810-legacy", "connectx-6-legacy", "igb"} {
		m := machine(t, shape)
		want := list(t, m)
		m.Devlink.Absent()
		if diff := cmp.Diff(want, list(t, m)); diff != "" {
			t.Errorf("%s: %s", shape, diff)
		}
	}
}

func TestPFs(t *testing.T) {
	m := machine(t, "connectx-6")
	m.Bond("bond0", "802.3ad 4", "ens1f0np0", "ens1f1np1")
	pfs, err := m.Inventory().PFs()
	if err != nil {
		t.Fatal(err)
	}
	want := sriov.PF{ID: "0000:3b:00.0", Bus: "pci", Netdev: "ens1f0np0", Driver: "mlx5_core", Vendor: "0x15b3", Product: "0x101d", Mode: sriov.Switchdev, ESwitch: true,
		SwitchID: "3a5f4e0003ebcfb8", Bond: "bond0", BondMode: "802.3ad", VFs: 2, MaxVFs: 16, Carrier: true, MTU: 1500}
	if len(pfs) != 2 || pfs[1].SwitchID != want.SwitchID || pfs[1].Bond != "bond0" || pfs[1].Number != 1 {
		t.Fatalf("got %+v", pfs)
	}
	if diff := cmp.Diff(want, pfs[0]); diff != "" {
		t.Error(diff)
	}
}

// TestUplinkElsewhere: the one representor that is left is not taken for the NIC's own device.
func TestUplinkElsewhere(t *testing.T) {
	n := sriovtest.Shapes()["connectx-6"][0]
	n.VFs = 1
	m := sriovtest.NewMachine(sriovtest.NewTree(t), n)
	m.Drop(n.Netdev)
	m.Devlink.Delete(n.Netdev)
	if pf, err := m.Inventory().PF("pci", n.Address); err != nil || pf.Netdev != "" {
		t.Errorf("%+v, %v", pf, err)
	}
}

// TestOtherHostsPorts: on a DPU, the ports of the host's functions are listed, and are
// nobody's here.
func TestOtherHostsPorts(t *testing.T) {
	ports, err := machine(t, "bluefield-2").Inventory().Ports()
	if err != nil {
		t.Fatal(err)
	}
	external := 0
	for _, p := range ports {
		if p.External {
			external++
		}
	}
	if external != 2 || len(ports) != 5 {
		t.Errorf("%d of %d ports are external", external, len(ports))
	}
}

func TestResolveRefuses(t *testing.T) {
	m := machine(t, "connectx-6")
	m.PCI("0000:00:1f.6", map[string]string{"class": "0x020000", "vendor": "0x8086"}, "e1000e")
	m.Auxiliary("mlx5_core.eth.0", "devices/pci0000:3b/0000:3b:1f.0/0000:3b:00.0", 0)
	m.Remove("devices/pci0000:3b/0000:3b:1f.0/0000:3b:00.0/mlx5_core.eth.0/sfnum")
	for id, want := range map[string]string{
		"":                   "no PCI address",
		"../../../etc":       "no PCI address",
		"eth0":               "no PCI address",
		"0000:3b:00.9":       "no PCI address",
		"0000:3b:07.7":       "it does not exist; see whether",
		"0000:3b:00.0":       "no virtual function; give a VF of it",
		"0000:00:1f.6":       "no virtual function",
		"mlx5_core.sf.99":    "it does not exist",
		"mlx5_core.eth.0":    "it is no scalable function",
		"soft-nowhere":       "it does not exist; look at the DevicePool",
		"soft-UPPER":         "it is no soft device's",
		"soft-a/b":           "it is no soft device's",
		"soft-abcdefghijklm": "it is no soft device's",
		"netdevsim3.vf1":     "it does not exist",
	} {
		_, err := m.Inventory().Resolve(id)
		if err == nil || !strings.Contains(err.Error(), want) || !sriov.IsNotFound(err) {
			t.Errorf("%q: %v; wanted %q", id, err, want)
		}
	}
	if d, err := m.Inventory().Resolve("0000:3B:00.2"); err != nil || d.ID != "0000:3b:00.2" {
		t.Errorf("upper case: %v, %v", d.ID, err)
	}
}

// TestFaults: what exists and cannot be used is told with the cause.
func TestFaults(t *testing.T) {
	const vf = "0000:3b:00.2"
	for name, c := range map[string]struct {
		do   func(m *sriovtest.Machine)
		want string
	}{
		"driver unbound":        {func(m *sriovtest.Machine) { m.Bind("pci", vf, ""); m.Drop("ens1f0np0v0") }, "no driver is bound"},
		"representor missing":   {func(m *sriovtest.Machine) { m.Devlink.Delete("ens1f0np0_0"); m.Drop("ens1f0np0_0") }, "there is no port pf0vf0 of 0000:3b:00.0"},
		"representor elsewhere": {func(m *sriovtest.Machine) { m.Drop("ens1f0np0_0") }, "has no network device here"},
		"two representors": {func(m *sriovtest.Machine) {
			m.Devlink.Set(sriov.Port{Bus: "pci", Device: "0000:3b:00.0", Index: 7, Flavour: sriov.PCIVF, Netdev: "other"})
		}, "2 ports are port pf0vf0 of 0000:3b:00.0: ens1f0np0_0 (pci/0000:3b:00.0/1), other (pci/0000:3b:00.0/7)"},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine(t, "connectx-6")
			c.do(m)
			d, err := m.Inventory().Resolve(vf)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Fault(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, wanted %q", err, c.want)
			}
		})
	}
}

// TestOnlyOneDump: what is looked up after the first is answered from memory; what
// others change is noticed, at the cost of one dump.
func TestOnlyOneDump(t *testing.T) {
	m := machine(t, "connectx-6")
	i := m.Inventory()
	resolve := func(want string, dumps int) {
		t.Helper()
		d, err := i.Resolve("0000:3b:00.2")
		if err != nil || d.Representor != want || m.Devlink.Dumps() != dumps {
			t.Fatalf("representor %q after %d dumps, %v; wanted %q after %d", d.Representor, m.Devlink.Dumps(), err, want, dumps)
		}
	}
	resolve("ens1f0np0_0", 1)
	resolve("ens1f0np0_0", 1)

	// udev renames it.
	m.Drop("ens1f0np0_0")
	p := sriov.Port{Bus: "pci", Device: "0000:3b:00.0", Index: 1, Flavour: sriov.PCIVF, Number: -1, SF: -1, Netdev: "renamed"}
	p.IfIndex = m.Add(sriovtest.Netdev{Name: "renamed", Device: "devices/pci0000:3b/0000:3b:1f.0/0000:3b:00.0", PortName: "pf0vf0", SwitchID: "3a5f4e0003ebcfb8"})
	m.Devlink.Set(p)
	resolve("renamed", 2)
	resolve("renamed", 2)

	// The e-switch is reset: other devices under the same names.
	m.Drop("renamed")
	p.IfIndex = m.Add(sriovtest.Netdev{Name: "renamed", Device: "devices/pci0000:3b/0000:3b:1f.0/0000:3b:00.0", PortName: "pf0vf0", SwitchID: "3a5f4e0003ebcfb8"})
	m.Devlink.Set(p)
	resolve("renamed", 3)

	i.Invalidate()
	resolve("renamed", 4)

	m.Devlink.SetMode("pci", "0000:3b:00.0", sriov.Legacy)
	resolve("", 4)
}

func TestSoft(t *testing.T) {
	m := machine(t, "igb")
	m.Soft("a-0", true)
	m.Soft("a-1", false)
	i := m.Inventory()
	for id, want := range map[string]string{
		"soft-a-0": "soft-a-0 soft switchdev pf=/ index=0 driver=veth netdev=sv-a-0 rep=sr-a-0",
		"soft-a-1": "soft-a-1 soft switchdev pf=/ index=0 driver=veth netdev= rep=sr-a-1",
	} {
		d, err := i.Resolve(id)
		if err != nil || line(d) != want {
			t.Errorf("got %s, %v; wanted %s", line(d), err, want)
		}
	}
	devices, err := i.Devices()
	if err != nil || len(devices) != 6 {
		t.Errorf("%d devices, %v", len(devices), err)
	}
}

// TestSimulated: netdevsim has no PCI, and numbers that are its own.
func TestSimulated(t *testing.T) {
	m := sriovtest.NewMachine(sriovtest.NewTree(t))
	dir := "devices/netdevsim10"
	m.Write(dir+"/sriov_numvfs", "2")
	m.Link("bus/netdevsim/devices/netdevsim10", dir)
	m.Link(dir+"/subsystem", "bus/netdevsim")
	m.Add(sriovtest.Netdev{Name: "eni10np1", Device: dir, PortName: "p1", SwitchID: "aa"})
	m.Devlink.SetMode("netdevsim", "netdevsim10", sriov.Switchdev)
	for vf := range 2 {
		name := fmt.Sprintf("eni10npf0vf%d", vf)
		p := sriov.Port{Bus: "netdevsim", Device: "netdevsim10", Index: uint32(128 + vf), Flavour: sriov.PCIVF, PF: 10, VF: vf, SF: -1, Netdev: name}
		p.IfIndex = m.Add(sriovtest.Netdev{Name: name, Device: dir, PortName: fmt.Sprintf("pf10vf%d", vf), SwitchID: "aa", Link: 40 + vf, Index: 30 + vf})
		m.Devlink.Set(p)
	}
	m.Add(sriovtest.Netdev{Name: "player", Index: 41, Link: 31})
	want := `netdevsim10.vf0 vf switchdev pf=netdevsim10/eni10np1 index=0 driver=netdevsim netdev= rep=eni10npf0vf0
netdevsim10.vf1 vf switchdev pf=netdevsim10/eni10np1 index=1 driver=netdevsim netdev=player rep=eni10npf0vf1
`
	if diff := cmp.Diff(want, list(t, m)); diff != "" {
		t.Error(diff)
	}
	if _, err := m.Inventory().Resolve("netdevsim10.vf2"); err == nil || !strings.Contains(err.Error(), "sriov_numvfs: 2 VFs") {
		t.Error(err)
	}
}

// TestWithoutArithmetic: older kernels have no sriov_offset and sriov_stride.
func TestWithoutArithmetic(t *testing.T) {
	m := machine(t, "e810")
	for _, f := range []string{"sriov_offset", "sriov_stride"} {
		if err := os.Remove(m.Root + "/bus/pci/devices/0000:18:00.0/" + f); err != nil {
			t.Fatal(err)
		}
	}
	if d, err := m.Inventory().Resolve("0000:18:01.1"); err != nil || d.Index != 1 {
		t.Errorf("index %d, %v", d.Index, err)
	}
}

func FuzzResolve(f *testing.F) {
	m := sriovtest.NewMachine(sriovtest.NewTree(f), sriovtest.Shapes()["connectx-6"]...)
	m.Soft("a-0", true)
	i := m.Inventory()
	for _, id := range []string{"0000:3b:00.2", "mlx5_core.sf.4", "soft-a-0", "netdevsim1.vf0", "", "..", "0000:3b:00.2/net"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		d, err := i.Resolve(id)
		if err == nil && !strings.EqualFold(d.ID, id) {
			t.Errorf("%q resolves to %q", id, d.ID)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", id, err)
		}
	})
}

// BenchmarkResolve: 256 VFs of two PFs, none dumped for a lookup.
func BenchmarkResolve(b *testing.B) {
	nic := sriovtest.Shapes()["connectx-6"][0]
	nic.VFs, nic.MaxVFs = 127, 127
	second := nic
	second.Address, second.Netdev, second.Offset, second.VFs = "0000:3b:00.1", "ens1f1np1", 256, 129
	m := sriovtest.NewMachine(sriovtest.NewTree(b), nic, second)
	i := m.Inventory()
	devices, err := i.Devices()
	if err != nil || len(devices) != 256 {
		b.Fatalf("%d devices, %v", len(devices), err)
	}
	before := m.Devlink.Dumps()
	n := 0
	for b.Loop() {
		d, err := i.Resolve(devices[n%256].ID)
		if err != nil || d.Representor == "" {
			b.Fatal(err)
		}
		n++
	}
	if dumps := m.Devlink.Dumps() - before; dumps != 0 {
		b.Errorf("%d dumps", dumps)
	}
	b.ReportMetric(float64(m.Devlink.Dumps()-before), "dumps")
}

func TestVDPA(t *testing.T) {
	m := machine(t, "connectx-6")
	m.Link("bus/vdpa/devices/vdpa0", "devices/pci0000:3b/0000:3b:1f.0/0000:3b:00.3/vdpa0")
	i := m.Inventory()
	for id, want := range map[string]int{"0000:3b:00.2": 0, "0000:3b:00.3": 1} {
		if d, err := i.Resolve(id); err != nil || len(d.VDPA) != want {
			t.Errorf("%s: %v, %v", id, d.VDPA, err)
		}
	}
}
