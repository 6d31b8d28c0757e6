// Package plugin answers the kubelet: which devices of which resources this node has,
// and what a container needs to use those it is given. Input: resources with their
// devices, declared whole whenever something has changed. Output: the kubelet's device
// plugin API (v1beta1), one server and socket a resource.
//
//	Declare ──> Plugins ──┬─> server of a resource <── kubelet: ListAndWatch, GetPreferredAllocation, Allocate
//	                      └─> Register, again whenever the kubelet's socket is another
//
// Invariants: what the kubelet sees is what was declared last; a device that is not
// well, or is declared no more, is given to nobody from the moment of Declare on, also
// when the kubelet has not heard of it yet; who was given a device a moment ago is known
// before the kubelet says so itself. A resource that is withdrawn is empty first, so that
// nothing is scheduled for it, and then gone.
package plugin
