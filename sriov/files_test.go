package sriov_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

func TestFiles(t *testing.T) {
	m := sriovtest.NewMachine(sriovtest.NewTree(t), sriovtest.Shapes()["connectx-6-legacy"]...)
	m.Write("bus/pci/devices/0000:3b:00.2/infiniband_verbs/uverbs3/ibdev", "mlx5_2")
	m.Write("bus/pci/devices/0000:3b:00.2/infiniband_mad/umad3/port", "1")
	m.Write("bus/pci/devices/0000:3b:00.2/infiniband_mad/issm3/port", "1")
	for id, want := range map[string]map[string]string{
		"0000:3b:00.2": {"uverbs": "/dev/infiniband/uverbs3", "umad": "/dev/infiniband/umad3", "issm": "/dev/infiniband/issm3", "rdma_cm": "/dev/infiniband/rdma_cm"},
		"0000:3b:02.2": {"vfio": "/dev/vfio/vfio", "group": "/dev/vfio/40"},
	} {
		d, err := m.Inventory().Resolve(id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Inventory().Files(d)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", id, diff)
		}
	}
	m.Write("kernel/iommu_groups/40/name", "vfio-noiommu")
	d, err := m.Inventory().Resolve("0000:3b:02.2")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := m.Inventory().Files(d); got["group"] != "/dev/vfio/noiommu-40" {
		t.Errorf("without an IOMMU: %v", got)
	}
	if got, err := m.Inventory().Files(sriov.Device{ID: "soft-a-0", Kind: sriov.Soft}); err != nil || len(got) > 0 {
		t.Errorf("of a soft device: %v, %v", got, err)
	}
}

// TestPFs has what is only looked at when a PF is chosen or changed.
func TestPFAttributes(t *testing.T) {
	m := sriovtest.NewMachine(sriovtest.NewTree(t), sriovtest.Shapes()["connectx-5"]...)
	m.Write("class/net/ens1f0np0/type", "1")
	m.Write("class/net/ens1f0np0/flags", "0x1003")
	m.Write("class/net/ens1f1np1/flags", "0x1002")
	m.Write("bus/pci/devices/0000:3b:00.0/sriov_vf_device", "1018")
	pfs, err := m.Inventory().PFs()
	if err != nil || len(pfs) != 2 {
		t.Fatal(pfs, err)
	}
	if p := pfs[0]; !p.Up || p.LinkType != "ether" || p.VFProduct != "0x1018" {
		t.Errorf("first %+v", p)
	}
	if p := pfs[1]; p.Up || p.LinkType != "" || p.VFProduct != "" {
		t.Errorf("second %+v", p)
	}
}
