package cni

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// Port is the durable record of one attachment: an OVS port and its interface.
type Port struct {
	Name       string // of the host's end of the veth, or of the device's representor; and of port and interface
	Pod        Pod    // only namespace, name and UID are recorded
	Key        string // of the attachment: "default", or "namespace/nad[/index]"
	Network    string // the logical network's name; "default"
	IfName     string // in the pod; "eth0"
	Sandbox    string // container id that owns it
	Netns      string // path of the sandbox's network namespace; "": recorded by an earlier release
	Native     bool   // made by a call for every network of the pod: more may come, and go, while it runs
	Unfinished bool   // made while the pod runs, and not known to be whole yet
	MAC        string
	Addresses  []netip.Prefix
	Generation int // which making of this attachment it is, from 0

	Device   string     // whose representor it is; "": it is a veth's
	Netdev   string     // the device's network device as the node knows it; "": none
	Encap    netip.Addr // of the tunnels that its packets leave by; zero: the node's
	Fallback string     // why the device is none of hardware, or there is none; "": nobody asked
}

// PortState is what OVS and OVN have made of a port.
type PortState struct {
	Exists    bool
	Installed bool   // ovn-controller has installed its flows
	OFPort    int    // 0: not given yet; -1: failed
	Error     string // why vswitchd cannot open the device
	Sandbox   string
	Since     time.Time // of Installed, as ovn-controller says it; zero: it does not
}

// Ports is the OVS side of attachments. OVSPorts implements it.
type Ports interface {
	// Ensure makes ports and interfaces, all in one transaction; nothing for those that
	// exist. A device's port that is somebody else's is an error.
	Ensure(ctx context.Context, ports ...Port) error
	// Finish notes that an unfinished port is whole.
	Finish(ctx context.Context, name string) error
	// Remove deletes port and interface of a sandbox, of any for ""; nothing when they are
	// gone, or another sandbox's.
	Remove(ctx context.Context, name, sandbox string) error
	// RemoveAll deletes ports of pairs, all in one transaction, whosever they are.
	RemoveAll(ctx context.Context, names ...string) error
	// Withdraw is Remove that does not wait until vswitchd has let go of a device: settled
	// does, for a while, and may be nil.
	Withdraw(ctx context.Context, name, sandbox string) (settled func(context.Context), err error)
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
	keyNetns      = "portolan/netns"
	keyNative     = "portolan/native"
	keyUnfinished = "portolan/unfinished"
	keyDevice     = "portolan/device"
	keyFallback   = "portolan/fallback"
	keyNetdev     = "vf-netdev-name"
	keyEncap      = "encap-ip"
	keyInstalled  = "ovn-installed"
	keySince      = "ovn-installed-ts" // milliseconds since 1970
)

// ownerPrefix begins portolan/owner of every attachment's port (decision 19).
const ownerPrefix = "attachment/"

// LogicalPort is the name of the pod's logical switch port on the default network.
func (p Pod) LogicalPort() string { return rows.PodPort(p.Namespace, p.Name) }

// LogicalPort is the name of the port's logical switch port: iface-id.
func (p Port) LogicalPort() string {
	if p.Key == defaultNetwork {
		return p.Pod.LogicalPort()
	}
	return strings.NewReplacer("-", ".", "/", ".").Replace(p.Key) + "_" + p.Pod.LogicalPort()
}

// splitLogicalPort finds the pod in a port's name: none of its parts has a "_" but
// what comes before them.
func splitLogicalPort(s string) (namespace, name string, ok bool) {
	last := strings.LastIndexByte(s, '_')
	if last < 0 {
		return "", "", false
	}
	name, s = s[last+1:], s[:last]
	return s[strings.LastIndexByte(s, '_')+1:], name, true
}
