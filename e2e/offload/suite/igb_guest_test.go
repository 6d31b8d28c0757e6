//go:build guest

package suite

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// quiet is how long a frame is awaited that must not come: one sent after it has come by then.
const quiet = rig.Patience

func mac(text string) net.HardwareAddr {
	hw, err := net.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return hw
}

// TestDebianIGB drives a legacy SR-IOV NIC as an administrator does, and looks at
// the other end of its cable.
func TestDebianIGB(t *testing.T) {
	l := rig.New(t)
	pf, far := l.IGB()
	pf.SetVFs(2)
	for i := range 2 {
		pf.IP("vf", fmt.Sprint(i), "mac", fmt.Sprintf("02:00:00:00:01:%02x", i))
		pf.Rebind(i)
	}
	g := igb{pf, far}
	l.Run("Functions", g.functions)
	l.Run("VLAN", g.vlan)
	l.Run("SpoofCheck", g.spoofCheck)
	l.Run("Trust", g.trust)
	l.Run("Rate", g.rate)
	l.Run("Refused", g.refused)
	l.Run("Namespace", g.namespace)
	l.Run("VFIO", g.vfio)
}

type igb struct{ pf, far rig.PF }

func (g igb) functions(t *testing.T) {
	pf := g.pf
	if n, err := os.ReadFile("/sys/class/net/" + pf.Name + "/device/sriov_totalvfs"); err != nil || strings.TrimSpace(string(n)) != "7" {
		t.Errorf("sriov_totalvfs %q, %v", n, err)
	}
	for i, want := range []string{"02:00:00:00:01:00", "02:00:00:00:01:01"} {
		name := pf.UpVF(i)
		link, err := net.InterfaceByName(name)
		if err != nil || link.HardwareAddr.String() != want {
			t.Errorf("VF %d, %s: MAC %v, %v; its PF set %s", i, name, link, err, want)
		}
		physfn, err := os.Readlink("/sys/bus/pci/devices/" + pf.VFPCI(i) + "/physfn")
		if err != nil || filepath.Base(physfn) != pf.PCI {
			t.Errorf("VF %d: physfn %q, %v", i, physfn, err)
		}
	}
	if id, err := os.ReadFile("/sys/class/net/" + pf.Name + "/phys_switch_id"); err == nil && len(id) > 0 {
		t.Errorf("phys_switch_id %q: igb has no e-switch", id)
	}
}

// seen sends texts from a VF, and gives the frames that the far end saw, up to the
// last text, which is sent by the far end's own NIC's neighbour, the PF: whatever
// was to come has come before.
func (g igb) seen(t *testing.T, vf string, source net.HardwareAddr, text string) []rig.Frame {
	t.Helper()
	pf, far := g.pf, g.far
	l, err := rig.Listen(far.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	broadcast := mac("ff:ff:ff:ff:ff:ff")
	if err := rig.Send(vf, source, broadcast, text); err != nil {
		t.Fatal(err)
	}
	own, err := net.InterfaceByName(pf.Name)
	if err != nil {
		t.Fatal(err)
	}
	// Two queues of one NIC: the end mark goes again until it is seen a second after the frame.
	time.AfterFunc(time.Second, func() { _ = rig.Send(pf.Name, own.HardwareAddr, broadcast, "end of "+text) })
	frames, err := l.Until("end of "+text, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return frames[:len(frames)-1]
}

func (g igb) vlan(t *testing.T) {
	pf := g.pf
	vf, source := pf.UpVF(0), mac("02:00:00:00:01:00")
	if got := g.seen(t, vf, source, "untagged"); len(got) != 1 || got[0].VLAN != 0 || got[0].Text != "untagged" {
		t.Fatalf("without a VLAN the wire has %v", got)
	}
	pf.IP("vf", "0", "vlan", "100", "qos", "3")
	t.Cleanup(func() { pf.IP("vf", "0", "vlan", "0"); pf.Rebind(0) })
	if show := pf.Show(0); !strings.Contains(show, "vlan 100") || !strings.Contains(show, "qos 3") {
		t.Errorf("the PF shows %q", show)
	}
	pf.Rebind(0) // the driver begins anew after its function was reset by the change
	if got := g.seen(t, pf.UpVF(0), source, "tagged"); len(got) != 1 || got[0].VLAN != 100 {
		t.Errorf("with VLAN 100 the wire has %v", got)
	}
}

// spoofCheck: the driver takes the setting and shows it. The emulated NIC sends
// spoofed frames all the same (docs/limits.md); one that does not would fail here.
func (g igb) spoofCheck(t *testing.T) {
	pf := g.pf
	vf, foreign := pf.UpVF(0), mac("02:00:00:00:99:99")
	if show := pf.Show(0); !strings.Contains(show, "spoof checking on") {
		t.Errorf("at first the PF shows %q", show)
	}
	if got := g.seen(t, vf, foreign, "spoofed"); len(got) != 1 {
		t.Errorf("this QEMU does check (the wire has %v): demand it here, and take the line out of docs/limits.md", got)
	}
	pf.IP("vf", "0", "spoofchk", "off")
	t.Cleanup(func() { pf.IP("vf", "0", "spoofchk", "on") })
	if show := pf.Show(0); !strings.Contains(show, "spoof checking off") {
		t.Errorf("switched off, the PF shows %q", show)
	}
	if got := g.seen(t, vf, foreign, "allowed"); len(got) != 1 || got[0].Source.String() != foreign.String() {
		t.Errorf("spoof check is off, and the wire has %v", got)
	}
}

// trust: a VF may give itself another MAC than the PF has set only if it is trusted.
func (g igb) trust(t *testing.T) {
	pf := g.pf
	const set, own = "02:00:00:00:01:00", "02:00:00:00:77:77"
	vf := pf.UpVF(0)
	address := func(want string) {
		t.Helper()
		if link, err := net.InterfaceByName(vf); err != nil || link.HardwareAddr.String() != want {
			t.Errorf("%s: %v, %v; want MAC %s", vf, link, err, want)
		}
	}
	if show := pf.Show(0); !strings.Contains(show, "trust off") {
		t.Errorf("at first the PF shows %q", show)
	}
	if _, err := try("ip", "link", "set", vf, "address", own); err == nil || !strings.Contains(err.Error(), "Cannot assign requested address") {
		t.Errorf("an untrusted VF takes another MAC: %v", err)
	}
	address(set)
	pf.IP("vf", "0", "trust", "on")
	t.Cleanup(func() {
		pf.IP("vf", "0", "trust", "off")
		pf.IP("vf", "0", "mac", set)
		pf.Rebind(0)
	})
	if show := pf.Show(0); !strings.Contains(show, "trust on") {
		t.Errorf("trusted, the PF shows %q", show)
	}
	run(t, "ip", "link", "set", vf, "address", own)
	address(own)
}

func (g igb) rate(t *testing.T) {
	pf := g.pf
	pf.IP("vf", "0", "max_tx_rate", "100")
	if show := pf.Show(0); !strings.Contains(show, "max_tx_rate 100Mbps") {
		t.Errorf("the PF shows %q", show)
	}
	pf.IP("vf", "0", "max_tx_rate", "0")
}

// refused is what this driver does not do: what is asked must fail, not pass by.
func (g igb) refused(t *testing.T) {
	pf := g.pf
	for want, args := range map[string][]string{
		"Invalid argument":        {"vf", "0", "min_tx_rate", "10"},
		"Operation not supported": {"vf", "0", "state", "disable"},
		"Protocol not supported":  {"vf", "0", "vlan", "100", "proto", "802.1ad"},
	} {
		if err := pf.TryIP(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %q", args, err, want)
		}
	}
}

// namespace moves a VF into a pod and lets the pod go: the VF comes back.
func (g igb) namespace(t *testing.T) {
	pf, far := g.pf, g.far
	vf := pf.UpVF(1)
	ns := newNamespace(t, "vf1")
	run(t, "ip", "link", "set", vf, "netns", ns, "name", "eth0")
	run(t, "ip", "-n", ns, "addr", "add", "10.9.0.1/24", "dev", "eth0")
	run(t, "ip", "-n", ns, "link", "set", "eth0", "up")
	other := newNamespace(t, "far")
	run(t, "ip", "link", "set", far.Name, "netns", other)
	run(t, "ip", "-n", other, "addr", "add", "10.9.0.2/24", "dev", far.Name)
	run(t, "ip", "-n", other, "link", "set", far.Name, "up")
	rig.Wait(t, "an answer over the wire", func() error {
		_, err := try("ip", "netns", "exec", ns, "ping", "-c1", "-W5", "10.9.0.2")
		return err
	})
	run(t, "ip", "netns", "del", ns)
	if name := pf.VFName(1); name == "" {
		t.Error("no netdev")
	}
	run(t, "ip", "-n", other, "link", "set", far.Name, "netns", "1")
	run(t, "ip", "link", "set", far.Name, "up")
}

func (g igb) vfio(t *testing.T) {
	pf := g.pf
	rig.Modules(t, "vfio-pci")
	group, err := os.Readlink("/sys/bus/pci/devices/" + pf.VFPCI(0) + "/iommu_group")
	if err != nil {
		t.Fatalf("no IOMMU group: %v", err)
	}
	pf.Bind(0, "vfio-pci")
	rig.Wait(t, "the group's device", func() error { _, err := os.Stat("/dev/vfio/" + filepath.Base(group)); return err })
	if names, _ := filepath.Glob("/sys/bus/pci/devices/" + pf.VFPCI(0) + "/net/*"); len(names) != 0 {
		t.Errorf("netdevs %v with vfio-pci", names)
	}
	pf.Bind(0, "igbvf")
	pf.VFName(0)
}
