// Package cni answers the container runtime: it gives a pod its interface, takes
// it away, and says whether it can. Input: calls over a unix socket (package
// wire), the pods that are bound to this node, and the OVS database's answers.
// Output: veth pairs, devices, OVS ports, and the allocation of each pod (Publisher).
//
//	informer ── Bound/Gone ──> Agent ── Prepare ──> Pool → Publisher: OVN makes its half of the port
//	portolan-cni ── Call ──> Server ── ADD ──> veth in place → OVS port ‖ configure → ovn-installed → announce
//
// A pod is prepared when it is bound to the node (decision 26, ADR 5): its address
// and with it the logical port are there before the runtime asks. The pair is made
// by ADD, with the pod's end in the sandbox from the start.
//
// An interface may be a function of a NIC instead of a pair (Devices says which, a
// sriov.Keeper gives it): its representor is the port. CNI type sriov is a function on
// the physical network, which has no port (ADR 48).
//
// The OVS interface record is the durable truth: it holds address, MAC, pod UID
// and sandbox. It is removed after everything that it describes is gone, and a pair
// without one belongs to nobody, so that a crash at any step leaves something that
// Recover, DEL or GC finds.
//
// Invariants: an address belongs to a pod UID, not to a sandbox (decision 17);
// one call at a time works on a sandbox, and on a pod; what an ADD did is undone
// when it fails, times out, or its caller has gone away; a DEL of an old sandbox
// never touches what a newer sandbox of the same pod owns.
package cni
