package devices

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	cdi "tags.cncf.io/container-device-interface/specs-go"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/sriov"
)

// CDIFile describes the devices that have files, in the directory of such files.
const CDIFile = "portolan.io-device.json"

// The CDI kind of devices, and the version of the specification of which nothing newer is
// used.
const (
	cdiKind    = "portolan.io/device"
	cdiVersion = "0.5.0"
)

// writeCDI describes the devices that have files, and removes the file when none has.
func (r *round) writeCDI() error {
	if r.config.CDI == "" {
		return nil
	}
	spec := cdi.Spec{Version: cdiVersion, Kind: cdiKind}
	for _, id := range slices.Sorted(maps.Keys(r.offers)) {
		o := r.offers[id]
		if len(o.shown.Files) == 0 {
			continue
		}
		device := cdi.Device{Name: id}
		for _, f := range o.shown.Files {
			device.ContainerEdits.DeviceNodes = append(device.ContainerEdits.DeviceNodes, &cdi.DeviceNode{Path: f.Host, HostPath: f.Host, Permissions: "rw"})
		}
		spec.Devices = append(spec.Devices, device)
		o.shown.CDI = cdiKind + "=" + id
		r.offers[id] = o
	}
	path := filepath.Join(r.config.CDI, CDIFile)
	if len(spec.Devices) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r.wrote = ""
		return nil
	}
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	if there, err := os.ReadFile(path); err == nil && string(there) == string(text) && r.wrote == string(text) {
		return nil
	}
	if err := os.MkdirAll(r.config.CDI, 0o755); err != nil {
		return err
	}
	if err := durable.Write(path, 0o644, text); err != nil {
		return err
	}
	r.wrote = string(text)
	return nil
}

// infoSuffix ends the names of device information files.
const infoSuffix = "-device.json"

// infoPath is the device plugin's device information file of a device (device
// information specification 1.1.0, section 4): resource and id, with dashes for slashes.
func (d *Devices) infoPath(resource, id string) string {
	return filepath.Join(d.config.Info, strings.ReplaceAll(resource+"-"+id, "/", "-")+infoSuffix)
}

// given writes what CNI plugins are told of devices before containers get them. Of what
// is no PCI device the specification has no description.
func (d *Devices) given(resource string, ids []string) error {
	defer d.ring()
	if d.config.Info == "" {
		return nil
	}
	for _, id := range ids {
		d.mu.Lock()
		o, ok := d.offers[id]
		d.mu.Unlock()
		if !ok || o.device.Bus != "pci" {
			continue
		}
		p := &multus.PCIDevice{Address: id, PFAddress: o.device.PF.ID, Representor: o.device.Representor}
		if len(o.device.RDMA) > 0 {
			p.RDMA = o.device.RDMA[0]
		}
		text, err := multus.FormatDeviceInfo(multus.DeviceInfo{Type: multus.DevicePCI, PCI: p})
		if err == nil {
			err = os.MkdirAll(d.config.Info, 0o755)
		}
		if err == nil {
			err = durable.Write(d.infoPath(resource, id), 0o644, text)
		}
		if err != nil {
			return fmt.Errorf("device information of %s: %w", id, err)
		}
	}
	return nil
}

// cleanInfo removes the files of devices that nobody has any more. Other device plugins
// keep theirs in the same directory: what is of no resource of a pool is left alone.
func (r *round) cleanInfo() {
	if r.config.Info == "" || !r.verified || r.holders.err != nil {
		return
	}
	entries, err := os.ReadDir(r.config.Info)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("device information files cannot be listed", "err", err)
		}
		return
	}
	for _, e := range entries {
		stem, ok := strings.CutSuffix(e.Name(), infoSuffix)
		if !ok {
			continue
		}
		for resource := range r.known {
			id, ours := strings.CutPrefix(stem, strings.ReplaceAll(resource, "/", "-")+"-")
			if canonical, err := sriov.CanonicalID(id); !ours || err != nil || canonical != id || r.who(r.holders, id) != "" {
				continue
			}
			if err := os.Remove(filepath.Join(r.config.Info, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.log.Warn("the information file of a device that is free cannot be removed", "device", id, "err", err)
			}
		}
	}
}
