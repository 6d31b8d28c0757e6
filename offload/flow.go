package offload

import (
	"encoding/hex"
	"time"
)

// Place is where packets are moved, fastest first.
type Place string

// The places.
const (
	Hardware  Place = "hardware"  // the NIC
	TC        Place = "tc"        // the kernel's traffic control, in software
	Kernel    Place = "kernel"    // the openvswitch module
	Userspace Place = "userspace" // ovs-vswitchd
)

// Places lists the places, fastest first.
func Places() []Place { return []Place{Hardware, TC, Kernel, Userspace} }

// slowness orders places; what passes two is as slow as the slower.
func (p Place) slowness() int {
	for i, q := range Places() {
		if p == q {
			return i
		}
	}
	return len(Places())
}

func slower(a, b Place) Place {
	if a.slowness() >= b.slowness() {
		return a
	}
	return b
}

// Degree is how much of a flow a NIC does.
type Degree int

// The degrees.
const (
	NotOffloaded Degree = iota
	// Partial: the NIC classifies, vswitchd acts (OVS-DPDK).
	Partial
	Whole
)

// Flow is one flow of a datapath, as ovs-vswitchd prints it.
type Flow struct {
	ID      FlowID
	Recirc  uint32 // the stage that it is of; 0: a packet's first
	InPort  string // the port's name, or its number where the dump has no names
	Match   string // the keys, as printed
	Actions string // as printed
	Packets uint64
	Bytes   uint64
	Used    time.Duration // since the last packet; Never: there was none
	Degree  Degree
	Layer   string // "ovs", "tc", "dpdk"; "" where the dump does not say
}

// Never is the Used of a flow without packets.
const Never time.Duration = -1

// FlowID tells flows of one dump apart, and is the same in the next.
type FlowID struct {
	UFID [16]byte
	Core int // of the thread that has the flow, in userspace; -1: not of a thread
}

// String is the ufid as it is printed.
func (id FlowID) String() string {
	text := hex.EncodeToString(id.UFID[:])
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}

// PlaceIn is where the packets of a flow are moved, for a datapath's kind: "system",
// the kernel's, or "netdev", vswitchd's.
func (f *Flow) PlaceIn(datapath string) Place {
	switch {
	case f.Degree == Whole:
		return Hardware
	case f.Layer == "tc":
		return TC
	case datapath == DatapathUserspace || f.Layer == "dpdk":
		return Userspace
	default:
		return Kernel
	}
}

// The kinds of datapath, as Open vSwitch names them.
const (
	DatapathKernel    = "system"
	DatapathUserspace = "netdev"
)
