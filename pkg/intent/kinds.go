package intent

import (
	"maps"
	"net/netip"
	"slices"
)

// The indexes that the kinds below are filed in.
const (
	PodsByNode      Index = "pods-by-node"      // value: node name
	PodsByNamespace Index = "pods-by-namespace" // value: namespace
	NodesByZone     Index = "nodes-by-zone"     // value: zone name
	NodesByTunnel   Index = "nodes-by-tunnel"   // value: a tunnel address, or a chassis id
	AllNodes        Index = "nodes"             // value: ""
)

// ClusterKey is the key of the one Cluster object.
var ClusterKey = Key{KindCluster, "."}

// Cluster is what is the same for every unit of this compiler: the addressing
// plan, and the zone it compiles for. It comes from the process's configuration.
type Cluster struct {
	Zone         string         // the zone being rendered; "" in the manager, which renders none
	GlobalZone   bool           // zone=global: one zone holds every node
	PodSubnets   []netip.Prefix // one per IP family, e.g. 10.244.0.0/16
	JoinSubnets  []netip.Prefix // 100.64.0.0/16, fd98::/64
	TransitNets  []netip.Prefix // 100.88.0.0/16, fd97::/64
	Masquerade   []netip.Prefix // 169.254.169.0/29, fd69::/125
	ServiceNets  []netip.Prefix // 10.96.0.0/16
	MTU          int            // of pod interfaces, in bytes
	PuntRate     int            // packets a second of each kind that may reach ovn-controller; 0: 25
	Multicast    bool           // default network multicast
	GatewayVLAN  int            // VLAN of the gateway NIC, 0: untagged
	Insecure     bool           // --insecure-databases
	TransitKey   int            // tunnel key of the transit switch; 0: 16711683
	ExternalPort [2]uint16      // SNAT's external port range, first and last; zero: not limited
	Isolated     bool           // pods name definitions of their own namespace and of Shared only
	Shared       []string       // namespaces
	Offload      Offload
	Management   ManagementDevice
}

// Key is always ClusterKey.
func (c *Cluster) Key() Key { return ClusterKey }

// Buckets is empty: there is one Cluster.
func (c *Cluster) Buckets() []Bucket { return nil }

// Equal compares every field.
func (c *Cluster) Equal(o Object) bool {
	d := o.(*Cluster)
	a, b := *c, *d
	eq := slices.Equal(a.PodSubnets, b.PodSubnets) && slices.Equal(a.JoinSubnets, b.JoinSubnets) &&
		slices.Equal(a.TransitNets, b.TransitNets) && slices.Equal(a.Masquerade, b.Masquerade) &&
		slices.Equal(a.ServiceNets, b.ServiceNets)
	return eq && a.Zone == b.Zone && a.GlobalZone == b.GlobalZone && a.MTU == b.MTU && a.PuntRate == b.PuntRate &&
		a.Multicast == b.Multicast && a.GatewayVLAN == b.GatewayVLAN && a.Insecure == b.Insecure &&
		a.TransitKey == b.TransitKey && a.ExternalPort == b.ExternalPort && a.Isolated == b.Isolated && slices.Equal(a.Shared, b.Shared) && a.Offload.equal(b.Offload) &&
		a.Management.equal(b.Management)
}

// ManagementDevice is a function of a NIC that nodes have as their management port: none
// where both Device and Resource are "".
type ManagementDevice struct {
	Device   string // its id
	Resource string // of the DevicePools that it is the first free device of
	Nodes    Labels // that it is for; empty: all
}

func (m ManagementDevice) equal(n ManagementDevice) bool {
	return m.Device == n.Device && m.Resource == n.Resource && m.Nodes.String() == n.Nodes.String()
}

// OffloadMode is where flows may be moved.
type OffloadMode string

// The modes; "" leaves Open vSwitch's settings as they are.
const (
	OffloadOff          OffloadMode = "off"
	OffloadHardware     OffloadMode = "hardware"
	OffloadHardwareOnly OffloadMode = "hardware-only"
	OffloadSoftware     OffloadMode = "software"
)

// Offload is what the plan says of offload.
type Offload struct {
	Mode           OffloadMode
	Nodes          Labels // that it is for; empty: all
	RouteMTU       bool   // the routers of these nodes check no packet's length
	DeliverInvalid bool   // nothing is matched on invalid connections, in every zone
}

// For tells whether it is for a node.
func (o Offload) For(n *Node) bool { return o.Mode != "" && o.Nodes.Matches(n.Labels) }

func (o Offload) equal(p Offload) bool {
	return o.Mode == p.Mode && o.Nodes.String() == p.Nodes.String() && o.RouteMTU == p.RouteMTU && o.DeliverInvalid == p.DeliverInvalid
}

// Gateway is how a node reaches the world outside: the bridge that has its NIC.
type Gateway struct {
	Bridge    string         // "br-ex"
	Interface string         // the NIC, "eth0"
	MAC       string         // the bridge's, lower case with colons
	Addresses []netip.Prefix // the node's addresses on the bridge
	NextHops  []netip.Addr   // default gateways, one per family; may be empty
}

// Equal compares every field.
func (g Gateway) Equal(o Gateway) bool {
	return g.Bridge == o.Bridge && g.Interface == o.Interface && g.MAC == o.MAC &&
		slices.Equal(g.Addresses, o.Addresses) && slices.Equal(g.NextHops, o.NextHops)
}

// Node is a node of the cluster as its annotations and its agent describe it.
type Node struct {
	Name     string
	Zone     string         // the node's name when every node is a zone, else "global"
	ID       int            // 2..5000, k8s.ovn.org/node-id; 0: not allocated yet. 1 is the cluster router
	Subnets  []netip.Prefix // k8s.ovn.org/node-subnets of the default network
	Chassis  string         // k8s.ovn.org/node-chassis-id: OVS system-id; "" until the agent has run
	EncapIPs []netip.Addr   // k8s.ovn.org/node-encap-ips, else the primary address; the first is what others use
	MgmtMAC  string         // k8s.ovn.org/node-mgmt-port-mac-addresses; "": derived from the address
	Gateway  Gateway        // k8s.ovn.org/l3-gateway-config; zero until the agent has run
	Labels   map[string]string
	UID      string // another Node of the name has another; nothing is rendered from it
}

// Key is Node/name.
func (n *Node) Key() Key { return Key{KindNode, n.Name} }

// Buckets files nodes by zone and by what must be theirs alone.
func (n *Node) Buckets() []Bucket {
	bs := []Bucket{{NodesByZone, n.Zone}, {AllNodes, ""}}
	for _, v := range n.Tunnels() {
		bs = append(bs, Bucket{NodesByTunnel, v})
	}
	return bs
}

// Tunnels lists what other zones know the node's tunnels by: its addresses and
// its chassis id. Two nodes with one of them in common cannot both be reached.
func (n *Node) Tunnels() []string {
	var vs []string
	for _, ip := range n.EncapIPs {
		vs = append(vs, ip.String())
	}
	if n.Chassis != "" {
		vs = append(vs, n.Chassis)
	}
	return vs
}

// Equal compares every field.
func (n *Node) Equal(o Object) bool {
	m := o.(*Node)
	return n.Name == m.Name && n.Zone == m.Zone && n.ID == m.ID && slices.Equal(n.Subnets, m.Subnets) &&
		n.Chassis == m.Chassis && slices.Equal(n.EncapIPs, m.EncapIPs) && n.MgmtMAC == m.MgmtMAC &&
		n.Gateway.Equal(m.Gateway) && maps.Equal(n.Labels, m.Labels) && n.UID == m.UID
}

// Namespace carries the labels that namespace selectors read.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Key is Namespace/name.
func (n *Namespace) Key() Key { return Key{KindNamespace, n.Name} }

// Buckets is empty.
func (n *Namespace) Buckets() []Bucket { return nil }

// Equal compares name and labels.
func (n *Namespace) Equal(o Object) bool {
	m := o.(*Namespace)
	return n.Name == m.Name && maps.Equal(n.Labels, m.Labels)
}

// Attachment is one interface of a pod: the allocation of one network
// (k8s.ovn.org/pod-networks). Allocation is input: compile never allocates.
type Attachment struct {
	Network   string         // "default", or the definition: "namespace/nad[/index]"
	MAC       string         // lower case with colons
	Addresses []netip.Prefix // with the subnet's length; empty: not allocated yet, or a network that gives none
	Gateways  []netip.Addr
	TunnelKey int        // of the port on a layer2 network, 1..32767; 0: none is asked for
	Encap     netip.Addr // of the node's tunnel addresses, that its packets leave and come by; zero: the first
	Bandwidth *Bandwidth // nil: no limit, as most have, and a pointer is a quarter of the limits
}

// Bandwidth limits one interface, in bits a second and bits; a rate of 0 is no
// limit, a burst of 0 leaves the burst to the compiler. Ingress is towards the pod.
type Bandwidth struct {
	IngressRate, IngressBurst, EgressRate, EgressBurst int64
}

// Limits keeps a bandwidth; nil for one that limits nothing.
func Limits(b Bandwidth) *Bandwidth {
	if b == (Bandwidth{}) {
		return nil
	}
	kept := b
	return &kept
}

// Value is what is kept; nil is no limit.
func (b *Bandwidth) Value() Bandwidth {
	if b == nil {
		return Bandwidth{}
	}
	return *b
}

// Equal compares every field.
func (a Attachment) Equal(b Attachment) bool {
	return a.Network == b.Network && a.MAC == b.MAC && slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Gateways, b.Gateways) &&
		a.TunnelKey == b.TunnelKey && a.Encap == b.Encap && a.Bandwidth.Value() == b.Bandwidth.Value()
}

// Pod is a pod that has a node and is not host-networked. A pod that has run to
// completion is deleted from intent at the door: its address is free.
type Pod struct {
	Namespace   string
	Name        string
	UID         string
	Node        string
	Labels      map[string]string
	Attachments []Attachment // sorted by Network
	Notes       *Notes       // nil: there is nothing of it; Noted reads it
}

// Notes is what a pod has beside that, as few have: behind one pointer, because
// pods are kept by the ten thousand.
type Notes struct {
	Mirror    string    // of a static pod's mirror: the UID that the kubelet gives the runtime; "" for others
	Selection string    // k8s.v1.cni.cncf.io/networks as it stands, for the CNI server
	Instead   string    // v1.multus-cni.io/default-network as it stands
	Bandwidth Bandwidth // of the default network, where its Attachment has none
	// Status is the annotation k8s.v1.cni.cncf.io/network-status as it stands, for the
	// agent that writes it. It is no intent, and no engine is given it.
	Status string
}

// Keep is what a Pod holds of notes.
func (n Notes) Keep() *Notes {
	if n == (Notes{}) {
		return nil
	}
	kept := n
	return &kept
}

// WithoutStatus are the notes that are intent.
func (n Notes) WithoutStatus() Notes {
	n.Status = ""
	return n
}

// Noted are a pod's notes.
func (p *Pod) Noted() Notes {
	if p.Notes == nil {
		return Notes{}
	}
	return *p.Notes
}

// Key is Pod/namespace/name.
func (p *Pod) Key() Key { return Key{KindPod, p.Namespace + "/" + p.Name} }

// Buckets files pods by node and by namespace.
func (p *Pod) Buckets() []Bucket {
	return []Bucket{{PodsByNode, p.Node}, {PodsByNamespace, p.Namespace}}
}

// Equal compares every field but Status.
func (p *Pod) Equal(o Object) bool {
	q := o.(*Pod)
	return p.Namespace == q.Namespace && p.Name == q.Name && p.UID == q.UID && p.Node == q.Node && maps.Equal(p.Labels, q.Labels) &&
		p.Noted().WithoutStatus() == q.Noted().WithoutStatus() && slices.EqualFunc(p.Attachments, q.Attachments, Attachment.Equal)
}

// Attachment returns the pod's interface on a network.
func (p *Pod) Attachment(network string) (Attachment, bool) {
	for _, a := range p.Attachments {
		if a.Network == network {
			return a, true
		}
	}
	return Attachment{}, false
}
