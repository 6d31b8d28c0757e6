// Package pod compiles a pod's interface on the default network: one logical
// switch port on its node's switch, in the zone that holds the node.
//
//	Pod (allocation) ─┐
//	Node (zone)      ─┼─> Logical_Switch_Port <namespace>_<pod>
//	Cluster (zone)   ─┘
//
// The port is named as OVN-Kubernetes names it, is bound to the node's chassis
// (requested-chassis) and to the pod's UID (iface-id-ver), so a port of an
// earlier pod of the same name is never claimed for the new one; and it has port
// security: only the allocated MAC and addresses may be sent from it
// (ovn-nb(5), port_security). A pod without an allocation, or of another zone,
// makes nothing. One row, one parent reference: what a pod costs does not grow
// with the cluster.
package pod
