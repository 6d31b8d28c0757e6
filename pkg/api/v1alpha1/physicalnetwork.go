package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindPhysicalNetwork is the kind of PhysicalNetwork; its resource is physicalnetworks.
const KindPhysicalNetwork = "PhysicalNetwork"

// PhysicalNetwork is a wire that localnet networks are bridged to: on each node that
// it selects, the agent makes an Open vSwitch bridge with the NIC in it, or takes one
// that is there, and maps the name to it (ovn-bridge-mappings). A NIC that carries the
// node's own address is refused.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=physnet,path=physicalnetworks
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="NIC",type=string,JSONPath=`.spec.nic`
// +kubebuilder:printcolumn:name="Bridge",type=string,JSONPath=`.spec.bridge`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type PhysicalNetwork struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec PhysicalNetworkSpec `json:"spec"`
	// +optional
	Status PhysicalNetworkStatus `json:"status,omitempty"`
}

// PhysicalNetworkSpec says where the wire is, and who may use it.
// +kubebuilder:validation:XValidation:rule="has(self.nic) != has(self.bridge)",message="give nic, to have a bridge made, or bridge, to use one that is there"
type PhysicalNetworkSpec struct {
	// NodeSelector chooses nodes by labels; nil: all.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// NIC that the agent puts into a bridge of its own making, "br-" and 12 hex
	// digits of the name's SHA-256, with the physical network's name in external_ids.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	NIC string `json:"nic,omitempty"`

	// Bridge of Open vSwitch that exists; nothing in it is changed but OVN's patch ports.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	Bridge string `json:"bridge,omitempty"`

	// NamespaceSelector chooses the namespaces whose definitions may name this network;
	// nil: all.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// VLANs that localnets may have, as "100" or "100-199"; "0" is untagged. None: any.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:items:Pattern=`^[0-9]{1,4}(-[0-9]{1,4})?$`
	VLANs []string `json:"vlans,omitempty"`
}

// PhysicalNetworkStatus is folded by the manager from what nodes say.
type PhysicalNetworkStatus struct {
	// Ready is "READY/SELECTED" nodes.
	// +optional
	Ready string `json:"ready,omitempty"`
	// Nodes that it is selected for and is not ready on, with the reason. At most 100.
	// +optional
	// +listType=map
	// +listMapKey=node
	Nodes []PhysicalNetworkNode `json:"nodes,omitempty"`
	// Conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PhysicalNetworkNode is one node's trouble.
type PhysicalNetworkNode struct {
	Node    string `json:"node"`
	Message string `json:"message"`
}
