package sriov

import (
	"errors"
	"net"
)

// Namespace is an open network namespace. A temporary one ends when it is closed: the
// kernel then gives NICs back to the node's, and destroys veth pairs.
type Namespace interface {
	// ID tells namespaces apart while the machine runs.
	ID() string
	Close() error
}

// Link is a network device in a namespace.
type Link struct {
	Index    int
	Name     string
	AltNames []string
	Alias    string
	MAC      string
	MTU      int
	Up       bool
	Promisc  bool // it takes packets for everybody, as somebody has told it; not as of other devices
	Veth     bool
	Parent   string // device that it is of: a PCI address, or an auxiliary device; "": none
	Peer     int    // index of a veth's other end, in that end's namespace; 0: not known
}

// Change is what of a device is to be another; the zero of a field leaves it as it is.
type Change struct {
	MAC   net.HardwareAddr
	MTU   int
	Name  string
	Alias *string // "": none any more
}

// VFState is what a PF has been told of one of its virtual functions. What the driver does
// not tell is "" or 0.
type VFState struct {
	MAC       string `json:"mac"` // administrative; 00:00:00:00:00:00: the function's own choice
	VLAN      int    `json:"vlan"`
	QoS       int    `json:"qos"`
	Proto     string `json:"proto"`     // "802.1q" or "802.1ad"
	Spoofchk  string `json:"spoofchk"`  // "on" or "off"
	Trust     string `json:"trust"`     // "on" or "off"
	LinkState string `json:"linkState"` // "auto", "enable" or "disable"
	MinRate   int    `json:"minRate"`   // Mbit/s
	MaxRate   int    `json:"maxRate"`
}

// Attribute is a part of VFState that the kernel takes in one message.
type Attribute string

// The attributes, by the names that people know.
const (
	AttributeMAC       Attribute = "mac"
	AttributeVLAN      Attribute = "vlan"
	AttributeSpoofchk  Attribute = "spoofchk"
	AttributeTrust     Attribute = "trust"
	AttributeLinkState Attribute = "link_state"
	AttributeRate      Attribute = "tx_rate"
)

// attributes in the order in which they are set.
func attributes() []Attribute {
	return []Attribute{AttributeMAC, AttributeVLAN, AttributeSpoofchk, AttributeTrust, AttributeLinkState, AttributeRate}
}

// part is what of v an attribute is, to compare and to show.
func (v VFState) part(a Attribute) VFState {
	switch a {
	case AttributeMAC:
		return VFState{MAC: v.MAC}
	case AttributeVLAN:
		return VFState{VLAN: v.VLAN, QoS: v.QoS, Proto: v.Proto}
	case AttributeSpoofchk:
		return VFState{Spoofchk: v.Spoofchk}
	case AttributeTrust:
		return VFState{Trust: v.Trust}
	case AttributeLinkState:
		return VFState{LinkState: v.LinkState}
	default:
		return VFState{MinRate: v.MinRate, MaxRate: v.MaxRate}
	}
}

// SoftOptions are of soft devices.
type SoftOptions struct {
	MTU   int    // 0: the kernel's default
	Group uint32 // link group of the representors
	// Checksums: the sender has to complete them, for the datapath is a program that
	// reads packets as they are.
	Checksums bool
}

// Kernel is every change of the kernel that giving a device takes, one to a method.
// NewKernel and sriovtest.NewKernel make one. Errors are the kernel's own.
type Kernel interface {
	// Host is the node's namespace; closing it does nothing.
	Host() Namespace
	// Open opens a namespace by its path; fs.ErrNotExist where there is none.
	Open(path string) (Namespace, error)
	// Temporary makes a namespace without a name.
	Temporary() (Namespace, error)

	// Link finds a device by its name, also an alternative one; ErrNoLink.
	Link(ns Namespace, name string) (Link, error)
	// Links lists all.
	Links(ns Namespace) ([]Link, error)
	SetUp(ns Namespace, index int, up bool) error
	AddAltName(ns Namespace, index int, name string) error
	DelAltName(ns Namespace, index int, name string) error
	// Set changes a device in one message. After an error a part may have been changed.
	Set(ns Namespace, index int, c Change) error
	// Move moves a device, which is down then, and whose index may be another, and changes
	// it there, in one message. After an error it may have been moved all the same.
	Move(from Namespace, index int, to Namespace, c Change) error
	// Mute keeps the node's own stack from speaking on a device of its namespace, which
	// stays so.
	Mute(name string) error

	// VFs tells what a PF knows of its VFs, by their number.
	VFs(pf string) (map[int]VFState, error)
	// SetVF changes one attribute of one VF.
	SetVF(pf string, index int, a Attribute, v VFState) error
	// FunctionMAC is that of the function that a port is of.
	FunctionMAC(p Port) (string, error)
	// SetFunctionMAC sets it.
	SetFunctionMAC(p Port, mac net.HardwareAddr) error

	// RDMAExclusive reports whether RDMA devices are in one namespace each.
	RDMAExclusive() (bool, error)
	// RDMADevices lists those of a namespace.
	RDMADevices(ns Namespace) ([]string, error)
	MoveRDMA(from Namespace, name string, to Namespace) error

	// Offload reports whether a device hands TC rules to its NIC.
	Offload(name string) (bool, error)
	// MakeSoft makes a veth pair in the node's namespace.
	MakeSoft(netdev, representor string, o SoftOptions) error
	// RemoveSoft removes a pair by its representor.
	RemoveSoft(representor string) error
	// Boot tells one run of the machine from others.
	Boot() (string, error)
}

// ErrNoLink is of a network device that is not there.
var ErrNoLink = errors.New("no such network device")
