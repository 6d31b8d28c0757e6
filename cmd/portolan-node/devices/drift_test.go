package devices_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// TestDrift: what somebody else makes of a NIC is seen, and is not well: it waits for pods,
// and is set right when they are gone. A pool is never ready by what was done once.
func TestDrift(t *testing.T) {
	n := shape("connectx-6", 2, sriov.Switchdev)
	w := newWorld(t, n)
	w.kubelet.Start()
	w.start(nics("a", switchdev(2)))
	w.pool("a", ready)
	id := w.admit("p", fast, 1).Devices[fast][0]
	// Its mode, under a pod.
	w.m.Devlink.SetMode("pci", n.Address, sriov.Legacy)
	w.d.Look()
	w.pool("a", because(v1alpha1.PoolWaiting, "ns/p ("+id+")", "set the number of VFs to 0"))
	w.kubelet.Wait(fast, well(0, 2))
	w.m.Devlink.SetMode("pci", n.Address, sriov.Switchdev)
	w.d.Look()
	w.pool("a", ready)
	w.kubelet.Remove("ns", "p")
	w.pass(time.Minute)
	// Its functions, of nobody.
	if err := w.m.SetVFs("pci", n.Address, 0); err != nil {
		t.Fatal(err)
	}
	done := len(w.m.Done())
	w.d.Look()
	w.until(func() bool { return slices.Contains(w.m.Done()[done:], n.Address+": 2 VFs") }, func() any { return w.m.Done() })
	w.pool("a", ready)
	w.kubelet.Wait(fast, well(2, 2))
}

// TestGroupChanges: a container gets the vfio group that its function has then.
func TestGroupChanges(t *testing.T) {
	n := shape("connectx-6-legacy", 1, sriov.Legacy)
	n.VFDriver = "vfio-pci"
	w := newWorld(t, n)
	w.kubelet.Start()
	w.start(nics("a", nil))
	w.pool("a", ready)
	first := w.admit("p", fast, 1).Answer[fast].Devices
	w.kubelet.Remove("ns", "p")
	w.m.Link("bus/pci/devices/"+n.VFAddress(0)+"/iommu_group", "kernel/iommu_groups/77")
	w.end() // as after a boot
	w.start(nics("a", nil))
	w.pool("a", ready)
	second := w.admit("q", fast, 1).Answer[fast].Devices
	if len(first) != 2 || len(second) != 2 || first[0].HostPath != "/dev/vfio/40" || second[0].HostPath != "/dev/vfio/77" {
		t.Errorf("the containers get %v and then %v", first, second)
	}
}

// TestBond: tunnels of functions of a bonded NIC begin at the bond's address.
func TestBond(t *testing.T) {
	n := shape("connectx-6", 1, sriov.Switchdev)
	w := newWorld(t, n)
	w.m.Bond("bond0", "802.3ad 4", n.Netdev)
	w.kubelet.Start()
	w.config.Addresses = func(name string) ([]netip.Addr, error) {
		if name == "bond0" {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}
		return nil, nil
	}
	w.start(nics("a", func(p *intent.DevicePool) { p.Tunnel = "uplink" }))
	w.pool("a", ready)
	w.kubelet.Set("ns", "p", fast, n.VFAddress(0))
	if c, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); err != nil || c.Encap.String() != "192.0.2.1" {
		t.Errorf("%+v, %v", c, err)
	}
}
