package intent

import "slices"

// DevicePool is a set of functions of NICs, or of soft devices, as the administrator
// declares it. Compilers do not read it: it is for the node's agent, which makes and
// offers the devices.
type DevicePool struct {
	Name       string
	Generation int64 // of what it says, which a report on it names; 0: not known
	// Invalid says what is wrong with it; "": nothing. Its other fields cannot be relied
	// on then: nothing new is done by it, and what a node has made by it stays.
	Invalid  string
	Nodes    Labels // of the nodes that have it; empty: all
	Resource string // that pods request: "portolan.io/fast"
	Soft     bool   // its devices are veth pairs, and NICs is empty
	Count    int    // soft devices of each node
	NICs     NICSelector
	VFs      int    // that each NIC is to have; -1: as many as there are
	Mode     string // of the e-switch: "legacy", "switchdev"; "": as it is
	MTU      int    // bytes; 0: as it is
	Driver   string // of the functions: "netdevice", "vfio-pci"; "": as it is
	RDMA     bool   // containers get RDMA device files
	// Tunnel is the network device by whose address tunnels begin; "uplink": that of the
	// NIC that a device is of; "": the node's.
	Tunnel  string
	Trusted *Labels // of the namespaces that it trusts; nil: none
	DryRun  bool
}

// NICSelector chooses NICs: each list that is not empty must have one that matches.
type NICSelector struct {
	Vendors, Devices []string // PCI ids, 4 hex digits
	Drivers          []string // of the NIC itself
	PFNames          []NICPart
	RootDevices      []NICPart
	LinkTypes        []string // "ether", "infiniband"
}

// NICPart names a NIC, by network device or PCI address, and which of its VFs are meant.
type NICPart struct {
	NIC string
	VFs [][2]int // ranges, sorted, first and last; none: all
}

// Has tells whether a VF is meant.
func (n NICPart) Has(vf int) bool {
	return len(n.VFs) == 0 || slices.ContainsFunc(n.VFs, func(r [2]int) bool { return r[0] <= vf && vf <= r[1] })
}

func (n NICPart) equal(m NICPart) bool { return n.NIC == m.NIC && slices.Equal(n.VFs, m.VFs) }

// Equal compares every field.
func (s NICSelector) Equal(o NICSelector) bool {
	return slices.Equal(s.Vendors, o.Vendors) && slices.Equal(s.Devices, o.Devices) && slices.Equal(s.Drivers, o.Drivers) &&
		slices.EqualFunc(s.PFNames, o.PFNames, NICPart.equal) && slices.EqualFunc(s.RootDevices, o.RootDevices, NICPart.equal) &&
		slices.Equal(s.LinkTypes, o.LinkTypes)
}

// Trusts reports whether definitions of a namespace with these labels may have trust
// on, and spoof check off.
func (p *DevicePool) Trusts(namespace map[string]string) bool {
	return p.Trusted != nil && p.Trusted.Matches(namespace)
}

// Key is DevicePool/name.
func (p *DevicePool) Key() Key { return Key{KindDevicePool, p.Name} }

// Buckets is empty.
func (p *DevicePool) Buckets() []Bucket { return nil }

// Equal compares every field.
func (p *DevicePool) Equal(o Object) bool {
	q := o.(*DevicePool)
	return p.Name == q.Name && p.Generation == q.Generation && p.Invalid == q.Invalid && p.Nodes.String() == q.Nodes.String() && p.Resource == q.Resource &&
		p.Soft == q.Soft && p.Count == q.Count && p.NICs.Equal(q.NICs) && p.VFs == q.VFs && p.Mode == q.Mode && p.MTU == q.MTU &&
		p.Driver == q.Driver && p.RDMA == q.RDMA && p.Tunnel == q.Tunnel && p.DryRun == q.DryRun && p.trustsAs(q)
}

func (p *DevicePool) trustsAs(q *DevicePool) bool {
	if p.Trusted == nil || q.Trusted == nil {
		return p.Trusted == q.Trusted
	}
	return p.Trusted.String() == q.Trusted.String()
}
