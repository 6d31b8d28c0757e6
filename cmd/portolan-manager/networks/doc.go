// Package networks keeps one Network object for each logical network, as package
// claims decides, and folds what nodes say of PhysicalNetworks and DevicePools into
// their status.
//
//	definitions, blocks, IPAMClaims …      ┌───────┐
//	                     (own informers) ──┤       │
//	Networks, wires, pools (Taps)        ──┤ world ├─ Decide ─> create, patch, delete
//	pods, namespaces, nodes (Sink)       ──┤       │         └> findings, told as Events
//	                                       └───────┘
//
// Every change rings one bell; a round then looks at all there is, and writes what
// differs, several objects at once. What fails is looked at again in the next round.
// A write names the version that was decided on, so that two who write at one time
// do not undo each other; the id of a network is written to the Lease, as the
// highest that was ever given, before the network is made.
package networks
