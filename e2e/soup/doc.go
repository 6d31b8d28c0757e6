// Package soup answers whether a cluster survives what may happen to it, in any
// order. A seed makes a list of steps: pods and nodes come and go, change, are
// re-created under their names; Nodes' annotations are edited; agents, managers and
// machines end and begin between any two steps; databases are away, lost, wiped, restored; watches lag.
//
//	api ──watches, each at its own pace──> machine: door, CNI agent, engine ──> NB, SB, OVS
//	 ^  └────────────────────────────────> manager: assigner                     │
//	 └── annotations, NodeNetworks ───────── both          kubelet ── ADD, DEL ──┘
//
// All of it is in one process and on one goroutine; time is the test bubble's. The
// parts are the product's: doors, agents, allocators, recovery, the assigner, every
// unit and the engine. The API server, the databases, kernels and the runtime are
// simulated.
//
// At every allocation: no other pod has the address, and no zone that is up to
// date, nor the allocating zone however stale, lists it for another. Whenever all
// has settled: no id, subnet or address is held twice, and a Node has those that it had; each zone's rows are those
// of a compiler that starts anew; and a walk over the rows takes a packet from
// every pod to every other by its port, switch, route, tunnel and chassis. In the
// end all pods are deleted, and what is left must be what a new cluster has.
//
// A failing list is shrunk to a shortest one, and printed as a script for testdata.
// A step that makes no sense where it stands does nothing, so any part of a list is
// a list.
package soup
