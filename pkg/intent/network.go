package intent

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
)

// The indexes of networks and what is on them.
const (
	NetworksByDefinition  Index = "networks-by-definition" // value: "namespace/nad"
	BlocksByNetwork       Index = "blocks-by-network"      // value: network name
	PresencesByNetwork    Index = "presences-by-network"   // value: network name
	PresencesByNode       Index = "presences-by-node"      // value: node name
	NetworksByPhysical    Index = "networks-by-physical"   // value: physical network name
	BlocksByNodeOfNetwork Index = "blocks-by-network-node" // value: "network node"
	BlocksByPort          Index = "blocks-by-port"         // value: "namespace/pod attachment"
	NetworksByEscaped     Index = "networks-by-escaped"    // value: Escaped(name)
	NetworksBySubnet      Index = "networks-by-subnet"     // value: a prefix
)

// Topology is a network's shape.
type Topology string

// The topologies.
const (
	Layer3   Topology = "layer3"
	Layer2   Topology = "layer2"
	Localnet Topology = "localnet"
)

// DefaultNetwork is the name of the cluster's default pod network.
const DefaultNetwork = "default"

// NetworkSubnet is a prefix of a network; of a layer3 network each node has a part
// of HostPrefix bits.
type NetworkSubnet struct {
	Prefix     netip.Prefix
	HostPrefix int // 0 but for layer3
}

// Network is one logical network; the default pod network is one like any other.
type Network struct {
	Name            string
	ID              int // 0 for the default network, else 1..65000
	Topology        Topology
	Subnets         []NetworkSubnet // IPv4 first; none: addresses are not given
	Exclude         []netip.Prefix  // no pod gets an address of these
	Reserved        []netip.Prefix  // a pod gets one of these only by asking
	MTU             int
	VLAN            int    // of a localnet; 0: untagged
	PhysicalNetwork string // of a localnet
	PersistentIPs   bool
	Offload         string   // "require", "prefer" or "off"
	Definitions     []string // "namespace/nad", sorted
	Namespaces      Labels   // of the namespaces that may join; empty: all
}

// Key is Network/name.
func (n *Network) Key() Key { return Key{KindNetwork, n.Name} }

// Buckets files networks by the definitions that claim them.
func (n *Network) Buckets() []Bucket {
	bs := make([]Bucket, 0, len(n.Definitions)+len(n.Subnets)+2)
	bs = append(bs, Bucket{NetworksByEscaped, Escaped(n.Name)})
	for _, s := range n.Subnets {
		bs = append(bs, Bucket{NetworksBySubnet, s.Prefix.String()})
	}
	for _, d := range n.Definitions {
		bs = append(bs, Bucket{NetworksByDefinition, d})
	}
	if n.Topology == Localnet {
		bs = append(bs, Bucket{NetworksByPhysical, n.Wire()})
	}
	return bs
}

// Equal compares every field.
func (n *Network) Equal(o Object) bool {
	m := o.(*Network)
	return n.Name == m.Name && n.ID == m.ID && n.Topology == m.Topology && slices.Equal(n.Subnets, m.Subnets) &&
		slices.Equal(n.Exclude, m.Exclude) && slices.Equal(n.Reserved, m.Reserved) && n.MTU == m.MTU && n.VLAN == m.VLAN &&
		n.PhysicalNetwork == m.PhysicalNetwork && n.PersistentIPs == m.PersistentIPs && n.Offload == m.Offload &&
		slices.Equal(n.Definitions, m.Definitions) && n.Namespaces.String() == m.Namespaces.String()
}

// Presence says that a network is used on a node: pods there are attached to it, or
// were until a moment ago. What a network needs is rendered where it is present.
type Presence struct {
	Network string
	Node    string
}

// Key is Presence/node/network: no node's name has a "/".
func (p *Presence) Key() Key { return PresenceKey(p.Network, p.Node) }

// PresenceKey is the key of a network's presence on a node.
func PresenceKey(network, node string) Key { return Key{KindPresence, node + "/" + network} }

// Buckets files presences by network and by node.
func (p *Presence) Buckets() []Bucket {
	return []Bucket{{PresencesByNetwork, p.Network}, {PresencesByNode, p.Node}}
}

// Equal compares every field.
func (p *Presence) Equal(o Object) bool { return *p == *o.(*Presence) }

// Block is a node's lease of a part of a network, and how other zones learn what is
// on it: a layer3 network's subnet of a node, or 64 ports of a shared switch
// (v1alpha1.AddressBlock).
type Block struct {
	Network string
	Slot    int
	Node    string         // "": only entries hold it
	Subnets []netip.Prefix // of layer3: one a family, IPv4 first
	Entries []BlockEntry   // of layer2 and localnet, by Key
}

// BlockEntry is one interface on a shared network.
type BlockEntry struct {
	Key       int // tunnel key
	Addresses []netip.Prefix
	MAC       string
	Pod       string // "namespace/name"; "": a claim alone holds the addresses
	UID       string
	Network   string     // as in Attachment: "namespace/nad[/index]"
	Node      string     // that the pod is on
	Encap     netip.Addr // as in Attachment
	Claim     string     // the IPAMClaim that holds the addresses beyond the pod; "namespace/name"
}

// Equal compares every field.
func (e BlockEntry) Equal(f BlockEntry) bool {
	return e.Key == f.Key && slices.Equal(e.Addresses, f.Addresses) && e.MAC == f.MAC && e.Pod == f.Pod && e.UID == f.UID &&
		e.Network == f.Network && e.Node == f.Node && e.Encap == f.Encap && e.Claim == f.Claim
}

// Key is Block/slot/network.
func (b *Block) Key() Key { return Key{KindBlock, strconv.Itoa(b.Slot) + "/" + b.Network} }

// Buckets files blocks by network, by network and node, and by the pods in them.
func (b *Block) Buckets() []Bucket {
	bs := []Bucket{{BlocksByNetwork, b.Network}, {BlocksByNodeOfNetwork, b.Network + " " + b.Node}}
	for _, e := range b.Entries {
		if e.Pod != "" {
			bs = append(bs, Bucket{BlocksByPort, e.Port()})
		}
	}
	return bs
}

// Port names the entry's interface for the index BlocksByPort.
func (e BlockEntry) Port() string { return e.Pod + " " + e.Network }

// Equal compares every field.
func (b *Block) Equal(o Object) bool {
	c := o.(*Block)
	return b.Network == c.Network && b.Slot == c.Slot && b.Node == c.Node && slices.Equal(b.Subnets, c.Subnets) &&
		slices.EqualFunc(b.Entries, c.Entries, BlockEntry.Equal)
}

// PhysicalNetwork is a wire that localnets are bridged to, as the administrator
// declares it.
type PhysicalNetwork struct {
	Name       string
	Nodes      Labels   // of the nodes that have it; empty: all
	NIC        string   // that a bridge is made for; "" where Bridge is given
	Bridge     string   // that exists
	Namespaces Labels   // of the namespaces that may use it; empty: all
	VLANs      [][2]int // ranges that localnets may have, 0 untagged; none: any
}

// Key is PhysicalNetwork/name.
func (p *PhysicalNetwork) Key() Key { return Key{KindPhysicalNetwork, p.Name} }

// Buckets is empty.
func (p *PhysicalNetwork) Buckets() []Bucket { return nil }

// Equal compares every field.
func (p *PhysicalNetwork) Equal(o Object) bool {
	q := o.(*PhysicalNetwork)
	return p.Name == q.Name && p.Nodes.String() == q.Nodes.String() && p.NIC == q.NIC && p.Bridge == q.Bridge &&
		p.Namespaces.String() == q.Namespaces.String() && slices.Equal(p.VLANs, q.VLANs)
}

// Definition is a NetworkAttachmentDefinition as it stands. Compilers do not read
// it: it is for the CNI server, which attaches what it says, and for the manager,
// which makes a Network of those that are Portolan's.
type Definition struct {
	Namespace string
	Name      string
	UID       string
	Config    string // spec.config
	Resource  string // annotation k8s.v1.cni.cncf.io/resourceName
}

// Key is Definition/namespace/name.
func (d *Definition) Key() Key { return Key{KindDefinition, d.Namespace + "/" + d.Name} }

// Buckets is empty.
func (d *Definition) Buckets() []Bucket { return nil }

// Equal compares every field.
func (d *Definition) Equal(o Object) bool { return *d == *o.(*Definition) }

// Claim is an IPAMClaim: addresses of a network that outlive a pod. Compilers do not
// read it: which addresses those are, an AddressBlock's entry says.
type Claim struct {
	Namespace string
	Name      string
	Network   string // a network's name
}

// Key is IPAMClaim/namespace/name.
func (c *Claim) Key() Key { return Key{KindClaim, c.Namespace + "/" + c.Name} }

// Buckets is empty.
func (c *Claim) Buckets() []Bucket { return nil }

// Equal compares every field.
func (c *Claim) Equal(o Object) bool { return *c == *o.(*Claim) }

// compareSubnets orders IPv4 first.
func compareSubnets(a, b NetworkSubnet) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.HostPrefix, b.HostPrefix))
}

// SortSubnets orders subnets, IPv4 first.
func SortSubnets(list []NetworkSubnet) { slices.SortFunc(list, compareSubnets) }
