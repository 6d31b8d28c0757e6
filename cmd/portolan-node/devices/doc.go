// Package devices answers: which devices does this node offer to pods, what are its NICs
// made for that, and which device does an interface get? Input: DevicePools with the
// node's labels, the machine's NICs, what the kubelet has given to whom, the records of
// who has a device. Output: NICs that are as pools ask for, soft devices, resources that
// the kubelet is offered, choices for interfaces, the state of each pool.
//
//	DevicePools, labels ──┐                  ┌─> steps on a NIC ──> nic.Configurer
//	NICs, links ──────────┼─> a round ───────┼─> soft devices made, removed
//	kubelet, records ─────┘   (level, not    ├─> resources ──> plugin.Plugins <── kubelet
//	                           history)      └─> states
//	an interface ──> Choose ──> device, or a veth pair, or why not
//
// Invariants: what is there decides in each round, so that a process that was killed goes
// on where it was. A device that a pod has, or may have been given a moment ago, is not
// taken away: what is asked of it waits, and meanwhile nobody new gets one of that NIC.
// Before all pools are listed nothing is offered and nothing removed; before the records
// of devices are looked through, every device is unwell and nothing is changed.
package devices
