//go:build guest

package suite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// legacyPool is a DevicePool of a legacy NIC: fields are of its spec.
func legacyPool(name, pf, fields string) string {
	return fmt.Sprintf("---\napiVersion: portolan.io/v1alpha1\nkind: DevicePool\nmetadata: {name: %[1]s}\nspec: {resourceName: portolan.io/%[1]s, nics: {pfNames: [%[2]q]}, %[3]s}\n", name, pf, fields)
}

// functions are the VFs of a NIC that there are, each with its driver. One that goes
// meanwhile has none.
func functions(pf rig.PF) []string {
	links, _ := filepath.Glob("/sys/bus/pci/devices/" + pf.PCI + "/virtfn*")
	var out []string
	for _, link := range links {
		driver := ""
		if target, err := os.Readlink(link + "/driver"); err == nil {
			driver = filepath.Base(target)
		}
		out = append(out, driver)
	}
	return out
}

// has waits until the VFs of a NIC have these drivers.
func (a *agent) has(t *testing.T, pf rig.PF, drivers string) {
	t.Helper()
	rig.Wait(t, "functions with drivers "+drivers, func() error {
		if got := strings.Join(functions(pf), " "); got != drivers {
			devices, _ := a.Try(a.site.bin+"/portolan", "devices")
			problems, _ := a.Try(a.site.bin+"/portolan", "problems")
			return fmt.Errorf("there are %q\n%s\n%s", got, devices, problems)
		}
		return nil
	})
}

// TestDebianPools: pools of an emulated igb. What its driver does is done, also when
// the agent is killed meanwhile; what it cannot is told with what to do.
func TestDebianPools(t *testing.T) {
	l := rig.New(t)
	intent := nodeFile(1)
	s := newSite(l, t, "", intent)
	pf, _ := l.IGB()
	h := s.machine(1)
	a := s.start(t, h)
	declare := func(pools ...string) { h.Write("intent/all.yaml", intent+strings.Join(pools, "")) }
	t.Cleanup(func() { _ = os.WriteFile("/sys/bus/pci/devices/"+pf.PCI+"/sriov_numvfs", []byte("0"), 0) })
	l.Run("TooMany", func(t *testing.T) {
		declare(legacyPool("net", pf.Name, "vfs: 9"))
		a.complains(t, "9 VFs are asked for, and it can have 7")
	})
	l.Run("NoSwitchdev", func(t *testing.T) {
		declare(legacyPool("net", pf.Name, "vfs: 3"))
		a.has(t, pf, "igbvf igbvf igbvf")
		declare(legacyPool("net", pf.Name, "vfs: 2, mode: switchdev"))
		a.complains(t, "devlink has no e-switch of it: nothing is changed")
		if got := functions(pf); len(got) != 3 {
			t.Errorf("there are %q: functions were taken for a mode that the NIC has not", got)
		}
	})
	l.Run("Killed", func(t *testing.T) {
		declare(legacyPool("net", pf.Name, "vfs: 4, mode: legacy, mtu: 1500"))
		a.kill()
		a.run()
		a.has(t, pf, "igbvf igbvf igbvf igbvf")
	})
	l.Run("VFIO", func(t *testing.T) {
		a.run() // the one before ended with its subtest
		pools := []string{legacyPool("net", pf.Name+"#0-1", "vfs: 4"), legacyPool("vm", pf.Name+"#2-3", "vfs: 4, driver: vfio-pci")}
		if _, err := os.Stat("/sys/bus/pci/drivers/vfio-pci"); err != nil {
			declare(pools...)
			a.complains(t, "the kernel has no driver vfio-pci: load it with modprobe vfio-pci")
			rig.Modules(t, "vfio-pci")
		}
		declare(pools...)
		a.has(t, pf, "igbvf igbvf vfio-pci vfio-pci")
		a.kill()
		declare(legacyPool("net", pf.Name, "vfs: 4, driver: netdevice"))
		a.run()
		a.has(t, pf, "igbvf igbvf igbvf igbvf")
	})
	l.Run("Unbound", func(t *testing.T) {
		a.run() // the one before ended with its subtest
		declare(legacyPool("net", pf.Name, "vfs: 4"))
		a.has(t, pf, "igbvf igbvf igbvf igbvf")
		a.shows(t, pf, false)
		const driver = "/sys/bus/pci/drivers/igbvf/"
		for _, c := range []struct {
			file  string
			shows bool
		}{{"unbind", true}, {"bind", false}} {
			began := time.Now()
			if err := os.WriteFile(driver+c.file, []byte(pf.VFPCI(0)), 0); err != nil {
				t.Fatal(err)
			}
			a.shows(t, pf, c.shows)
			took := time.Since(began)
			t.Logf("%s is shown after %s", c.file, took.Round(10*time.Millisecond))
			if took > heardOf {
				t.Errorf("%s is shown after %s: uevents are not heard", c.file, took)
			}
		}
	})
}

// heardOf is long for a change that the kernel tells of, on a slow guest, and short of the
// poll that would find it.
const heardOf = 15 * time.Second

// shows waits until the first function of a NIC is shown, without a driver or with one.
func (a *agent) shows(t *testing.T, pf rig.PF, unbound bool) {
	t.Helper()
	rig.Wait(t, "portolan devices", func() error {
		text, err := a.Try(a.site.bin+"/portolan", "devices")
		if err != nil || !strings.Contains(text, pf.VFPCI(0)) || strings.Contains(text, "no driver is bound") != unbound {
			return fmt.Errorf("%v: %s", err, text)
		}
		return nil
	})
}
