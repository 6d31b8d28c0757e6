// Package cni answers the container runtime: it gives a pod its interface, takes
// it away, and says whether it can. Input: calls over a unix socket (package
// wire), the pods that are bound to this node, and the OVS database's answers.
// Output: veth pairs, OVS ports, and the allocation of each pod (Publisher).
//
//	informer ── Bound/Gone ──> Agent ── Prepare ──> Pool → veth, peer parked → OVS port → Publisher
//	portolan-cni ── Call ──> Server ── ADD ──> [prepared] → claim → move, name, configure → ovn-installed → announce
//
// Ports are prepared when a pod is bound to the node (decision 26): what takes
// OVN 40 ms and more is done before the runtime asks, and ADD only moves the
// parked peer into the sandbox.
//
// The OVS interface record is the durable truth: it holds address, MAC, pod UID
// and, from the claim on, the sandbox. It is written before anything that it
// describes is moved, and removed after everything that it describes is gone, so
// that a crash at any step leaves something that Recover, DEL or GC finds.
//
// Invariants: an address belongs to a pod UID, not to a sandbox (decision 17);
// one call at a time works on a sandbox, and on a pod; what an ADD did is undone
// when it fails, times out, or its caller has gone away; a DEL of an old sandbox
// never touches what a newer sandbox of the same pod owns.
package cni
