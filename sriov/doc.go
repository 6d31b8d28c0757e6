// Package sriov answers: which functions of NICs can pods be given, and what belongs
// to each; and it gives one to a pod and takes it back, so that after any failure the
// function is wholly the pod's or wholly the host's. Input: device ids, sysfs, devlink.
// Output: Device; the kernel's state.
//
//	sysfs ───┐
//	devlink ─┴─> Inventory ── Resolve(id) ──> Device{kind, mode, PF, netdev, representor}
//
// A device id is a PCI address of a virtual function, an auxiliary device of a scalable
// function, or the name of a soft device: a veth pair of which one end plays the
// function and the other its representor, for machines that have no such NIC.
//
// Invariants: a lookup dumps nothing, unless what is remembered of the last dump is
// found wrong; what is returned was true when it was looked at. Errors name the device,
// the file, what was found there, and what to do. The package needs nothing of the rest
// of this module.
package sriov
