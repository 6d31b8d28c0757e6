// Package vswitch says what the Open_vSwitch database of one node holds that
// does not belong to pods: the integration bridge with the management port, the
// bridge that has the node's NIC, those of physical networks, and the settings that ovn-controller reads.
//
// Input: Cluster, the Host of the node, its Node. Output: rows under the
// Open_vSwitch singleton and entries of its maps.
//
//	Open_vSwitch ─┬─ br-int ── br-int, ovn-k8s-mp0
//	              ├─ br-ex ─── br-ex, NIC
//	              └─ br-<hash> ─── br-<hash>, NIC   one a PhysicalNetwork with a NIC
//
// Invariants: ports of pods and the patch ports that ovn-controller makes are
// not named here, so they are never touched. A gateway bridge that was there
// before us, the gateway's or a PhysicalNetwork's, stays as it is: only the mapping
// to it is ours. ovn-bridge-mappings is composed here and nowhere else.
package vswitch
