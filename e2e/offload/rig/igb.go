package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// PF is a physical function of an emulated igb NIC, in the guest's first network
// namespace. The two that a guest has are the ends of one wire.
type PF struct {
	Name string // netdev
	PCI  string // 0000:01:00.0
	lab  *Lab
}

func (p PF) t() *testing.T { return p.lab.t }

// IGB gives the two NICs, up, with drivers for their VFs.
func (l *Lab) IGB() (a, b PF) {
	t := l.t
	t.Helper()
	Modules(t, "igb", "igbvf")
	var pfs []PF
	Wait(t, "two igb NICs", func() error {
		pfs = nil
		names, _ := filepath.Glob("/sys/bus/pci/drivers/igb/0000:*/net/*")
		for _, n := range names {
			pfs = append(pfs, PF{lab: l, Name: filepath.Base(n), PCI: filepath.Base(filepath.Dir(filepath.Dir(n)))})
		}
		if len(pfs) != 2 {
			return fmt.Errorf("found %v", pfs)
		}
		return nil
	})
	slices.SortFunc(pfs, func(a, b PF) int { return strings.Compare(a.PCI, b.PCI) })
	for _, p := range pfs {
		p.IP("up")
	}
	for _, p := range pfs {
		Wait(t, "a link on "+p.Name, func() error { return hasCarrier(p.Name) })
	}
	return pfs[0], pfs[1]
}

func hasCarrier(name string) error {
	text, err := os.ReadFile("/sys/class/net/" + name + "/carrier")
	if err == nil && strings.TrimSpace(string(text)) != "1" {
		err = fmt.Errorf("%s has no carrier", name)
	}
	return err
}

// TryIP runs ip link set on the PF, with arguments such as "vf", "0", "trust", "on".
func (p PF) TryIP(args ...string) error {
	out, err := exec.Command("ip", append([]string{"link", "set", p.Name}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip link set %s %s: %w: %s", p.Name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// IP is TryIP for what must succeed.
func (p PF) IP(args ...string) {
	p.t().Helper()
	if err := p.TryIP(args...); err != nil {
		p.t().Fatal(err)
	}
}

// SetVFs sets the number of virtual functions, and takes them away when the test ends.
func (p PF) SetVFs(n int) {
	p.t().Helper()
	set := func(n int) error {
		return os.WriteFile("/sys/bus/pci/devices/"+p.PCI+"/sriov_numvfs", fmt.Appendf(nil, "%d", n), 0)
	}
	if err := set(n); err != nil {
		p.t().Fatal(err)
	}
	p.t().Cleanup(func() {
		if err := set(0); err != nil {
			p.t().Errorf("take the VFs of %s away: %v", p.Name, err)
		}
	})
}

// VFPCI is the PCI address of a virtual function.
func (p PF) VFPCI(i int) string {
	p.t().Helper()
	target, err := os.Readlink(fmt.Sprintf("/sys/bus/pci/devices/%s/virtfn%d", p.PCI, i))
	if err != nil {
		p.t().Fatal(err)
	}
	return filepath.Base(target)
}

// VFName waits for the netdev of a virtual function in the guest's first network namespace.
func (p PF) VFName(i int) string {
	p.t().Helper()
	var name string
	Wait(p.t(), fmt.Sprintf("the netdev of VF %d", i), func() error {
		names, _ := filepath.Glob("/sys/bus/pci/devices/" + p.VFPCI(i) + "/net/*")
		if len(names) != 1 {
			return fmt.Errorf("%s has netdevs %v", p.VFPCI(i), names)
		}
		name = filepath.Base(names[0])
		return nil
	})
	return name
}

// Rebind takes a virtual function from its driver and gives it to it again: the
// driver then reads what the PF has set.
func (p PF) Rebind(i int) {
	p.t().Helper()
	p.Bind(i, "igbvf")
}

// Bind gives a virtual function to a driver.
func (p PF) Bind(i int, driver string) {
	p.t().Helper()
	pci := p.VFPCI(i)
	write := func(name, text string) {
		p.t().Helper()
		if err := os.WriteFile("/sys/bus/pci/"+name, []byte(text), 0); err != nil {
			p.t().Fatalf("VF %d to %s: write %q to %s: %v", i, driver, text, name, err)
		}
	}
	if _, err := os.Stat("/sys/bus/pci/devices/" + pci + "/driver"); err == nil {
		write("devices/"+pci+"/driver/unbind", pci)
	}
	write("devices/"+pci+"/driver_override", driver)
	write("drivers_probe", pci)
	now, err := os.Readlink("/sys/bus/pci/devices/" + pci + "/driver")
	if err != nil || filepath.Base(now) != driver {
		p.t().Fatalf("VF %d: driver %q, %v; want %s", i, filepath.Base(now), err, driver)
	}
}

// UpVF sets a virtual function's netdev up, and waits for its link.
func (p PF) UpVF(i int) string {
	p.t().Helper()
	name := p.VFName(i)
	if out, err := exec.Command("ip", "link", "set", name, "up").CombinedOutput(); err != nil {
		p.t().Fatalf("ip link set %s up: %v: %s", name, err, out)
	}
	Wait(p.t(), "a link on "+name, func() error { return hasCarrier(name) })
	return name
}

// Show is what ip says of the PF's virtual function.
func (p PF) Show(i int) string {
	p.t().Helper()
	out, err := exec.Command("ip", "-d", "link", "show", p.Name).Output()
	if err != nil {
		p.t().Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(strings.TrimSpace(line), fmt.Sprintf("vf %d ", i)) {
			return strings.TrimSpace(line)
		}
	}
	p.t().Fatalf("%s has no VF %d: %s", p.Name, i, out)
	return ""
}
