// Command hardware answers: does the product hand a pod's packets to this NIC? It is
// for what no emulated machine can show, and runs on the machine that has the NIC.
//
//	hardware -nic ens1f0|0000:03:00.0 [-force]
//	   │  checks: root, a PF whose driver has an e-switch, nothing that needs the NIC
//	   │  writes down how the NIC is
//	   ├─ a root of its own (mount and PID namespaces): OVS, OVN, portolan-node ──┐
//	   │     DevicePool: 2 VFs, mode switchdev                                    │ machine's
//	   │     portolan-cni with deviceID: VF ─> namespace east, VF ─> west         │ network
//	   │  TCP and UDP between them; portolan offload; packets at the representors │ namespace
//	   └─ DEL, the NIC as it was, everything ended; a table ──────────────────────┘
//
// Invariants: what was there before is there after, also when a step fails or the run
// is interrupted, or the table says what is not. Nothing of the machine's own
// network is used: the node of the run has a veth pair for its NIC, and its
// addresses are of 198.18.0.0/15, which is for benchmarks (RFC 2544). A row of the
// table is what was measured here, and never what should be.
package main
