// Package pod compiles a pod's interfaces: one logical switch port for each network
// that it is attached to, in the zone that holds its node.
//
//	Pod (attachments) ──────┐
//	Node, Cluster (zone)   ─┼─> Logical_Switch_Port <namespace>_<pod>
//	Network, Presence,     ─┤                       P(ns/nad)<namespace>_<pod>
//	Block (lease)          ─┘   QoS, where the interface has a bandwidth
//
// A port is named as OVN-Kubernetes names it, is bound to the node's chassis
// (requested-chassis) and to the pod's UID (iface-id-ver), so a port of an
// earlier pod of the same name is never claimed for the new one; and it has port
// security: only the allocated MAC and addresses may be sent from it
// (ovn-nb(5), port_security), but where the network gives no addresses. In a global zone an
// address that the pod's node, or its block, does not give to the pod makes no port, but a
// Problem. A network that is not rendered, is refused, or does not take the pod's
// namespace has no port, and the pod's other ports do not wait for it. A pod without an allocation, or of another zone,
// makes nothing. One row and one parent reference an attachment: what a pod costs does not grow
// with the cluster.
package pod
