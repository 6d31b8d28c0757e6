package intent

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
)

// KindHost is the kind of Host.
const KindHost Kind = "Host"

// Names that compiler and node agent agree on.
const (
	IntegrationBridge = "br-int"
	ManagementPort    = "ovn-k8s-mp0"
	GatewayNetwork    = "physnet" // what the localnet port of the gateway bridge says
)

// AttachmentGroup is the link group of the node's ends of pods' veth pairs: "port"
// in ASCII. On the userspace datapath a rule hides that group from the kernel's stack.
const AttachmentGroup = 0x706f7274

// Datapath is OVS's datapath_type of a node's bridges.
type Datapath string

// The datapaths: the kernel's openvswitch module, and vswitchd's own.
const (
	SystemDatapath    Datapath = "system"
	UserspaceDatapath Datapath = "netdev"
)

// Host is what the node agent found out about the machine it runs on and was
// told by its flags: the input of the Open_vSwitch database's unit. It never
// leaves the node; what other nodes need of it travels in Node's annotations.
type Host struct {
	Node     string   // the Node's name; also OVS's hostname, which requested-chassis names
	Chassis  string   // Open_vSwitch external_ids:system-id
	Datapath Datapath // of both bridges
	Bridge   string   // the bridge that has the node's addresses: "br-ex"
	// NIC is the port that Bridge takes in; "" when the bridge was there before
	// us: then nothing in it is ours but a flow table and a bridge mapping.
	NIC       string
	BridgeMAC string       // of Bridge: the NIC's, lower case with colons
	BridgeMTU int          // of Bridge: the NIC's, in bytes
	EncapIPs  []netip.Addr // tunnel end points, most preferred first
	Remote    string       // ovn-remote: where ovn-controller finds the SB database
	// WaitBeforeClear is how long ovn-controller keeps old flows after its start,
	// in milliseconds: its measured first computation (decision 33). 0: 5,000.
	WaitBeforeClear int
	// Management is the representor of the function that is the management port; "": the
	// port is Open vSwitch's own.
	Management string
	// PhysicalBridges are the wires that localnets of this node may be on, by Network.
	PhysicalBridges []PhysicalBridge
}

// PhysicalBridge maps a PhysicalNetwork to a bridge of this node.
type PhysicalBridge struct {
	Network string // the PhysicalNetwork's name
	Bridge  string
	NIC     string // that Bridge is made for; "" when the bridge was there before us
}

// PhysicalBridgeName is the bridge that is made for a PhysicalNetwork's NIC: the
// network's name may be longer than a device's.
func PhysicalBridgeName(network string) string {
	sum := sha256.Sum256([]byte(network))
	return "br-" + hex.EncodeToString(sum[:6])
}

// Key is Host/node.
func (h *Host) Key() Key { return Key{KindHost, h.Node} }

// Buckets is empty: a compiler sees its own machine only.
func (h *Host) Buckets() []Bucket { return nil }

// Equal compares every field.
func (h *Host) Equal(o Object) bool {
	g := o.(*Host)
	return h.Node == g.Node && h.Chassis == g.Chassis && h.Datapath == g.Datapath && h.Bridge == g.Bridge &&
		h.NIC == g.NIC && h.BridgeMAC == g.BridgeMAC && h.BridgeMTU == g.BridgeMTU &&
		slices.Equal(h.EncapIPs, g.EncapIPs) && h.Remote == g.Remote && h.WaitBeforeClear == g.WaitBeforeClear &&
		h.Management == g.Management && slices.Equal(h.PhysicalBridges, g.PhysicalBridges)
}
