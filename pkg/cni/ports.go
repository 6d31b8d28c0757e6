package cni

import (
	"context"
	"net/netip"
	"strings"
)

// Port is the durable record of one attachment: an OVS port and its interface.
type Port struct {
	Name       string // of the host's end of the veth, and of port and interface
	Pod        Pod    // Mirror is not recorded
	IfName     string // in the pod; "eth0"
	Sandbox    string // container id that owns it; "" while prepared
	MAC        string
	Addresses  []netip.Prefix
	Generation int // which making of this attachment it is, from 0
}

// PortState is what OVS and OVN have made of a port.
type PortState struct {
	Exists    bool
	Installed bool   // ovn-controller has installed its flows
	OFPort    int    // 0: not given yet; -1: failed
	Error     string // why vswitchd cannot open the device
	Sandbox   string
}

// Ports is the OVS side of attachments. OVSPorts implements it.
type Ports interface {
	// Ensure makes port and interface, in one transaction; nothing when they exist.
	Ensure(ctx context.Context, p Port) error
	// Claim records the sandbox that owns the port; "" makes it a prepared one again.
	Claim(ctx context.Context, name, sandbox, ifName string) error
	// Remove deletes port and interface; nothing when they are gone.
	Remove(ctx context.Context, name string) error
	// List returns every attachment's port, by name.
	List(ctx context.Context) ([]Port, error)
	// WaitInstalled returns when ovn-controller has installed the port's flows. Its
	// error says how far it has come.
	WaitInstalled(ctx context.Context, name string) error
	// State reads what is known of a port.
	State(ctx context.Context, name string) (PortState, error)
}

// The keys of an Interface's external_ids. The first six are OVN's and
// OVN-Kubernetes'; ovn-installed is written by ovn-controller alone.
const (
	keyIfaceID    = "iface-id"
	keyIfaceVer   = "iface-id-ver"
	keyMAC        = "attached_mac"
	keyAddresses  = "ip_addresses"
	keySandbox    = "sandbox"
	keyPodIfName  = "pod-if-name"
	keyNetwork    = "k8s.ovn.org/network"
	keyNAD        = "k8s.ovn.org/nad"
	keyOwner      = "portolan/owner"
	keyGeneration = "portolan/generation"
	keyInstalled  = "ovn-installed"
)

// ownerPrefix begins portolan/owner of every attachment's port (decision 19).
const ownerPrefix = "attachment/"

// LogicalPort is the name of the pod's logical switch port: iface-id.
func (p Pod) LogicalPort() string { return p.Namespace + "_" + p.Name }

func splitLogicalPort(s string) (namespace, name string, ok bool) {
	return strings.Cut(s, "_") // neither part has one
}
