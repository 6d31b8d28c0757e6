package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindAddressBlock is the kind of AddressBlock; its resource is addressblocks.
const KindAddressBlock = "AddressBlock"

// BlockSize is how many pods' addresses, and tunnel keys, a block of a layer2 or
// localnet network has.
const BlockSize = 64

// AddressBlock is one node's lease of a part of a network that all nodes share, and
// how other zones learn what is on it. The API server is its arbiter: a block's
// name is "<network object>.<slot>", so two nodes cannot make the same one, and
// every change is made with the resource version that it was decided on.
//
// Of a layer3 network a block is the node's subnet: slot n is the n-th subnet of
// the network's (the node's id, where the network has room for every id). Of a
// layer2 or localnet network it is the n-th BlockSize addresses of each subnet and
// the tunnel keys slot*BlockSize+1 and up; its entries say who has which. An
// address that was asked for (static, an IPAMClaim's) is an entry of the block that
// holds it, whoever leases that. A block whose node has gone from the network is
// deleted, or left without a node while entries hold it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=addressblocks
// +kubebuilder:selectablefield:JSONPath=`.spec.node`
// +kubebuilder:selectablefield:JSONPath=`.spec.network`
// +kubebuilder:printcolumn:name="Network",type=string,JSONPath=`.spec.network`
// +kubebuilder:printcolumn:name="Slot",type=integer,JSONPath=`.spec.slot`
// +kubebuilder:printcolumn:name="Node",type=string,JSONPath=`.spec.node`
// +kubebuilder:printcolumn:name="Subnets",type=string,JSONPath=`.spec.subnets`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AddressBlock struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AddressBlockSpec `json:"spec"`
}

// AddressBlockSpec is a block.
type AddressBlockSpec struct {
	// Network's name, as spec.name of its Network.
	Network string `json:"network"`
	// Slot is which of the network's blocks, from 0.
	// +kubebuilder:validation:Minimum=0
	Slot int `json:"slot"`
	// Node that leases it; empty: nobody, only its entries hold it.
	// +optional
	Node string `json:"node,omitempty"`
	// Subnets of a layer3 network's block: one a family.
	// +optional
	// +listType=atomic
	Subnets []string `json:"subnets,omitempty"`
	// Entries of a layer2 or localnet network's block.
	// +optional
	// +listType=map
	// +listMapKey=offset
	// +kubebuilder:validation:MaxItems=64
	Entries []AddressEntry `json:"entries,omitempty"`
}

// AddressEntry is one interface on a shared network.
type AddressEntry struct {
	// Offset of the tunnel key in the block, 0 to 63: key = slot*BlockSize + offset + 1.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=63
	Offset int `json:"offset"`
	// Addresses with the network's prefix length; none where the network gives none.
	// +optional
	// +listType=atomic
	Addresses []string `json:"addresses,omitempty"`
	// MAC in lower case with colons.
	// +optional
	MAC string `json:"mac,omitempty"`
	// Pod as "namespace/name" and its UID; empty while only a claim holds the entry.
	// +optional
	Pod string `json:"pod,omitempty"`
	// +optional
	UID string `json:"uid,omitempty"`
	// Attachment of the pod: "namespace/definition[/index]", as in k8s.ovn.org/pod-networks.
	// +optional
	Attachment string `json:"attachment,omitempty"`
	// Node that the pod is on, where it is not the block's.
	// +optional
	Node string `json:"node,omitempty"`
	// EncapIP is the node's tunnel address that the pod's packets come by, where it is not
	// the node's first.
	// +optional
	EncapIP string `json:"encapIP,omitempty"`
	// Claim that holds the addresses beyond the pod: an IPAMClaim's "namespace/name".
	// +optional
	Claim string `json:"claim,omitempty"`
}
