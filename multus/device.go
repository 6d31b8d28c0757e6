package multus

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// DeviceInfoVersion is the version of the device information specification whose
// files are written; any 1.x is read.
const DeviceInfoVersion = "1.1.0"

// The types of a device.
const (
	DevicePCI       = "pci"
	DeviceVDPA      = "vdpa"
	DeviceVhostUser = "vhost-user"
	DeviceMemif     = "memif"
)

// DeviceInfo describes the device behind an attachment, as device plugin, CNI plugin
// and pod hand it on (device information specification 1.1.0, section 3). Type says
// which of the four is set.
type DeviceInfo struct {
	Type      string       `json:"type"`
	Version   string       `json:"version"`
	PCI       *PCIDevice   `json:"pci,omitempty"`
	VDPA      *VDPADevice  `json:"vdpa,omitempty"`
	VhostUser *VhostDevice `json:"vhost-user,omitempty"`
	Memif     *MemifDevice `json:"memif,omitempty"`
}

// PCIDevice is section 3.1.3; only the address is required.
type PCIDevice struct {
	Address     string `json:"pci-address"`
	VhostNet    string `json:"vhost-net,omitempty"` // a path
	RDMA        string `json:"rdma-device,omitempty"`
	PFAddress   string `json:"pf-pci-address,omitempty"`
	Representor string `json:"representor-device,omitempty"`
}

// VDPADevice is section 3.1.4; parent, driver and path are required.
type VDPADevice struct {
	Parent      string `json:"parent-device"`
	Driver      string `json:"driver"` // "vhost" or "virtio"
	Path        string `json:"path"`
	Address     string `json:"pci-address,omitempty"`
	PFAddress   string `json:"pf-pci-address,omitempty"`
	Representor string `json:"representor-device,omitempty"`
}

// VhostDevice is section 3.1.5; both are required.
type VhostDevice struct {
	Mode string `json:"mode"` // "client" or "server"
	Path string `json:"path"`
}

// MemifDevice is section 3.1.6; all are required.
type MemifDevice struct {
	Role string `json:"role"` // "master" or "slave"
	Path string `json:"path"`
	Mode string `json:"mode"` // "ethernet", "ip" or "inject-punt"
}

var (
	pciAddress    = regexp.MustCompile(`^[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$`)
	deviceVersion = regexp.MustCompile(`^1\.[0-9]+\.[0-9]+$`)
)

// ParseDeviceInfo reads a device information file's text; file names it in errors,
// which are *FieldError. Keys of a later 1.x are skipped.
func ParseDeviceInfo(file string, text []byte) (*DeviceInfo, error) {
	o, err := readObject("device information "+file, text)
	if err != nil {
		return nil, err
	}
	d := &DeviceInfo{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, o.wrong("", fmt.Sprintf("it is not of the form of section 3 (%v)", err), "correct it, or let its writer write it again")
	}
	if !deviceVersion.MatchString(d.Version) {
		return nil, o.wrong("version", quoted(d.Version), "write 1.1.0, or another 1.x")
	}
	if err := d.check(o); err != nil {
		return nil, err
	}
	return d, nil
}

// FormatDeviceInfo writes a device information file, of version DeviceInfoVersion.
// A device without a required key is an error, which says what is missing.
func FormatDeviceInfo(d DeviceInfo) ([]byte, error) {
	d.Version = DeviceInfoVersion
	if err := d.check(&object{name: "device information"}); err != nil {
		return nil, err
	}
	return json.MarshalIndent(d, "", "    ")
}

// value is a key of a device and what it may be.
type value struct {
	field, found string
	required     bool
	ok           func(string) bool
	do           string
}

func address(field, found string, required bool) value {
	return value{field, found, required, pciAddress.MatchString, "write a PCI address such as 0000:01:02.2"}
}

func word(field, found string, words ...string) value {
	return value{field, found, true, func(s string) bool { return slices.Contains(words, s) }, "write " + strings.Join(words, " or ")}
}

func text(field, found string) value {
	return value{field, found, true, func(string) bool { return true }, "write one"}
}

// check judges the device that the type names, and that there is no other.
func (d *DeviceInfo) check(o *object) error {
	var values []value
	set := map[string]bool{DevicePCI: d.PCI != nil, DeviceVDPA: d.VDPA != nil, DeviceVhostUser: d.VhostUser != nil, DeviceMemif: d.Memif != nil}
	if has, known := set[d.Type]; !known {
		return o.wrong("type", quoted(d.Type), "write pci, vdpa, vhost-user or memif")
	} else if !has {
		return o.wrong(d.Type, "missing", fmt.Sprintf("describe the device there, as type is %q", d.Type))
	}
	switch d.Type {
	case DevicePCI:
		values = []value{address("pci.pci-address", d.PCI.Address, true), address("pci.pf-pci-address", d.PCI.PFAddress, false)}
	case DeviceVDPA:
		v := d.VDPA
		values = []value{text("vdpa.parent-device", v.Parent), word("vdpa.driver", v.Driver, "vhost", "virtio"), text("vdpa.path", v.Path),
			address("vdpa.pci-address", v.Address, false), address("vdpa.pf-pci-address", v.PFAddress, false)}
	case DeviceVhostUser:
		values = []value{word("vhost-user.mode", d.VhostUser.Mode, "client", "server"), text("vhost-user.path", d.VhostUser.Path)}
	case DeviceMemif:
		// The client library writes "punt" for the specification's "inject-punt".
		values = []value{word("memif.role", d.Memif.Role, "master", "slave"), text("memif.path", d.Memif.Path),
			word("memif.mode", d.Memif.Mode, "ethernet", "ip", "inject-punt", "punt")}
	}
	for _, v := range values {
		if v.found == "" && v.required {
			return o.wrong(v.field, "missing", v.do)
		}
		if v.found != "" && !v.ok(v.found) {
			return o.wrong(v.field, quoted(v.found), v.do)
		}
	}
	return nil
}
