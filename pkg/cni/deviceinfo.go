package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/sriov"
)

// DeviceInfo describes a function as the device information specification does; nil for
// what that has no type for: soft devices, and scalable functions, which have no address.
func DeviceInfo(d sriov.Device) *multus.DeviceInfo {
	if d.Kind != sriov.VF || d.Bus != "pci" {
		return nil
	}
	out := &multus.PCIDevice{Address: d.ID, PFAddress: d.PF.ID, Representor: d.Representor}
	if len(d.RDMA) > 0 {
		out.RDMA = d.RDMA[0]
	}
	return &multus.DeviceInfo{Type: multus.DevicePCI, Version: multus.DeviceInfoVersion, PCI: out}
}

// info is what is told of an interface's device; nil: nothing.
func (a *Agent) info(i *iface) *multus.DeviceInfo {
	d := i.function.found
	if i.function.Device != "" && d.ID == "" && a.config.Keeper != nil { // a plugin of others has it
		d, _ = a.config.Keeper.Resolve(i.function.Device)
	}
	return DeviceInfo(d)
}

// defaultDeviceInfo is where device information files are (specification, section 4).
const defaultDeviceInfo = "/run/k8s.cni.cncf.io/devinfo"

// infoFile is the file that the caller wants to find a device's information in; "": none.
// The caller may name it below /var/run, which in the agent's container need not be /run.
func (a *Agent) infoFile(c NetConf) (string, error) {
	path := c.Runtime.InfoFile
	if path == "" {
		return "", nil
	}
	clean := filepath.Clean(path)
	if rest, ok := strings.CutPrefix(clean, "/var/run/"); ok {
		clean = "/run/" + rest
	}
	if !strings.HasPrefix(clean, a.config.DeviceInfo+"/") {
		return "", fmt.Errorf("runtimeConfig.CNIDeviceInfoFile is %.128q: it must be below %s", path, a.config.DeviceInfo)
	}
	return clean, nil
}

// writeInfo writes the file that a call asks for; of what has no type the device plugin's,
// which Multus has copied there, stays.
func (a *Agent) writeInfo(r *Request, i *iface) error {
	path, err := a.infoFile(r.Config)
	info := a.info(i)
	if path == "" || err != nil || info == nil {
		return err
	}
	text, err := multus.FormatDeviceInfo(*info)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("device information: %w", err)
	}
	if err := durable.Write(path, 0o444, text); err != nil {
		return fmt.Errorf("device information: %w", err)
	}
	return nil
}

// removeInfo removes the file of a call's interface; nothing when it is gone.
func (a *Agent) removeInfo(c NetConf) error {
	path, err := a.infoFile(c)
	if path == "" || err != nil {
		return nil // none was written
	}
	return durable.Remove(path)
}
