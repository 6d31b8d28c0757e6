// Package sriov answers: which functions of NICs can pods be given, and what belongs
// to each; and it gives one to a pod and takes it back, so that after any failure the
// function is wholly the pod's or wholly the host's. Input: device ids, sysfs, devlink.
// Output: Device; the kernel's state.
//
//	sysfs ───┐
//	devlink ─┴─> Inventory ── Resolve(id) ──> Device{kind, mode, PF, netdev, representor}
//
//	Attachment ──> Keeper ── record, lock ──> Kernel: PF's settings, the sandbox
//	                  │                        Switch: the representor's port
//	Owner ──> Release └── record ──> everything as it was before
//
// A device id is a PCI address of a virtual function, an auxiliary device of a scalable
// function, or the name of a soft device: a veth pair of which one end plays the
// function and the other its representor, for machines that have no such NIC.
//
// A record is written before the first change of a device, and is dropped when the
// device is again as it was; it outlives the process, and need not outlive the boot. What
// is done in between is done so that it can be repeated.
// One lock for each device is shared by all who give, take or repair, in any process.
//
// Invariants: a device has one owner; a DEL that comes late touches nothing that another
// has; a start makes what a killed process left half done the node's again, and leaves
// what an owner has who lives. A lookup dumps nothing, unless what is remembered of the last dump is
// found wrong; what is returned was true when it was looked at. Errors name the device,
// the file, what was found there, and what to do. The package needs nothing of the rest
// of this module.
package sriov
