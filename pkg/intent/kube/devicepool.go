package kube

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Limits of a pool's fields, as in its CustomResourceDefinition.
const (
	mostVFs         = 1024
	mostSoft        = 256
	mostResource    = 128
	longestLinkName = 15
)

// poolPatterns are the forms of a pool's words.
type poolPatterns struct{ resource, id, pfName, rootDevice *regexp.Regexp }

func newPoolPatterns() poolPatterns {
	const vfs = `(#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$`
	return poolPatterns{
		resource:   regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`),
		id:         regexp.MustCompile(`^[0-9a-f]{4}$`),
		pfName:     regexp.MustCompile(`^[^#/ ]{1,15}` + vfs),
		rootDevice: regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]` + vfs),
	}
}

// ParseDevicePool makes a pool's intent; never nil. It refuses what the API server
// would: files have no other judge. A pool with a Problem is Invalid, but for spec.trusted,
// which trusts nobody then: to do a part of what a pool says would be another pool.
func ParseDevicePool(n *v1alpha1.DevicePool) (*intent.DevicePool, []rows.Problem) {
	s := n.Spec
	out := &intent.DevicePool{
		Name: n.Name, Generation: n.Generation, Resource: s.ResourceName, Soft: s.Kind == v1alpha1.SoftPool, VFs: -1, Mode: s.Mode, MTU: int(s.MTU), Driver: s.Driver,
		RDMA: s.RDMA, Tunnel: s.TunnelInterface, DryRun: s.DryRun,
	}
	p := &problems{key: out.Key()}
	if n.Name == "" {
		p.field("metadata.name", errors.New("the pool has no name: give it one"))
	}
	words := newPoolPatterns()
	p.resource("spec.resourceName", s.ResourceName, words.resource)
	out.Nodes = p.selector("spec.nodeSelector", s.NodeSelector)
	if s.VFs != nil {
		out.VFs = int(*s.VFs)
	}
	if s.Soft != nil {
		out.Count = int(s.Soft.Count)
	}
	p.poolKind(s)
	p.poolLimits(out)
	if s.NICs != nil {
		out.NICs = p.nics(*s.NICs, words)
	}
	if len(p.list) > 0 {
		out.Invalid = p.list[0].Field + ": " + p.list[0].Message
	}
	if s.Trusted != nil {
		trusted := p.selector("spec.trusted", s.Trusted)
		out.Trusted = &trusted
	}
	return out, p.list
}

// resource refuses names that no pod could request, or the kubelet would not take.
func (p *problems) resource(field, name string, form *regexp.Regexp) {
	switch {
	case len(name) > mostResource || !form.MatchString(name):
		p.field(field, fmt.Errorf("%q is not a domain and a name, as portolan.io/fast: the domain in lower case, the name of letters, digits, '-', '_' and '.', at most 63", name))
	case strings.Contains(name, "kubernetes.io/") || strings.HasPrefix(name, "requests."):
		p.field(field, fmt.Errorf("%q: the kubelet takes no device of the domain kubernetes.io, or of one that begins with requests: give a domain of your own, as portolan.io/fast", name))
	}
}

// poolKind refuses fields that belong to the other kind.
func (p *problems) poolKind(s v1alpha1.DevicePoolSpec) {
	switch s.Kind {
	case "", v1alpha1.NICPool:
		if s.Soft != nil {
			p.field("spec.soft", errors.New("give soft, and it alone, for kind soft: take it out, or write kind: soft"))
		}
		if s.NICs == nil {
			p.field("spec.nics", errors.New("say by nics which NICs the pool is of"))
		}
	case v1alpha1.SoftPool:
		if s.Soft == nil {
			p.field("spec.soft", errors.New("a pool of kind soft needs soft.count, how many devices each node is to have"))
		}
		if s.NICs != nil || s.VFs != nil || s.Mode != "" || s.Driver != "" || s.RDMA {
			p.field("spec.kind", errors.New("a soft pool has no NICs: take nics, vfs, mode, driver and rdma out"))
		}
		if s.TunnelInterface == v1alpha1.Uplink {
			p.field("spec.tunnelInterface", errors.New("soft devices are of no NIC, which uplink would be: give it the name of a network device"))
		}
	default:
		p.field("spec.kind", fmt.Errorf(`%q is none of "nic" and "soft"`, s.Kind))
	}
}

// poolLimits refuses numbers and words that no pool can have.
func (p *problems) poolLimits(o *intent.DevicePool) {
	if o.VFs < -1 || o.VFs > mostVFs {
		p.field("spec.vfs", fmt.Errorf("%d is none of 0 to %d", o.VFs, mostVFs))
	}
	if o.Count < 0 || o.Count > mostSoft {
		p.field("spec.soft.count", fmt.Errorf("%d is none of 0 to %d", o.Count, mostSoft))
	}
	if o.MTU < 0 || o.MTU > mostMTU {
		p.field("spec.mtu", fmt.Errorf("%d is none of 0 to %d bytes", o.MTU, mostMTU))
	}
	if o.Mode != "" {
		p.oneOf("spec.mode", o.Mode, "legacy", "switchdev")
	}
	if o.Driver != "" {
		p.oneOf("spec.driver", o.Driver, "netdevice", "vfio-pci")
	}
	if o.Driver == "vfio-pci" && o.RDMA {
		p.field("spec.rdma", errors.New("a function with the driver vfio-pci has no RDMA device: take rdma out, or give driver netdevice"))
	}
	if len(o.Tunnel) > longestLinkName {
		p.field("spec.tunnelInterface", fmt.Errorf("%q has more than %d bytes, which no network device's name has", o.Tunnel, longestLinkName))
	}
}

// nics reads a selector of NICs.
func (p *problems) nics(s v1alpha1.NICSelector, words poolPatterns) intent.NICSelector {
	if len(s.Vendors)+len(s.Devices)+len(s.Drivers)+len(s.PFNames)+len(s.RootDevices)+len(s.LinkTypes) == 0 {
		p.field("spec.nics", errors.New("give at least one of vendors, devices, drivers, pfNames, rootDevices and linkTypes: a pool of every NIC of a node is not made"))
	}
	p.pciIDs("spec.nics.vendors", s.Vendors, words.id)
	p.pciIDs("spec.nics.devices", s.Devices, words.id)
	for i, t := range s.LinkTypes {
		p.oneOf(fmt.Sprintf("spec.nics.linkTypes[%d]", i), t, "ether", "infiniband")
	}
	return intent.NICSelector{
		Vendors: sorted(s.Vendors), Devices: sorted(s.Devices), Drivers: sorted(s.Drivers), LinkTypes: sorted(s.LinkTypes),
		PFNames:     p.nicParts("spec.nics.pfNames", s.PFNames, words.pfName, "the network device of a NIC, as ens1f0, or ens1f0#0-3,6"),
		RootDevices: p.nicParts("spec.nics.rootDevices", s.RootDevices, words.rootDevice, "the PCI address of a NIC, as 0000:03:00.0, or 0000:03:00.0#0-3,6"),
	}
}

func (p *problems) pciIDs(field string, list []string, form *regexp.Regexp) {
	for i, id := range list {
		if !form.MatchString(id) {
			p.field(fmt.Sprintf("%s[%d]", field, i), fmt.Errorf("%q is not 4 hex digits in lower case, as 15b3", id))
		}
	}
}

func sorted(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

// nicParts reads names of NICs with numbers of VFs.
func (p *problems) nicParts(field string, list []string, form *regexp.Regexp, want string) []intent.NICPart {
	var out []intent.NICPart
	for i, text := range list {
		if !form.MatchString(text) {
			p.field(fmt.Sprintf("%s[%d]", field, i), fmt.Errorf("%q is not %s", text, want))
			continue
		}
		part, err := parseNICPart(text)
		if err != nil {
			p.field(fmt.Sprintf("%s[%d]", field, i), err)
			continue
		}
		out = append(out, part)
	}
	slices.SortFunc(out, func(a, b intent.NICPart) int { return strings.Compare(a.NIC, b.NIC) })
	return out
}

// parseNICPart parses "ens1f0#0-3,6", whose form has been checked.
func parseNICPart(text string) (intent.NICPart, error) {
	nic, list, some := strings.Cut(text, "#")
	out := intent.NICPart{NIC: nic}
	if !some {
		return out, nil
	}
	for _, r := range strings.Split(list, ",") {
		first, last, ranged := strings.Cut(r, "-")
		if !ranged {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err := errors.Join(err1, err2); err != nil {
			return out, err
		}
		if a > b {
			return out, fmt.Errorf("%q: a range of VFs runs backwards: give the lower number first, as #%d-%d", text, b, a)
		}
		for _, o := range out.VFs {
			if a <= o[1] && o[0] <= b {
				return out, fmt.Errorf("%q: VF %d is named twice: give each number once", text, max(a, o[0]))
			}
		}
		out.VFs = append(out.VFs, [2]int{a, b})
	}
	slices.SortFunc(out.VFs, func(a, b [2]int) int { return a[0] - b[0] })
	return out, nil
}
