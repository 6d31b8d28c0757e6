package sriov

import "path/filepath"

// Files are the device files that a program needs to use a function, by what they are
// for: "vfio" and "group" of one that vfio-pci drives; "uverbs", "umad", "issm" and
// "rdma_cm" of one that has an RDMA device.
func (i *Inventory) Files(d Device) (map[string]string, error) {
	out := map[string]string{}
	dir := device(d.Bus, d.ID)
	if d.Bus == "" || !i.sys.exists(dir) {
		return out, nil
	}
	if d.Userspace() && d.IOMMUGroup != "" {
		out["vfio"], out["group"] = "/dev/vfio/vfio", filepath.Join("/dev/vfio", d.IOMMUGroup)
		// A group that the kernel only plays, without an IOMMU, has another name.
		if i.sys.optional("kernel", "iommu_groups", d.IOMMUGroup, "name") == "vfio-noiommu" {
			out["group"] = filepath.Join("/dev/vfio", "noiommu-"+d.IOMMUGroup)
		}
	}
	if len(d.RDMA) == 0 {
		return out, nil
	}
	for _, class := range []string{"infiniband_verbs", "infiniband_mad"} {
		names, err := i.sys.names(dir, class)
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			for _, kind := range []string{"uverbs", "umad", "issm"} {
				if len(n) > len(kind) && n[:len(kind)] == kind {
					out[kind] = filepath.Join("/dev/infiniband", n)
				}
			}
		}
	}
	out["rdma_cm"] = "/dev/infiniband/rdma_cm"
	return out, nil
}
