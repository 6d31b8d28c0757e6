package nic_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/nic/nictest"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// shape is the first NIC of a shape, with so many functions, in a mode.
func shape(name string, vfs int, mode sriov.Mode) sriovtest.NIC {
	n := sriovtest.Shapes()[name][0]
	n.VFs, n.Mode = vfs, mode
	return n
}

func with(n sriovtest.NIC, f func(*sriovtest.NIC)) sriovtest.NIC { f(&n); return n }

func configurer(m *nictest.Machine) *nic.Configurer {
	return nic.New(nic.Config{Inventory: m.Inventory(), Machine: m, Patience: time.Second})
}

func steps(t *testing.T, c *nic.Configurer, m *nictest.Machine, w nic.Wanted) []string {
	t.Helper()
	pfs, err := m.Inventory().PFs()
	if err != nil {
		t.Fatal(err)
	}
	n, err := c.Look(pfs[0])
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.Plan(n, w)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for _, s := range list {
		out = append(out, s.String())
	}
	return out
}

const connectx = "0000:3b:00.0"

func TestSwitchdev(t *testing.T) {
	for name, test := range map[string]struct {
		nic  sriovtest.NIC
		old  bool
		want nic.Wanted
		done []string
	}{
		"mlx5, mode first": {shape("connectx-6", 0, sriov.Legacy), false, nic.Wanted{VFs: 2, Mode: sriov.Switchdev, MTU: 9000}, []string{
			"0000:3b:00.0: switchdev", "0000:3b:00.0: 2 VFs", "ens1f0np0: MTU 9000", "ens1f0np0: up",
			"ens1f0np0: hw-tc-offload", "ens1f0np0_0: hw-tc-offload", "ens1f0np0_1: hw-tc-offload",
		}},
		"mlx5 that has functions": {shape("connectx-6", 4, sriov.Legacy), false, nic.Wanted{VFs: -1, Mode: sriov.Switchdev}, []string{
			"0000:3b:00.0: 0 VFs", "0000:3b:00.0: switchdev", "0000:3b:00.0: 4 VFs", "ens1f0np0: up",
			"ens1f0np0: hw-tc-offload", "ens1f0np0_0: hw-tc-offload", "ens1f0np0_1: hw-tc-offload", "ens1f0np0_2: hw-tc-offload", "ens1f0np0_3: hw-tc-offload",
		}},
		"mlx5, functions first": {shape("connectx-5", 0, sriov.Legacy), true, nic.Wanted{VFs: 2, Mode: sriov.Switchdev}, []string{
			"0000:3b:00.0: 2 VFs", "0000:3b:00.2: unbound", "0000:3b:00.3: unbound", "0000:3b:00.0: switchdev",
			"0000:3b:00.2: bound to netdevice", "0000:3b:00.3: bound to netdevice", "ens1f0np0: up",
			"ens1f0np0: hw-tc-offload", "ens1f0np0_0: hw-tc-offload", "ens1f0np0_1: hw-tc-offload",
		}},
		"ice": {shape("e810", 2, sriov.Legacy), false, nic.Wanted{VFs: 1, Mode: sriov.Switchdev}, []string{
			"0000:18:00.0: 0 VFs", "0000:18:00.0: switchdev", "0000:18:00.0: 1 VFs", "ens801f0: up", "ens801f0: hw-tc-offload", "eth0: hw-tc-offload",
		}},
		"back to legacy": {shape("connectx-6", 2, sriov.Switchdev), false, nic.Wanted{VFs: 0, Mode: sriov.Legacy}, []string{
			"0000:3b:00.0: 0 VFs", "0000:3b:00.0: legacy",
		}},
		"more functions": {shape("connectx-6", 2, sriov.Legacy), false, nic.Wanted{VFs: 3, Drivers: map[int]string{1: "vfio-pci"}}, []string{
			"0000:3b:00.0: 0 VFs", "0000:3b:00.0: 3 VFs", "ens1f0np0: up", "0000:3b:00.3: bound to vfio-pci",
		}},
		"drivers": {shape("igb", 3, sriov.Legacy), false, nic.Wanted{VFs: -1, Drivers: map[int]string{0: "vfio-pci", 2: nic.OwnDriver}}, []string{
			"enp1s0f0: up", "0000:02:10.0: bound to vfio-pci",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := nictest.New(sriovtest.NewTree(t), test.nic)
			m.OldMlx5 = test.old
			c := configurer(m)
			if err := c.Apply(t.Context(), "pci", test.nic.Address, test.want, nil); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.done, m.Done()); diff != "" {
				t.Error(diff)
			}
			if left := steps(t, c, m, test.want); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			// What is as it is wanted is not touched.
			if err := c.Apply(t.Context(), "pci", test.nic.Address, test.want, nil); err != nil || len(m.Done()) != len(test.done) {
				t.Errorf("again: %v, %v", err, m.Done())
			}
		})
	}
}

// TestOrderIsRemembered: what a driver has refused once is not tried again, and dry runs
// tell the order that it takes.
func TestOrderIsRemembered(t *testing.T) {
	m := nictest.New(sriovtest.NewTree(t), shape("connectx-5", 0, sriov.Legacy))
	m.OldMlx5 = true
	c := configurer(m)
	w := nic.Wanted{VFs: 1, Mode: sriov.Switchdev}
	if diff := cmp.Diff([]string{"set the e-switch's mode to switchdev (is legacy)", "set the number of VFs to 1 (is 0)", "bring ens1f0np0 up"}, steps(t, c, m, w)); diff != "" {
		t.Error(diff)
	}
	if err := c.Apply(t.Context(), "pci", connectx, w, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), "pci", connectx, nic.Wanted{VFs: 1, Mode: sriov.Legacy}, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"unbind VF 0 from mlx5_core", "set the e-switch's mode to switchdev (is legacy)", "bind VF 0 to the NIC's own driver (is none)"}, steps(t, c, m, w)); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	busy := errors.New("pod demo/a has a function of it")
	for name, test := range map[string]struct {
		nic  sriovtest.NIC
		set  func(*nictest.Machine)
		want nic.Wanted
		may  func(nic.Step) error
		text []string
		done []string
	}{
		"more than it can": {nic: shape("igb", 0, sriov.Legacy), want: nic.Wanted{VFs: 8},
			text: []string{"PF enp1s0f0 (0000:01:00.0): 8 VFs are asked for, and it can have 7"}},
		"no e-switch": {nic: shape("igb", 2, sriov.Legacy), want: nic.Wanted{VFs: 4, Mode: sriov.Switchdev, MTU: 9000},
			text: []string{"NIC enp1s0f0 (0000:01:00.0), driver igb: mode switchdev is asked for, it is in legacy mode", "devlink has no e-switch of it: nothing is changed"}},
		"devlink without e-switch": {nic: with(shape("e810", 2, sriov.Legacy), func(n *sriovtest.NIC) { n.Mute = true }), want: nic.Wanted{VFs: -1, Mode: sriov.Switchdev},
			text: []string{"driver ice: mode switchdev is asked for", "nothing is changed"}},
		"no devlink in this kernel": {nic: shape("connectx-6", 2, sriov.Legacy), set: func(m *nictest.Machine) { m.Devlink.Absent() }, want: nic.Wanted{VFs: 4, Mode: sriov.Switchdev},
			text: []string{"driver mlx5_core: mode switchdev is asked for", "nothing is changed"}},
		"no e-switch with functions either": {nic: shape("connectx-5", 0, sriov.Legacy), set: func(m *nictest.Machine) {
			m.Devlink.Absent()
			m.Fails[nic.SetMode] = fmt.Errorf("changing the e-switch: %w (%w)", errors.ErrUnsupported, unix.EOPNOTSUPP)
		}, want: nic.Wanted{VFs: 2, Mode: sriov.Switchdev}, text: []string{"devlink has no e-switch of it"}, done: []string{"0000:3b:00.0: 2 VFs"}},
		"a mode refused gives functions back": {nic: shape("e810", 3, sriov.Legacy), set: func(m *nictest.Machine) { m.Fails[nic.SetMode] = unix.EINVAL }, want: nic.Wanted{VFs: 1, Mode: sriov.Switchdev},
			text: []string{"to set the e-switch's mode to switchdev (is legacy): invalid argument"}, done: []string{"0000:18:00.0: 0 VFs", "0000:18:00.0: 3 VFs"}},
		"in use": {nic: shape("connectx-6", 2, sriov.Legacy), want: nic.Wanted{VFs: 4}, may: func(nic.Step) error { return busy }, text: []string{busy.Error()}},
		"busy": {nic: shape("connectx-6", 2, sriov.Legacy), set: func(m *nictest.Machine) { m.Busy = true }, want: nic.Wanted{VFs: 4},
			text: []string{"set the number of VFs to 0 (is 2)", "something uses the functions"}},
		"the driver says why": {nic: shape("e810", 0, sriov.Legacy), set: func(m *nictest.Machine) {
			m.Fails[nic.SetMode] = fmt.Errorf("%w: no switchdev with ADQ", unix.EINVAL)
		}, want: nic.Wanted{VFs: -1, Mode: sriov.Switchdev}, text: []string{"no switchdev with ADQ", "kernel's log"}},
		"MTU": {nic: shape("connectx-6", 0, sriov.Legacy), want: nic.Wanted{VFs: -1, MTU: 60000}, text: []string{"set the MTU of ens1f0np0 to 60000 (is 1500)", "invalid argument"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := nictest.New(sriovtest.NewTree(t), test.nic)
			if test.set != nil {
				test.set(m)
			}
			err := configurer(m).Apply(t.Context(), "pci", test.nic.Address, test.want, test.may)
			for _, text := range test.text {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("error %v, want %q", err, text)
				}
			}
			if diff := cmp.Diff(test.done, m.Done()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestKernelWithoutDriver: functions that no driver takes are made all the same, and
// say so by their faults.
func TestKernelWithoutDriver(t *testing.T) {
	m := nictest.New(sriovtest.NewTree(t), shape("e810", 0, sriov.Legacy))
	m.Driverless = true
	c := nic.New(nic.Config{Inventory: m.Inventory(), Machine: m, Patience: 50 * time.Millisecond})
	if err := c.Apply(t.Context(), "pci", "0000:18:00.0", nic.Wanted{VFs: 1}, nil); err != nil {
		t.Fatal(err)
	}
	d, err := m.Inventory().Resolve("0000:18:01.0")
	if err != nil || d.Fault() == nil || !strings.Contains(d.Fault().Error(), "no driver is bound") {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestFixedFeature: what a driver has not is not asked for.
func TestFixedFeature(t *testing.T) {
	m := nictest.New(sriovtest.NewTree(t), shape("connectx-6", 1, sriov.Switchdev))
	m.Fix("ens1f0np0_0")
	if err := configurer(m).Apply(t.Context(), "pci", connectx, nic.Wanted{VFs: -1}, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ens1f0np0: up", "ens1f0np0: hw-tc-offload"}, m.Done()); diff != "" {
		t.Error(diff)
	}
}

// TestSomebodyElseConfigures ends, and says what does not stay.
func TestSomebodyElseConfigures(t *testing.T) {
	m := nictest.New(sriovtest.NewTree(t), shape("connectx-6", 0, sriov.Legacy))
	m.After = func(what string) {
		if what == "ens1f0np0: MTU 9000" {
			m.Write("class/net/ens1f0np0/mtu", "1500")
		}
	}
	err := configurer(m).Apply(t.Context(), "pci", connectx, nic.Wanted{VFs: -1, MTU: 9000}, nil)
	if err == nil || !strings.Contains(err.Error(), "it does not stay as it is asked for") || !strings.Contains(err.Error(), "set the MTU of ens1f0np0 to 9000") {
		t.Errorf("error %v", err)
	}
}

// TestKernelWrites has what is written to sysfs, by files that play it.
func TestKernelWrites(t *testing.T) {
	sys := t.TempDir()
	for _, path := range []string{
		"bus/pci/devices/0000:3b:00.0/sriov_numvfs", "bus/pci/devices/0000:3b:00.2/driver_override", "bus/pci/devices/0000:3b:00.2/driver/unbind",
		"bus/pci/drivers_probe", "bus/pci/drivers/vfio-pci/bind", "bus/pci/devices/0000:3b:00.3/driver_override",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sys, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sys, path), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k, err := nic.NewKernel(sys)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(sys, path))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if err := k.SetVFs("pci", "0000:3b:00.0", 8); err != nil || read("bus/pci/devices/0000:3b:00.0/sriov_numvfs") != "8" {
		t.Errorf("VFs: %v", err)
	}
	if err := k.Bind("pci", "0000:3b:00.2", "vfio-pci"); err != nil {
		t.Fatal(err)
	}
	if got := read("bus/pci/devices/0000:3b:00.2/driver_override") + " " + read("bus/pci/devices/0000:3b:00.2/driver/unbind") + " " + read("bus/pci/drivers_probe"); got != "vfio-pci 0000:3b:00.2 0000:3b:00.2" {
		t.Errorf("bound by %q", got)
	}
	if err := k.Bind("pci", "0000:3b:00.3", nic.OwnDriver); err != nil || read("bus/pci/devices/0000:3b:00.3/driver_override") != "\n" {
		t.Errorf("bound to its own: %v", err)
	}
	if err := k.Bind("pci", "0000:3b:00.2", "uio_x"); err == nil || !strings.Contains(err.Error(), "modprobe uio_x") {
		t.Errorf("a driver that is not there: %v", err)
	}
	if err := k.SetVFs("pci", "0000:00:00.0", 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a NIC that is not there: %v", err)
	}
	if err := k.SetMode("pci", "0000:00:00.0", "fast"); err == nil || !strings.Contains(err.Error(), `mode "fast"`) {
		t.Errorf("a mode that is none: %v", err)
	}
	if err := k.SetUp(""); err == nil {
		t.Error("a PF without network device was brought up")
	}
}

// late has functions whose representors come a while after the driver has said that it is
// done, or never.
type late struct {
	*nictest.Machine
	nic   sriovtest.NIC
	dir   string        // of the NIC
	after time.Duration // 0: never
	rest  sync.WaitGroup
}

// SetVFs implements nic.Machine.
func (l *late) SetVFs(bus, pf string, n int) error {
	if err := l.Machine.SetVFs(bus, pf, n); err != nil || n == 0 {
		return err
	}
	ports, err := l.Devlink.Ports()
	if err != nil {
		return err
	}
	ports = slices.DeleteFunc(ports, func(p sriov.Port) bool { return p.Flavour != sriov.PCIVF || p.Device != pf })
	for _, p := range ports {
		l.Devlink.Delete(p.Netdev)
		l.Drop(p.Netdev)
	}
	if l.after == 0 {
		return nil
	}
	l.rest.Go(func() {
		<-time.After(l.after)
		for _, p := range ports {
			p.IfIndex = l.Add(sriovtest.Netdev{Name: p.Netdev, Device: l.dir, MTU: 1500, PortName: fmt.Sprintf("pf0vf%d", p.VF), SwitchID: l.nic.SwitchID})
			l.Devlink.Set(p)
		}
	})
	return nil
}

// TestFunctionsComeLate: what functions need is waited for, and no step comes before; what
// never comes ends the wait, and says what is missing.
func TestFunctionsComeLate(t *testing.T) {
	for name, after := range map[string]time.Duration{"late": 200 * time.Millisecond, "never": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := shape("connectx-6", 0, sriov.Switchdev)
			m := &late{Machine: nictest.New(sriovtest.NewTree(t), n), nic: n, after: after}
			dir, err := filepath.EvalSymlinks(filepath.Join(m.Root, "bus/pci/devices", connectx))
			if err != nil {
				t.Fatal(err)
			}
			m.dir = strings.TrimPrefix(dir, m.Root+"/")
			defer m.rest.Wait()
			patience := time.Minute
			if after == 0 {
				patience = 100 * time.Millisecond
			}
			c := nic.New(nic.Config{Inventory: m.Inventory(), Machine: m, Patience: patience})
			err = c.Apply(t.Context(), "pci", connectx, nic.Wanted{VFs: 2}, nil)
			if after == 0 {
				if err == nil || !strings.Contains(err.Error(), "it has not come in time: VF") || !strings.Contains(err.Error(), "has no representor") {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			done := strings.Join(m.Done(), "; ")
			if !strings.HasPrefix(done, "0000:3b:00.0: 2 VFs; ") || !strings.Contains(done, "ens1f0np0_0: hw-tc-offload") || !strings.Contains(done, "ens1f0np0_1: hw-tc-offload") {
				t.Errorf("it has done %s", done)
			}
		})
	}
}
