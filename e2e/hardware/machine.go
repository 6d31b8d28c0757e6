package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
)

// machine is the machine that has the NIC.
type machine struct {
	devlink   *sriov.KernelDevlink
	inventory *sriov.Inventory
	kernel    *nic.Kernel
	nics      *nic.Configurer
}

func openMachine() (*machine, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("this runs as root (now uid %d)", os.Geteuid())
	}
	d, err := sriov.NewKernelDevlink()
	if err != nil {
		return nil, err
	}
	k, err := nic.NewKernel(sriov.DefaultSys)
	if err != nil {
		d.Close()
		return nil, err
	}
	i := sriov.NewInventory(sriov.DefaultSys, d)
	return &machine{d, i, k, nic.New(nic.Config{Inventory: i, Machine: k})}, nil
}

func (m *machine) close() {
	m.kernel.Close()
	m.devlink.Close()
}

// check finds the NIC, and says why the run cannot be or must not be.
func (m *machine) check(c config) (sriov.PF, error) {
	if c.nic == "" {
		return sriov.PF{}, errors.New("which NIC? make e2e SUITE=hardware NIC=ens1f0, or its PCI address")
	}
	pf, err := m.find(c.nic)
	if err != nil {
		return pf, err
	}
	if _, err := m.devlink.Mode(pf.Bus, pf.ID); err != nil {
		return pf, fmt.Errorf("NIC %s: no switchdev: its driver %s has no e-switch, so nothing can be offloaded to it; use a NIC and driver that have one (mlx5_core, ice, nfp …): %w", c.nic, pf.Driver, err)
	}
	if pf.MaxVFs >= 0 && pf.MaxVFs < functions {
		return pf, fmt.Errorf("NIC %s can have %d VFs, and %d are needed: enable SR-IOV in the machine's and the NIC's firmware", c.nic, pf.MaxVFs, functions)
	}
	if used, err := m.inUse(pf); err != nil {
		return pf, err
	} else if used != "" && !c.force {
		return pf, fmt.Errorf("NIC %s: %s: the run makes its functions anew, and changes its mode twice; choose another NIC, or say FORCE=1", c.nic, used)
	}
	return pf, errors.Join(software(c), modules())
}

// find finds a physical function by its network device or its address.
func (m *machine) find(name string) (sriov.PF, error) {
	all, err := m.inventory.PFs()
	var known []string
	for _, pf := range all {
		if pf.Netdev == name || strings.EqualFold(pf.ID, name) {
			return pf, nil
		}
		known = append(known, fmt.Sprintf("%s (%s, %s)", pf.Netdev, pf.ID, pf.Driver))
	}
	text := "none"
	if len(known) > 0 {
		text = strings.Join(known, ", ")
	}
	return sriov.PF{}, errors.Join(fmt.Errorf("no NIC %q with virtual functions is here; there are: %s", name, text), err)
}

// inUse says what a NIC is needed for; "": nothing is known.
func (m *machine) inUse(pf sriov.PF) (string, error) {
	above := uppers(pf.Netdev)
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return "", err
	}
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && (l.Attrs().Name == pf.Netdev || slices.Contains(above, l.Attrs().Name)) {
			return "it has the default route, by " + l.Attrs().Name, nil
		}
	}
	if len(above) > 0 {
		return "it is a part of " + strings.Join(above, ", "), nil
	}
	ids, err := m.inventory.VFs(pf)
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		d, err := m.inventory.Resolve(id)
		if err == nil && d.Bus == "pci" && d.Netdev == "" && d.Driver != "" {
			return fmt.Sprintf("its function %s is in use: it has driver %s and no network device here", id, d.Driver), nil
		}
	}
	return "", nil
}

// uppers are the devices that lie on another, and on those.
func uppers(name string) []string {
	var out []string
	found, _ := filepath.Glob(filepath.Join(sriov.DefaultSys, "class/net", name, "upper_*"))
	for _, f := range found {
		upper := strings.TrimPrefix(filepath.Base(f), "upper_")
		out = append(append(out, upper), uppers(upper)...)
	}
	return out
}

// software says what is missing beside the NIC, and that nobody else has the kernel's
// datapath: two ovs-vswitchd of one network namespace would remove each other's ports.
func software(c config) error {
	for _, f := range []string{"usr/sbin/ovs-vswitchd", "usr/share/ovn/ovn-nb.ovsschema"} {
		if _, err := os.Stat(filepath.Join(c.root, f)); err != nil {
			return fmt.Errorf("no OVN in %s: make ovn-root (%w)", c.root, err)
		}
	}
	for _, f := range []string{"portolan", "portolan-node", "portolan-cni"} {
		if _, err := os.Stat(filepath.Join(c.bin, f)); err != nil {
			return fmt.Errorf("no program in %s: make build (%w)", c.bin, err)
		}
	}
	for _, name := range []string{"ovs-system", "br-int", "br-ex", gatewayDevice} {
		if _, err := netlink.LinkByName(name); err == nil {
			return fmt.Errorf("device %s is here: Open vSwitch, or a run that was killed, has this machine's datapath; stop it (ovs-dpctl del-dp ovs-system; ip link del %s)", name, gatewayDevice)
		}
	}
	return nil
}

// modules loads what the kernel's datapath and its offload need, where the kernel has modules.
func modules() error {
	if _, err := os.Stat("/proc/modules"); err != nil {
		return nil
	}
	argv := []string{"-a", "openvswitch", "vport-geneve", "cls_flower", "act_mirred", "act_ct", "act_tunnel_key", "act_pedit", "act_csum", "act_gact", "sch_ingress"}
	if out, err := exec.Command("modprobe", argv...).CombinedOutput(); err != nil {
		return fmt.Errorf("this kernel lacks modules that offload needs: modprobe %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// state is a NIC as text: what must be the same afterwards, a fact a line.
func (m *machine) state(pf sriov.PF) ([]string, error) {
	m.inventory.Invalidate()
	pf, err := m.inventory.PF(pf.Bus, pf.ID)
	if err != nil {
		return nil, err
	}
	out := []string{fmt.Sprintf("%s: mode %s, %d VFs, MTU %d, up %v", pf.Netdev, pf.Mode, pf.VFs, pf.MTU, pf.Up)}
	l, err := netlink.LinkByName(pf.Netdev)
	if err != nil {
		return nil, err
	}
	addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			out = append(out, pf.Netdev+": address "+a.IPNet.String())
		}
	}
	offload, err := m.kernel.Offload(pf.Netdev)
	if err != nil {
		return nil, err
	}
	out = append(out, offloadLine(pf, offload))
	all, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		out = append(out, "device "+l.Attrs().Name)
	}
	slices.Sort(out)
	return out, nil
}

func offloadLine(pf sriov.PF, o nic.Offload) string {
	return fmt.Sprintf("%s: hw-tc-offload %s", pf.Netdev, o)
}

// patience is how long a NIC may take to be what is asked for: drivers make functions
// one after another, and on an emulated machine everything is slow.
const patience = 3 * time.Minute

// restore makes the NIC what it was, if it is not by now, and says what is left.
func (m *machine) restore(pf sriov.PF, before []string, t *table) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := m.nics.Apply(ctx, pf.Bus, pf.ID, nic.Wanted{VFs: pf.VFs, Mode: pf.Mode, MTU: pf.MTU}, nil)
	if l, lerr := netlink.LinkByName(pf.Netdev); lerr == nil && !pf.Up {
		err = errors.Join(err, netlink.LinkSetDown(l))
	}
	if slices.Contains(before, offloadLine(pf, nic.Off)) {
		err = errors.Join(err, turnOff(pf.Netdev))
	}
	after, serr := m.state(pf)
	var differ []string
	for _, line := range before {
		if !slices.Contains(after, line) {
			differ = append(differ, "before: "+line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			differ = append(differ, "after: "+line)
		}
	}
	switch err := errors.Join(err, serr); {
	case err != nil:
		t.add(false, "NIC as it was", "%v", err)
		return err
	case len(differ) > 0:
		t.add(false, "NIC as it was", "%s", strings.Join(differ, "; "))
	default:
		t.add(true, "NIC as it was", "mode %s, %d VFs, all devices", pf.Mode, pf.VFs)
	}
	return nil
}

// turnOff turns hw-tc-offload off.
func turnOff(netdev string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	return e.Change(netdev, map[string]bool{"hw-tc-offload": false})
}
