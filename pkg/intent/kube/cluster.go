package kube

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// DefaultMTU is a pod's where the plan names none and no NIC is known: Ethernet's 1500 less Geneve
// over IPv6 with OVN's options, 98 bytes, rounded.
const DefaultMTU = 1400

// ReadCluster reads a file that holds one Cluster. Unknown fields are errors: a
// misspelt field must not be a default in silence.
func ReadCluster(path string) (*v1alpha1.Cluster, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c := &v1alpha1.Cluster{}
	if err := suggest(yaml.UnmarshalStrict(data, c), reflect.TypeFor[v1alpha1.Cluster]()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if c.APIVersion != v1alpha1.APIVersion || c.Kind != v1alpha1.KindCluster {
		return nil, fmt.Errorf("%s: holds %s %s, not %s %s", path, c.APIVersion, c.Kind, v1alpha1.APIVersion, v1alpha1.KindCluster)
	}
	return c, nil
}

// field files err, if any, as a Problem with a field.
func (p *problems) field(name string, err error) {
	if err != nil {
		p.list = append(p.list, rows.Problem{Object: p.key.String(), Field: name, Severity: rows.Error, Message: err.Error()})
	}
}

// ParseCluster makes the plan's intent. A caller that starts a process with it
// refuses any Problem; a field with one has its default here.
func ParseCluster(c *v1alpha1.Cluster) (*intent.Cluster, []rows.Problem) {
	s := c.Spec
	p := &problems{key: intent.ClusterKey}
	out := &intent.Cluster{
		Zone: s.Node, MTU: s.MTU, PuntRate: s.PuntRate, Multicast: s.Multicast,
		GatewayVLAN: s.Gateway.VLAN, Insecure: s.InsecureDatabases, TransitKey: s.TransitKey,
		Isolated: s.NamespaceIsolation, Shared: s.SharedNamespaces,
	}
	switch Zoning(s.Zone) {
	case "", ZonePerNode:
	case ZoneGlobal:
		out.GlobalZone, out.Zone = true, string(ZoneGlobal)
	default:
		p.field("spec.zone", fmt.Errorf(`zone %q is neither %q nor %q`, s.Zone, ZonePerNode, ZoneGlobal))
	}
	pools, err := ParseClusterSubnets(s.ClusterSubnets)
	p.field("spec.clusterSubnets", err)
	for _, pool := range pools {
		out.PodSubnets = append(out.PodSubnets, pool.Prefix.Masked())
	}
	families := familiesOf(out.PodSubnets)
	out.ServiceNets = p.prefixes("spec.serviceSubnets", s.ServiceSubnets, nil)
	out.JoinSubnets = p.prefixes("spec.joinSubnets", s.JoinSubnets, families.pick("100.64.0.0/16", "fd98::/64"))
	out.TransitNets = p.prefixes("spec.transitSubnets", s.TransitSubnets, families.pick("100.88.0.0/16", "fd97::/64"))
	out.Masquerade = p.prefixes("spec.masqueradeSubnets", s.MasqueradeSubnets, families.pick("169.254.169.0/29", "fd69::/125"))
	p.overlaps(out)
	if out.MTU == 0 {
		out.MTU = DefaultMTU
	}
	if out.MTU < 576 || out.MTU > 65000 || out.MTU < 1280 && families.v6 {
		p.field("spec.mtu", fmt.Errorf("MTU %d is outside 576 (1280 with IPv6) to 65000 bytes", out.MTU))
		out.MTU = DefaultMTU
	}
	if s.Gateway.VLAN < 0 || s.Gateway.VLAN > 4094 {
		p.field("spec.gateway.vlan", fmt.Errorf("VLAN %d is not from 0, untagged, to 4094", s.Gateway.VLAN))
		out.GatewayVLAN = 0
	}
	_, err = parseAddrs(s.Gateway.NextHops)
	p.field("spec.gateway.nextHops", err)
	out.ExternalPort, err = parsePortRange(s.Gateway.ExternalPortRange)
	p.field("spec.gateway.externalPortRange", err)
	p.oneOf("spec.gateway.takeover", s.Gateway.Takeover, "", "force")
	p.oneOf("spec.datapath", s.Datapath, "", "system", "netdev")
	p.oneOf("spec.multiNetwork", s.MultiNetwork, "", "native", "multus")
	if s.Offload != nil {
		out.Offload = p.offload(s.Offload)
	}
	if m := s.ManagementPort; m != nil {
		out.Management = p.managementPort(m)
	}
	return out, p.list
}

// managementPort parses which device the nodes' management port is; of two that
// contradict each other none.
func (p *problems) managementPort(m *v1alpha1.ManagementPortSpec) intent.ManagementDevice {
	out := intent.ManagementDevice{Device: m.Device, Resource: m.ResourceName, Nodes: p.selector("spec.managementPort.nodeSelector", m.NodeSelector)}
	switch {
	case m.Device == "" && m.ResourceName == "":
		p.field("spec.managementPort", errors.New("neither device nor resourceName is given: name a device by its id, such as 0000:03:00.2, or the resource of DevicePools, such as portolan.io/fast, or leave managementPort out"))
	case m.Device != "" && m.ResourceName != "":
		p.field("spec.managementPort", fmt.Errorf("device %q and resourceName %q are both given: leave one of them out", m.Device, m.ResourceName))
		out.Device, out.Resource = "", ""
	case m.ResourceName != "":
		p.resource("spec.managementPort.resourceName", m.ResourceName, newPoolPatterns().resource)
	}
	return out
}

// offload parses what the plan says of offload.
func (p *problems) offload(s *v1alpha1.OffloadSpec) intent.Offload {
	modes := []string{string(intent.OffloadOff), string(intent.OffloadHardware), string(intent.OffloadHardwareOnly), string(intent.OffloadSoftware)}
	p.oneOf("spec.offload.mode", s.Mode, modes...)
	p.oneOf("spec.offload.pathMTU", s.PathMTU, "", "router", "route")
	p.oneOf("spec.offload.invalidConnections", s.InvalidConnections, "", "match", "deliver")
	if s.ObserveSeconds < 0 || s.ObserveSeconds > 3600 {
		p.field("spec.offload.observeSeconds", fmt.Errorf("%d is not from 0, the default, to 3600 seconds", s.ObserveSeconds))
	}
	o := intent.Offload{
		Nodes: p.selector("spec.offload.nodeSelector", s.NodeSelector), RouteMTU: s.PathMTU == "route", DeliverInvalid: s.InvalidConnections == "deliver",
	}
	if slices.Contains(modes, s.Mode) {
		o.Mode = intent.OffloadMode(s.Mode)
	}
	if s.PathMTU == "" {
		o.RouteMTU = o.Mode == intent.OffloadHardware || o.Mode == intent.OffloadHardwareOnly
	}
	return o
}

// ParseClusterSubnets parses the prefixes that node subnets are carved from, as
// OVN-Kubernetes writes them: CIDR/LENGTH, e.g. 10.244.0.0/16/24, LENGTH being 24,
// or 64 for IPv6, where it is left out.
func ParseClusterSubnets(list []string) ([]alloc.ClusterSubnet, error) {
	out := make([]alloc.ClusterSubnet, 0, len(list))
	for _, s := range list {
		cidr, length := s, ""
		if strings.Count(s, "/") == 2 {
			i := strings.LastIndexByte(s, '/')
			cidr, length = s[:i], s[i+1:]
		}
		prefixes, err := parsePrefixes([]string{cidr})
		if err != nil {
			return nil, fmt.Errorf("cluster subnet %w; want CIDR/LENGTH, e.g. 10.244.0.0/16/24", err)
		}
		c := alloc.ClusterSubnet{Prefix: prefixes[0], HostPrefix: 24}
		if c.Prefix.Addr().Is6() {
			c.HostPrefix = 64
		}
		if length != "" {
			if c.HostPrefix, err = strconv.Atoi(length); err != nil {
				return nil, fmt.Errorf("cluster subnet %q: %q is not the length of a node's subnet", s, length)
			}
		}
		out = append(out, c)
	}
	_, err := alloc.NewSubnets(out, alloc.RestConfig{})
	return out, err
}

// DefaultNetworkOf is the default pod network that a plan implies.
func DefaultNetworkOf(c *intent.Cluster) *intent.Network {
	return &intent.Network{Name: intent.DefaultNetwork, Topology: intent.Layer3, Subnets: whole(c.PodSubnets), MTU: c.MTU}
}

// families tells which IP families a plan uses.
type families struct{ v4, v6 bool }

func familiesOf(list []netip.Prefix) (f families) {
	for _, p := range list {
		f.v4 = f.v4 || p.Addr().Is4()
		f.v6 = f.v6 || p.Addr().Is6()
	}
	return f
}

// pick chooses the defaults of the families in use.
func (f families) pick(v4, v6 string) (out []string) {
	if f.v4 {
		out = append(out, v4)
	}
	if f.v6 {
		out = append(out, v6)
	}
	return out
}

// prefixes parses a list of networks, or fallback if the list is empty or wrong.
func (p *problems) prefixes(field string, list, fallback []string) []netip.Prefix {
	if len(list) == 0 {
		list = fallback
	}
	out, err := parseNetworks(list)
	if err == nil {
		return out
	}
	p.field(field, err)
	out, _ = parseNetworks(fallback)
	return out
}

// parseNetworks parses networks, at most one a family.
func parseNetworks(list []string) ([]netip.Prefix, error) {
	out, err := parsePrefixes(list)
	if err != nil {
		return nil, err
	}
	for _, n := range out {
		if n != n.Masked() {
			return nil, fmt.Errorf("%s has host bits set: its network is %s", n, n.Masked())
		}
	}
	return out, onePerFamily(out)
}

// overlaps refuses plans in which one address could mean two things.
func (p *problems) overlaps(c *intent.Cluster) {
	type net struct {
		field string
		net   netip.Prefix
	}
	var all []net
	for _, l := range []struct {
		field string
		list  []netip.Prefix
	}{
		{"spec.clusterSubnets", c.PodSubnets}, {"spec.serviceSubnets", c.ServiceNets}, {"spec.joinSubnets", c.JoinSubnets},
		{"spec.transitSubnets", c.TransitNets}, {"spec.masqueradeSubnets", c.Masquerade},
	} {
		for _, n := range l.list {
			for _, o := range all {
				if o.net.Overlaps(n) {
					p.field(l.field, fmt.Errorf("%s overlaps %s of %s: choose another", n, o.net, o.field))
				}
			}
			all = append(all, net{l.field, n})
		}
	}
}

// oneOf refuses a value that is none of those known.
func (p *problems) oneOf(field, value string, known ...string) {
	for _, k := range known {
		if value == k {
			return
		}
	}
	p.field(field, fmt.Errorf("%q is none of %q", value, known))
}

// parsePortRange parses "FIRST-LAST"; empty is the zero range.
func parsePortRange(s string) ([2]uint16, error) {
	if s == "" {
		return [2]uint16{}, nil
	}
	a, b, _ := strings.Cut(s, "-")
	first, err1 := strconv.ParseUint(a, 10, 16)
	last, err2 := strconv.ParseUint(b, 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last < first {
		return [2]uint16{}, fmt.Errorf("port range %q is not of the form FIRST-LAST with 1 ≤ FIRST ≤ LAST ≤ 65535", s)
	}
	return [2]uint16{uint16(first), uint16(last)}, nil
}
