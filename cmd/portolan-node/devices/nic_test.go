package devices_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

func switchdev(vfs int) func(*intent.DevicePool) {
	return func(p *intent.DevicePool) { p.VFs, p.Mode = vfs, "switchdev" }
}

// TestNIC makes NICs of all shapes what pools ask for, from legacy mode without functions
// and back.
func TestNIC(t *testing.T) {
	for name, test := range map[string]struct {
		shape string
		old   bool
		pool  func(*intent.DevicePool)
		vfs   int
		mode  sriov.Mode
	}{
		"connectx":     {"connectx-6", false, switchdev(4), 4, sriov.Switchdev},
		"old connectx": {"connectx-5", true, switchdev(4), 4, sriov.Switchdev},
		"e810":         {"e810", false, switchdev(3), 3, sriov.Switchdev},
		"igb":          {"igb", false, func(p *intent.DevicePool) { p.VFs = 5 }, 5, sriov.Legacy},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := shape(test.shape, 0, sriov.Legacy)
			w := newWorld(t, n)
			w.m.OldMlx5 = test.old
			w.kubelet.Start()
			w.start(nics("a", test.pool))
			w.kubelet.Wait(fast, well(test.vfs, test.vfs))
			w.pool("a", ready)
			pf, err := w.m.Inventory().PF("pci", n.Address)
			if err != nil || pf.Mode != test.mode || pf.VFs != test.vfs {
				t.Fatalf("%+v, %v", pf, err)
			}
			done := len(w.m.Done())
			w.end()
			w.start(nics("a", test.pool))
			w.pool("a", ready)
			if again := w.m.Done()[done:]; len(again) > 0 {
				t.Errorf("a restart has done %q", again)
			}
			w.d.Know(nics("a", func(p *intent.DevicePool) { p.VFs, p.Mode = 2, "legacy" }))
			w.kubelet.Wait(fast, well(2, 2))
			w.pool("a", ready)
		})
	}
}

// TestWaits: what takes functions from pods waits for them, and nobody new gets one.
func TestWaits(t *testing.T) {
	w := newWorld(t, shape("connectx-6", 4, sriov.Legacy))
	w.kubelet.Start()
	w.start(nics("a", nil))
	w.kubelet.Wait(fast, well(4, 4))
	id := w.admit("p", fast, 1).Devices[fast][0]
	o := w.attach(id, "p", "ns/fast")
	w.d.Know(nics("a", switchdev(4)))
	w.kubelet.Wait(fast, well(0, 4))
	w.pool("a", because(v1alpha1.PoolWaiting, "ns/p", id, "set the number of VFs to 0"))
	if done := w.m.Done(); !slices.Equal(done, []string{"ens1f0np0: up"}) {
		t.Fatalf("it has done %q", done)
	}
	w.release(id, o)
	w.d.Verify()
	w.pool("a", because(v1alpha1.PoolWaiting, "ns/p"))
	w.kubelet.Remove("ns", "p")
	w.pass(time.Minute)
	w.kubelet.Wait(fast, well(4, 4))
	w.pool("a", ready)
}

// TestNoESwitch: a mode that a NIC has not takes nothing from anybody.
func TestNoESwitch(t *testing.T) {
	w := newWorld(t, shape("igb", 3, sriov.Legacy))
	w.kubelet.Start()
	w.start(nics("a", nil))
	w.pool("a", ready)
	w.kubelet.Wait(fast, well(3, 3))
	done := w.m.Done()
	w.d.Know(nics("a", switchdev(5)))
	w.pool("a", because(v1alpha1.PoolFailed, "NIC", "driver igb: mode switchdev is asked for", "nothing is changed"))
	w.kubelet.Wait(fast, well(0, 3)) // they are not what the pool asks for
	if again := w.m.Done()[len(done):]; len(again) > 0 {
		t.Errorf("it has done %q", again)
	}
	dry := nics("a", switchdev(5))
	dry.DryRun = true
	w.d.Know(dry)
	w.pool("a", because(v1alpha1.PoolDryRun, "it could not be done", "devlink has no e-switch of it"))
	w.d.Know(nics("a", func(p *intent.DevicePool) { p.Mode = "legacy" }))
	w.kubelet.Wait(fast, well(3, 3))
}

// TestScalable: scalable functions are offered, and waited for as VFs are.
func TestScalable(t *testing.T) {
	w := newWorld(t, sriovtest.Shapes()["bluefield-2"]...)
	w.kubelet.Start()
	w.start(nics("a", nil))
	w.kubelet.Wait(fast, well(2, 2))
	id := w.admit("p", fast, 1).Devices[fast][0]
	w.d.Know(nics("a", func(p *intent.DevicePool) { p.Mode = "legacy" }))
	w.kubelet.Wait(fast, well(0, 2))
	w.pool("a", because(v1alpha1.PoolWaiting, "ns/p ("+id+")", "set the e-switch's mode to legacy"))
	if done := w.m.Done(); slices.Contains(done, "0000:03:00.0: legacy") {
		t.Errorf("it has done %q", done)
	}
}

// TestDrivers: a function in use keeps its driver, the others get theirs.
func TestDrivers(t *testing.T) {
	n := shape("connectx-6-legacy", 3, sriov.Legacy)
	w := newWorld(t, n)
	w.kubelet.Start()
	w.start(nics("a", nil))
	w.kubelet.Wait(fast, well(3, 3))
	w.kubelet.Set("ns", "p", fast, n.VFAddress(1))
	vfio := nics("a", func(p *intent.DevicePool) { p.Driver = "vfio-pci" })
	w.d.Know(vfio)
	w.kubelet.Wait(fast, func(m map[string]string) bool { return well(2, 3)(m) && m[n.VFAddress(1)] == "Unhealthy" })
	w.pool("a", because(v1alpha1.PoolWaiting, "ns/p", n.VFAddress(1)))
	pod := w.admit("q", fast, 1)
	group := "/dev/vfio/" + map[string]string{n.VFAddress(0): "40", n.VFAddress(2): "42"}[pod.Devices[fast][0]]
	if files := pod.Answer[fast].Devices; len(files) != 2 || files[0].HostPath != group || files[1].HostPath != "/dev/vfio/vfio" {
		t.Errorf("the container gets %v, and needs %s", files, group)
	}
	w.kubelet.Remove("ns", "p")
	w.pass(time.Minute)
	w.kubelet.Wait(fast, well(3, 3))
}

// TestKilled: a process that dies at each step is followed by one that goes on.
func TestKilled(t *testing.T) {
	for _, old := range []bool{false, true} {
		for step := 1; step <= 6; step++ {
			w := newWorld(t, shape("connectx-6", 2, sriov.Legacy))
			w.m.OldMlx5 = old
			w.kubelet.Start()
			done := 0
			reached := make(chan struct{})
			w.m.After = func(string) {
				if done++; done == step {
					w.m.Fails[nic.SetVFs], w.m.Fails[nic.SetMode] = errors.New("killed"), errors.New("killed")
					w.m.Fails[nic.Bind], w.m.Fails[nic.Unbind], w.m.Fails[nic.SetOffload] = errors.New("killed"), errors.New("killed"), errors.New("killed")
					close(reached)
				}
			}
			w.start(nics("a", switchdev(2)))
			select {
			case <-reached:
			case <-time.After(patience):
				t.Fatalf("step %d is not reached: %q", step, w.m.Done())
			}
			w.end()
			w.m.After = nil
			clear(w.m.Fails)
			w.start(nics("a", switchdev(2)))
			w.pool("a", ready)
			w.kubelet.Wait(fast, well(2, 2))
			w.end()
		}
	}
}

// TestConflicts names both pools and leaves the NIC as it is.
func TestConflicts(t *testing.T) {
	for name, test := range map[string]struct {
		a, b func(*intent.DevicePool)
		says string
	}{
		"mode":     {switchdev(2), func(p *intent.DevicePool) { p.Mode = "legacy" }, "mode switchdev and legacy"},
		"mtu":      {func(p *intent.DevicePool) { p.MTU = 9000 }, func(p *intent.DevicePool) { p.MTU = 1500 }, "mtu 9000 and 1500"},
		"driver":   {func(p *intent.DevicePool) { p.Driver = "vfio-pci" }, func(p *intent.DevicePool) { p.Driver = "netdevice" }, "driver of VF 0 vfio-pci and netdevice"},
		"resource": {nil, func(p *intent.DevicePool) { p.Resource = "portolan.io/slow" }, "VF 0 is of resource"},
	} {
		w := newWorld(t, shape("connectx-6", 2, sriov.Legacy))
		w.kubelet.Start()
		w.start(nics("a", test.a), nics("b", test.b))
		for _, pool := range []string{"a", "b"} {
			w.pool(pool, because(v1alpha1.PoolConflict, "DevicePools a and b", test.says))
		}
		if done := w.m.Done(); len(done) > 0 {
			t.Errorf("%s: it has done %q", name, done)
		}
		w.end()
	}
}

// TestRanges: pools share a NIC by the numbers of its functions; there are as many as the
// one that wants most asks for.
func TestRanges(t *testing.T) {
	n := shape("connectx-6", 0, sriov.Legacy)
	w := newWorld(t, n)
	w.kubelet.Start()
	part := func(low, high int) []intent.NICPart {
		return []intent.NICPart{{NIC: n.Netdev, VFs: [][2]int{{low, high}}}}
	}
	w.start(
		nics("a", func(p *intent.DevicePool) { p.VFs, p.NICs.PFNames = 4, part(0, 1) }),
		nics("b", func(p *intent.DevicePool) {
			p.VFs, p.Resource, p.Driver, p.NICs.PFNames = 6, "portolan.io/slow", "vfio-pci", part(2, 9)
		}))
	w.kubelet.Wait(fast, well(2, 2))
	w.kubelet.Wait("portolan.io/slow", well(4, 4))
}

// TestSelection tells which NICs are meant.
func TestSelection(t *testing.T) {
	cx := sriovtest.Shapes()["connectx-6-legacy"]
	w := newWorld(t, slices.Concat(cx, []sriovtest.NIC{shape("e810", 2, sriov.Legacy), shape("igb", 3, sriov.Legacy)})...)
	w.kubelet.Start()
	pools := map[string]struct {
		by   intent.NICSelector
		want int32
	}{
		"vendor":    {intent.NICSelector{Vendors: []string{"15b3"}}, 4},
		"two":       {intent.NICSelector{Vendors: []string{"15b3", "8086"}}, 9},
		"device":    {intent.NICSelector{Devices: []string{"101d"}}, 4},
		"function":  {intent.NICSelector{Devices: []string{"1889"}}, 2},
		"driver":    {intent.NICSelector{Drivers: []string{"igb", "ice"}}, 5},
		"name":      {intent.NICSelector{PFNames: []intent.NICPart{{NIC: cx[1].Netdev}}}, 2},
		"bare name": {intent.NICSelector{PFNames: []intent.NICPart{{NIC: "ens1f0"}}}, 2},
		"root":      {intent.NICSelector{RootDevices: []intent.NICPart{{NIC: "0000:01:00.0", VFs: [][2]int{{1, 1}}}}}, 1},
		"both":      {intent.NICSelector{Vendors: []string{"8086"}, Drivers: []string{"mlx5_core"}}, 0},
		"link":      {intent.NICSelector{LinkTypes: []string{"infiniband"}}, 0},
	}
	for name, test := range pools {
		w.start(nics("a", func(p *intent.DevicePool) { p.NICs = test.by }))
		w.pool("a", func(s v1alpha1.NodeDevicePool) bool {
			return s.Devices == test.want && (test.want > 0 || s.Reason == v1alpha1.PoolNoNIC)
		})
		w.end()
		_ = name
	}
	w.start(nics("a", func(p *intent.DevicePool) {
		p.Nodes = intent.Labels{{Key: "zone", Op: intent.In, Values: []string{"b"}}}
	}))
	w.until(func() bool { return len(w.d.States()) == 0 }, func() any { return w.d.States() })
}

// TestDryRunNIC says what would be done.
func TestDryRunNIC(t *testing.T) {
	w := newWorld(t, shape("e810", 2, sriov.Legacy))
	w.kubelet.Start()
	w.start(nics("a", func(p *intent.DevicePool) { switchdev(4)(p); p.DryRun = true }))
	s := w.pool("a", because(v1alpha1.PoolDryRun, "steps would be done"))
	want := []string{"set the number of VFs to 0 (is 2)", "set the e-switch's mode to switchdev (is legacy)", "set the number of VFs to 4 (is 0)"}
	if len(s.Steps) < 3 || !slices.Equal(s.Steps[:3], want) || s.Devices != 0 || len(w.m.Done()) > 0 {
		t.Errorf("it says %+v and has done %q", s, w.m.Done())
	}
}

// TestRefused: what the node is reached by is left alone; so is what others use.
func TestRefused(t *testing.T) {
	n := shape("e810", 0, sriov.Legacy)
	for name, test := range map[string]struct {
		use   map[string]devices.Use
		above string
		pool  func(*intent.DevicePool)
		says  string
	}{
		"number":      {map[string]devices.Use{n.Netdev: {Why: "it is the node's gateway NIC", Node: true}}, "", func(p *intent.DevicePool) { p.VFs = 4 }, "gateway NIC"},
		"below bond0": {map[string]devices.Use{"bond0": {Why: "it is the node's gateway NIC", Node: true}}, "bond0", func(p *intent.DevicePool) { p.VFs = 4 }, "it is below bond0: it is the node's gateway NIC"},
		"mode":        {map[string]devices.Use{n.Netdev: {Why: "it is the NIC of PhysicalNetwork x"}}, "", switchdev(4), "PhysicalNetwork x"},
		"member":      {map[string]devices.Use{}, "br7", switchdev(4), "br7 lies on it"},
	} {
		w := newWorld(t, shape("e810", 0, sriov.Legacy))
		w.config.Uses = func() map[string]devices.Use { return test.use }
		if test.above != "" {
			w.m.Add(sriovtest.Netdev{Name: test.above, MTU: 1500, Up: true})
			w.m.Link("class/net/"+n.Netdev+"/upper_"+test.above, "class/net/"+test.above)
		}
		w.kubelet.Start()
		w.start(nics("a", test.pool))
		s := w.pool("a", because(v1alpha1.PoolFailed, test.says))
		if done := w.m.Done(); len(done) > 0 || len(s.Steps) == 0 {
			t.Errorf("%s: it has done %q; steps %q", name, done, s.Steps)
		}
		w.end()
	}
}

// TestRefusal: what a driver refuses is said, and tried again later; functions that are
// there are given meanwhile.
func TestRefusal(t *testing.T) {
	w := newWorld(t, shape("igb", 3, sriov.Legacy))
	w.m.Fails[nic.SetVFs] = unix.ENOSPC
	w.kubelet.Start()
	w.start(nics("a", func(p *intent.DevicePool) { p.VFs = 5 }))
	w.pool("a", because(v1alpha1.PoolFailed, "no space left", "igb"))
	w.kubelet.Wait(fast, well(3, 3))
	w.kubelet.Set("ns", "p", fast, sriovtest.Shapes()["igb"][0].VFAddress(0))
	w.pass(10 * time.Minute)
	w.pool("a", func(s v1alpha1.NodeDevicePool) bool {
		return s.Reason == v1alpha1.PoolFailed && s.InUse == 1 && s.Well == 3
	})
	w.kubelet.Remove("ns", "p")
	delete(w.m.Fails, nic.SetVFs)
	w.pass(10 * time.Minute)
	w.kubelet.Wait(fast, well(5, 5))
}

// TestTooMany says what a NIC can have.
func TestTooMany(t *testing.T) {
	w := newWorld(t, shape("igb", 3, sriov.Legacy))
	w.kubelet.Start()
	w.start(nics("a", func(p *intent.DevicePool) { p.VFs = 8 }))
	w.pool("a", because(v1alpha1.PoolFailed, "8 VFs are asked for, and it can have 7"))
	w.kubelet.Wait(fast, well(3, 3))
}

// TestHealth follows what makes functions unwell.
func TestHealth(t *testing.T) {
	n := shape("connectx-6", 2, sriov.Switchdev)
	w := newWorld(t, n)
	w.kubelet.Start()
	pool := nics("a", func(p *intent.DevicePool) { p.Mode = "switchdev" })
	w.start(pool)
	w.pool("a", ready) // what brings the NIC up, and its link, has ended
	carrier := "class/net/" + n.Netdev + "/carrier"
	w.m.Write(carrier, "0")
	w.d.Know(pool)
	w.kubelet.Wait(fast, well(0, 2))
	w.pool("a", because(v1alpha1.PoolFailed, "has no link"))
	w.m.Write(carrier, "1")
	w.d.Know(pool)
	w.kubelet.Wait(fast, well(2, 2))
	w.m.BindVF(n, 1, "")
	w.d.Know(nics("a", func(p *intent.DevicePool) { p.Mode, p.Driver = "switchdev", "netdevice" }))
	w.until(func() bool { return w.m.VFDriverOf(n, 1) == "mlx5_core" }, func() any { return w.m.Done() })
	w.kubelet.Wait(fast, well(2, 2))
}

// TestInformation follows the files that are written for who is given a device.
func TestInformation(t *testing.T) {
	n := shape("connectx-6", 2, sriov.Switchdev)
	w := newWorld(t, n)
	w.config.CDI = filepath.Join(t.TempDir(), "cdi")
	w.kubelet.Start()
	w.m.Write("bus/pci/devices/"+n.VFAddress(0)+"/infiniband_verbs/uverbs2/ibdev", "mlx5_2")
	w.start(nics("a", func(p *intent.DevicePool) {
		p.RDMA = true
		p.NICs.RootDevices = []intent.NICPart{{NIC: connectx, VFs: [][2]int{{0, 0}}}}
	}))
	w.kubelet.Wait(fast, well(1, 1))
	pod := w.admit("p", fast, 1)
	id := pod.Devices[fast][0]
	if c := pod.Answer[fast].CdiDevices; len(c) != 1 || c[0].Name != "portolan.io/device="+id || len(pod.Answer[fast].Devices) > 0 {
		t.Errorf("the container gets %+v", pod.Answer[fast])
	}
	spec, err := os.ReadFile(filepath.Join(w.config.CDI, "portolan.io-device.json"))
	if err != nil || !strings.Contains(string(spec), "/dev/infiniband/uverbs2") {
		t.Errorf("%s, %v", spec, err)
	}
	file := filepath.Join(w.config.Info, "portolan.io-fast-"+id+"-device.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d, err := multus.ParseDeviceInfo(file, text)
	if err != nil || d.PCI.PFAddress != connectx || d.PCI.Representor == "" || d.PCI.RDMA != "mlx5_2" {
		t.Errorf("%s, %v", text, err)
	}
	foreign := filepath.Join(w.config.Info, "example.com-x-"+n.VFAddress(1)+"-device.json")
	if err := os.WriteFile(foreign, text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.kubelet.Remove("ns", "p")
	w.pass(time.Minute)
	w.until(func() bool { _, err := os.Stat(file); return errors.Is(err, os.ErrNotExist) }, func() any { return file })
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	w.d.Forget("a")
	w.until(func() bool {
		_, err := os.Stat(filepath.Join(w.config.CDI, "portolan.io-device.json"))
		return errors.Is(err, os.ErrNotExist)
	}, func() any { return "the CDI file is there" })
}
