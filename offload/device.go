package offload

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
)

// DeviceKind is what a network device is to offload.
type DeviceKind string

// The kinds.
const (
	Representor DeviceKind = "representor" // of a virtual or scalable function
	Uplink      DeviceKind = "uplink"      // a NIC's own port, of an e-switch
	Physical    DeviceKind = "physical"    // a NIC without an e-switch, or in legacy mode
	Function    DeviceKind = "function"    // a virtual function itself, not its representor
	Veth        DeviceKind = "veth"
	Internal    DeviceKind = "internal" // a port that Open vSwitch makes: br-int, ovn-k8s-mp0
	Tunnel      DeviceKind = "tunnel"
	Other       DeviceKind = "other"
	Missing     DeviceKind = "missing"
)

// Device is one network device of the machine.
type Device struct {
	Name     string     `json:"name"`
	Kind     DeviceKind `json:"kind"`
	Driver   string     `json:"driver,omitempty"`
	SwitchID string     `json:"switchID,omitempty"` // phys_switch_id: of one e-switch, or of two that are bonded
	PortName string     `json:"portName,omitempty"` // phys_port_name: p0, pf0vf3
	// Parent is the NIC as devlink names it: pci/0000:03:00.0.
	Parent string `json:"parent,omitempty"`
	// TCOffload is ethtool's hw-tc-offload: on, off, never (the driver has none), or
	// unknown.
	TCOffload string `json:"tcOffload,omitempty"`
	// ESwitch is Parent's mode: legacy, switchdev; "" where devlink says none.
	ESwitch string `json:"eswitch,omitempty"`
	Encap   string `json:"encap,omitempty"`  // enable, disable: tunnels in the NIC
	Inline  string `json:"inline,omitempty"` // headers that a driver copies: none, link, network, transport
}

// The states of hw-tc-offload.
const (
	featureOn      = "on"
	featureOff     = "off"
	featureNever   = "never"
	featureUnknown = "unknown"
)

// hardware tells whether a NIC is behind it that could take flows.
func (d Device) hardware() bool { return d.Kind == Representor || d.Kind == Uplink }

// links is what of a device the kernel is asked for, and not sysfs.
type links interface {
	Driver(name string) (string, error)
	// TCOffload is the feature hw-tc-offload.
	TCOffload(name string) (string, error)
	// ESwitch asks devlink for a device: bus pci, device 0000:03:00.0.
	ESwitch(bus, device string) (mode, encap, inline string, err error)
	RouteDevice(to netip.Addr) (string, error)
}

var (
	representorName = regexp.MustCompile(`^(c\d+)?pf\d+(vf|sf)\d+$`)
	uplinkName      = regexp.MustCompile(`^p\d+(s\d+)?$`)
)

// Device looks at a device. One that is not there is Missing, and no error.
func (m *Machine) Device(name string) (Device, error) {
	d := Device{Name: name, Kind: Missing}
	if name == "" || strings.Contains(name, "/") {
		return d, nil
	}
	dir := filepath.Join(m.Sys, "class/net", name)
	if _, err := os.Stat(dir); err != nil {
		if absent(err) {
			return d, nil
		}
		return d, err
	}
	d.SwitchID, d.PortName = attribute(dir, "phys_switch_id"), attribute(dir, "phys_port_name")
	d.Parent = parentOf(dir)
	var err error
	if d.Driver, err = m.links.Driver(name); err != nil && !absent(err) {
		return d, fmt.Errorf("driver of %s: %w", name, err)
	}
	d.Kind = m.kind(dir, d)
	if d.TCOffload, err = m.links.TCOffload(name); err != nil {
		d.TCOffload = featureUnknown // a driver that cannot be asked
	}
	if bus, device, ok := strings.Cut(d.Parent, "/"); ok {
		// A NIC whose driver has no e-switch, or no devlink, has no mode.
		d.ESwitch, d.Encap, d.Inline, err = m.links.ESwitch(bus, device)
		if err != nil && !absent(err) {
			return d, fmt.Errorf("e-switch of %s: %w", d.Parent, err)
		}
	}
	return d, nil
}

func (m *Machine) kind(dir string, d Device) DeviceKind {
	exists := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	switch {
	case exists("device/physfn"):
		return Function
	case d.SwitchID != "" && representorName.MatchString(d.PortName):
		return Representor
	case d.SwitchID != "" && uplinkName.MatchString(d.PortName):
		return Uplink
	case d.Driver == "veth":
		return Veth
	case d.Driver == "openvswitch":
		return Internal
	case strings.HasPrefix(d.Name, "genev_sys") || strings.HasPrefix(d.Name, "vxlan_sys") || d.Driver == "geneve" || d.Driver == "vxlan":
		return Tunnel
	case d.Parent != "":
		return Physical
	}
	return Other
}

// Peers finds the uplinks of an e-switch, by its id.
func (m *Machine) Peers(switchID string) ([]Device, error) {
	if switchID == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(m.Sys, "class/net"))
	if err != nil {
		return nil, err
	}
	var out []Device
	for _, e := range entries {
		dir := filepath.Join(m.Sys, "class/net", e.Name())
		if attribute(dir, "phys_switch_id") != switchID || !uplinkName.MatchString(attribute(dir, "phys_port_name")) {
			continue
		}
		d, err := m.Device(e.Name())
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// attribute reads a file of sysfs; what has none, or cannot say it, has "".
func attribute(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// parentOf is "bus/device" of what a device belongs to; "" for one of software.
func parentOf(dir string) string {
	device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
	if err != nil {
		return ""
	}
	bus, err := filepath.EvalSymlinks(filepath.Join(device, "subsystem"))
	if err != nil {
		return ""
	}
	return filepath.Base(bus) + "/" + filepath.Base(device)
}

// netlinks asks the running kernel.
type netlinks struct{}

// Driver implements links.
func (netlinks) Driver(name string) (string, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return "", err
	}
	defer e.Close()
	return e.DriverName(name)
}

// TCOffload implements links.
func (netlinks) TCOffload(name string) (string, error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return "", err
	}
	defer e.Close()
	all, err := e.FeaturesWithState(name)
	if err != nil {
		return "", err
	}
	return featureOf(all), nil
}

func featureOf(all map[string]ethtool.FeatureState) string {
	state, ok := all["hw-tc-offload"]
	switch {
	case !ok:
		return featureUnknown
	case state.Active:
		return featureOn
	case state.NeverChanged || !state.Available:
		return featureNever
	}
	return featureOff
}

// ESwitch implements links.
func (netlinks) ESwitch(bus, device string) (mode, encap, inline string, err error) {
	d, err := netlink.DevLinkGetDeviceByName(bus, device)
	if err != nil {
		return "", "", "", err
	}
	s := d.Attrs.Eswitch
	return s.Mode, s.EncapMode, s.InlineMode, nil
}

// RouteDevice implements links.
func (netlinks) RouteDevice(to netip.Addr) (string, error) {
	routes, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(routes) == 0 {
		return "", err
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", err
	}
	return link.Attrs().Name, nil
}

// Underlay is the device that packets to the other end of a tunnel leave by; one of
// no name where there is no route.
func (m *Machine) Underlay(to netip.Addr) (Device, error) {
	name, err := m.links.RouteDevice(to)
	if err != nil || name == "" {
		return Device{Kind: Missing}, nil // no route is an answer
	}
	return m.Device(name)
}
