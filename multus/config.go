package multus

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The topologies of a network.
const (
	Layer3   = "layer3"
	Layer2   = "layer2"
	Localnet = "localnet"
)

// The values of Config.Offload.
const (
	OffloadRequire = "require"
	OffloadPrefer  = "prefer"
	OffloadOff     = "off"
)

// Config is the configuration of a network of ours, with OVN-Kubernetes' fields,
// meaning and defaults (go-controller/pkg/cni/types NetConf); Offload is Portolan's.
type Config struct {
	Name       string // of the network: one name in two definitions is one network
	Definition string // netAttachDefName, "namespace/name"
	Default    bool   // the cluster's default network: nothing but Name is set

	Topology string // Layer3 (the default), Layer2 or Localnet

	Subnets  []Subnet       // IPv4 first; none: the network gives no addresses
	Exclude  []netip.Prefix // excludeSubnets: no pod gets an address of these
	Reserved []netip.Prefix // reservedSubnets: a pod gets one of these only by asking

	// What OVN-Kubernetes uses in primary networks only. It is checked, must agree
	// between definitions, and has no effect: see NoEffect.
	Infrastructure []netip.Prefix
	Gateways       []netip.Addr
	Join           []netip.Prefix
	Transit        []netip.Prefix

	MTU             int    // bytes; 0: the cluster's
	VLAN            int    // of a localnet; 0: untagged
	PhysicalNetwork string // of a localnet; the network's name when not given
	PersistentIPs   bool
	Offload         string // OffloadPrefer when not given

	IPAM     json.RawMessage // of the plugin that gives addresses instead of us; nil: none
	IPAMType string
	DeviceID string // a device written into the definition; "" is usual
}

// Subnet is a prefix of a network; of a layer3 network each node has a part of
// HostPrefix bits, which is 0 elsewhere.
type Subnet struct {
	Prefix     netip.Prefix
	HostPrefix int
}

// String is "10.1.0.0/16", and for layer3 "10.1.0.0/16/24".
func (s Subnet) String() string {
	if s.HostPrefix == 0 {
		return s.Prefix.String()
	}
	return s.Prefix.String() + "/" + strconv.Itoa(s.HostPrefix)
}

// OurTypes are the plugin types that are Portolan: the same binary under its names,
// and under the one that OVN-Kubernetes' definitions have.
func OurTypes() []string { return []string{"portolan", "portolan-cni", "ovn-k8s-cni-overlay"} }

// Ours reports whether a plugin type is Portolan's.
func Ours(plugin string) bool { return slices.Contains(OurTypes(), plugin) }

var (
	networkName  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`) // as libcni checks it
	physicalName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9_.\-]*[a-zA-Z0-9])?$`)
)

// maxNetworkName leaves room for it in an OVN name beside a node's.
const maxNetworkName = 253

// ParseConfig reads the configuration of a network of ours: one plugin's, with its
// name, as ParseDefinition gives it in Plugin.Config. key is the definition's
// "namespace/name", which netAttachDefName has to be. It is for what users write:
// what a CNI call gets on stdin has keys that runtimes add. An error is a *FieldError.
func ParseConfig(text []byte, key string) (*Config, error) {
	o, err := readObject(DefinitionObject(key), text)
	if err != nil {
		return nil, err
	}
	if err := o.refusePeers(); err != nil {
		return nil, err
	}
	if err := o.only(slices.Concat(cniFields, networkFields, inertFields)); err != nil {
		return nil, err
	}
	c := &Config{}
	if err := o.readName(c); err != nil {
		return nil, err
	}
	if c.Default {
		return c, nil
	}
	for _, read := range []func(*Config) error{
		o.definitionOf(key), o.readRole, o.readTopology, o.readSubnets, o.readParts, o.readPrimary,
		o.readMTU, o.readLocalnet, o.readAddressing, o.readOffload, o.readInert,
	} {
		if err := read(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// The fields of a configuration, by whose they are.
var (
	// cniFields are the CNI specification's and what runtimes, libcni and Multus put in.
	cniFields = []string{"cniVersion", "name", "type", "capabilities", "ipam", "dns", "args", "runtimeConfig", "prevResult",
		"disableCheck", "disableGC", "deviceID", "pciBusID", "multiNetwork", "socket"}
	networkFields = []string{"topology", "netAttachDefName", "subnets", "excludeSubnets", "reservedSubnets", "infrastructureSubnets",
		"defaultGatewayIPs", "joinSubnet", "transitSubnet", "mtu", "vlanID", "physicalNetworkName", "allowPersistentIPs", "role", "offload"}
	// inertFields are the peer's process's own: its log, its timeout.
	inertFields = []string{"logFile", "logLevel", "logfile-maxsize", "logfile-maxbackups", "logfile-maxage", "cniRequestTimeout"}
	// peerFields are OVN-Kubernetes' and not ours.
	peerFields = []string{"transport", "outboundSNAT", "evpn", "uplink"}
)

func (o *object) refusePeers() error {
	for _, field := range peerFields {
		if raw, ok := o.fields[field]; ok && string(raw) != `""` {
			return o.wrong(field, string(truncated(raw)), "remove it: OVN-Kubernetes has this field and Portolan does not, its networks are overlays or localnets")
		}
	}
	return nil
}

// readName reads name, and whether this is the default network: its configuration
// has no field of networks at all, or that name, as pkg/cni judges a call too.
func (o *object) readName(c *Config) error {
	if err := o.into("name", "the network's name", &c.Name); err != nil {
		return err
	}
	if len(c.Name) > maxNetworkName || !networkName.MatchString(c.Name) {
		return o.wrong("name", quoted(c.Name), fmt.Sprintf("write the network's name: up to %d letters, digits, '_', '.' and '-', the first a letter or digit", maxNetworkName))
	}
	has := ""
	for _, field := range networkFields {
		if _, ok := o.fields[field]; ok && field != "netAttachDefName" {
			has = field
			break
		}
	}
	_, defined := o.fields["netAttachDefName"]
	if c.Name == "default" && has != "" {
		return o.wrong(has, string(truncated(o.fields[has])), "remove it: \"default\" is the cluster's default network, which the Cluster file configures; or choose another name")
	}
	c.Default = c.Name == "default" || has == "" && !defined
	return nil
}

func (o *object) definitionOf(key string) func(*Config) error {
	return func(c *Config) error {
		if err := o.into("netAttachDefName", "the definition's namespace/name", &c.Definition); err != nil {
			return err
		}
		if c.Definition != key {
			return o.wrong("netAttachDefName", quoted(c.Definition), fmt.Sprintf("write %q, the definition's own namespace/name: Multus hands over nothing else that tells definitions of one network apart", key))
		}
		return nil
	}
}

func (o *object) readRole(*Config) error {
	role := "secondary"
	if err := o.into("role", `"secondary"`, &role); err != nil {
		return err
	}
	switch role {
	case "secondary", "":
		return nil
	case "primary":
		return o.wrong("role", `"primary"`, `write "secondary" or leave it out: Portolan has no primary networks yet, a pod's first interface is on the default network`)
	}
	return o.wrong("role", quoted(role), `write "secondary" or leave it out`)
}

func (o *object) readTopology(c *Config) error {
	const want = `"layer3", "layer2" or "localnet"`
	if err := o.into("topology", want, &c.Topology); err != nil {
		return err
	}
	if c.Topology == "" {
		c.Topology = Layer3
	}
	topologies := []string{Layer3, Layer2, Localnet}
	if !slices.Contains(topologies, c.Topology) {
		do := "write " + want
		if near := Nearest(c.Topology, topologies); near != "" {
			do = "did you mean " + near + "?"
		}
		return o.wrong("topology", quoted(c.Topology), do)
	}
	return nil
}

// needs refuses a field on a topology that has no use for it. A zero is no value.
func (o *object) needs(c *Config, field string, topologies ...string) error {
	raw, ok := o.fields[field]
	if !ok || slices.Contains(topologies, c.Topology) || slices.Contains([]string{`""`, "0", "false"}, string(raw)) {
		return nil
	}
	return o.wrong(field, string(truncated(raw)), fmt.Sprintf("remove it: a %s network has none, only %s", c.Topology, strings.Join(topologies, " and ")))
}

func (o *object) readMTU(c *Config) error {
	const want = "bytes, 576 to 65535, or leave it out for the cluster's"
	if err := o.into("mtu", want, &c.MTU); err != nil {
		return err
	}
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 65535) {
		return o.wrong("mtu", strconv.Itoa(c.MTU), "write "+want)
	}
	for _, s := range c.Subnets {
		if s.Prefix.Addr().Is6() && c.MTU != 0 && c.MTU < 1280 {
			return o.wrong("mtu", strconv.Itoa(c.MTU), "write 1280 or more: IPv6 needs that (RFC 8200, section 5), and "+s.String()+" is IPv6")
		}
	}
	return nil
}

func (o *object) readLocalnet(c *Config) error {
	for _, field := range []string{"vlanID", "physicalNetworkName"} {
		if err := o.needs(c, field, Localnet); err != nil {
			return err
		}
	}
	if c.Topology != Localnet {
		return nil
	}
	const vlans = "a VLAN, 1 to 4094, or leave it out for untagged"
	if err := o.into("vlanID", vlans, &c.VLAN); err != nil {
		return err
	}
	if c.VLAN < 0 || c.VLAN > 4094 {
		return o.wrong("vlanID", strconv.Itoa(c.VLAN), "write "+vlans)
	}
	if err := o.into("physicalNetworkName", "a PhysicalNetwork's name", &c.PhysicalNetwork); err != nil {
		return err
	}
	if c.PhysicalNetwork == "" {
		c.PhysicalNetwork = c.Name
	}
	if len(c.PhysicalNetwork) > 253 || !physicalName.MatchString(c.PhysicalNetwork) {
		return o.wrong("physicalNetworkName", quoted(c.PhysicalNetwork), "write a PhysicalNetwork's name: letters, digits, '_', '.' and '-'")
	}
	return nil
}

// readAddressing reads who gives addresses when it is not us, and whether they stay.
func (o *object) readAddressing(c *Config) error {
	if err := o.needs(c, "allowPersistentIPs", Layer2, Localnet); err != nil {
		return err
	}
	if err := o.into("allowPersistentIPs", "true or false", &c.PersistentIPs); err != nil {
		return err
	}
	if err := o.readIPAM(c); err != nil {
		return err
	}
	if c.PersistentIPs && len(c.Subnets) == 0 {
		return o.wrong("allowPersistentIPs", "true", "give subnets: it is for addresses that Portolan gives")
	}
	return nil
}

func (o *object) readIPAM(c *Config) error {
	raw, ok := o.fields["ipam"]
	if !ok || string(raw) == "null" {
		return nil
	}
	ipam, err := readObject(o.name+": ipam", raw)
	if err != nil {
		return err
	}
	if err := ipam.into("type", "the plugin's name", &c.IPAMType); err != nil {
		return err
	}
	switch {
	case len(ipam.fields) == 0:
		return nil
	case c.IPAMType == "":
		return ipam.wrong("type", "missing", "name the plugin that gives addresses, or remove ipam")
	case badPlugin(c.IPAMType):
		return ipam.wrong("type", quoted(c.IPAMType), "write a plugin's name without a path: it is looked for in the node's plugin directory")
	case len(c.Subnets) > 0:
		return o.wrong("ipam", string(truncated(raw)), "remove it or subnets: addresses come from one of them")
	}
	c.IPAM = slices.Clone(raw)
	return nil
}

func (o *object) readOffload(c *Config) error {
	const want = `"require", "prefer" or "off", or leave it out for "prefer"`
	if err := o.into("offload", want, &c.Offload); err != nil {
		return err
	}
	switch c.Offload {
	case "":
		c.Offload = OffloadPrefer
	case OffloadRequire, OffloadPrefer, OffloadOff:
	default:
		return o.wrong("offload", quoted(c.Offload), "write "+want)
	}
	return nil
}

// readInert checks the fields that say nothing of the network.
func (o *object) readInert(c *Config) error {
	mode := "native"
	if err := o.into("multiNetwork", `"native"`, &mode); err != nil {
		return err
	}
	if _, ok := o.fields["multiNetwork"]; ok {
		return o.wrong("multiNetwork", quoted(mode), "remove it: it belongs into the node's CNI configuration, and would ask for all networks of the pod")
	}
	return o.into("deviceID", "a device's id", &c.DeviceID)
}

// NoEffect names the fields that are given and do nothing, since only primary
// networks have a gateway, services and a transit router; for a note to the user.
func (c *Config) NoEffect() []string {
	var out []string
	if len(c.Infrastructure) > 0 {
		out = append(out, "infrastructureSubnets")
	}
	if len(c.Gateways) > 0 {
		out = append(out, "defaultGatewayIPs")
	}
	if len(c.Join) > 0 {
		out = append(out, "joinSubnet")
	}
	if len(c.Transit) > 0 {
		out = append(out, "transitSubnet")
	}
	return out
}
