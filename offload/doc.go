// Package offload answers, for an interface of a pod: are its flows in the NIC, in TC
// software, in the kernel's Open vSwitch datapath or in userspace, and if they are
// not in the NIC, why, and what to do about it.
//
//	Switch (vswitchd's control socket) ──Flows──┐
//	Database (Open_vSwitch, one select)────────┤
//	Machine (sysfs, ethtool, devlink, genl) ───┼─> Observer ──> Report
//	who has which port (the caller) ───────────┘       │
//	                                                   └─ the reading before
//
// Inputs are read through interfaces of one to three methods, each with one real
// implementation here. Nothing is changed, loaded or created: a kernel module that is
// not loaded is found in the lists of modules, and not by asking for what would load it.
//
// Invariants. Shares of packets are of what passed between two readings, and the
// report says which; a first reading has none. A packet's place is the slowest that
// it passes: one stage in software makes it software. A flow that is not in the NIC
// has at least one reason, of a code that does not change from release to release
// (Reasons; docs/features/offload.md is checked against it). The text of a flow is
// read once, and never kept but for the examples in a report.
package offload
