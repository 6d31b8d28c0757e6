package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindNetwork is the kind of Network.
const KindNetwork = "Network"

// Network is one logical network.
type Network struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec NetworkSpec `json:"spec"`
}

// NetworkSpec is a network's accepted configuration.
type NetworkSpec struct {
	// ID is unique in the cluster; 0 is the default network's.
	ID int `json:"id,omitempty"`

	// Topology is "layer3", "layer2" or "localnet".
	Topology string `json:"topology"`

	// Subnets of the network, at most one a family.
	Subnets []string `json:"subnets,omitempty"`

	// MTU of its interfaces in bytes; 0: the cluster's.
	MTU int `json:"mtu,omitempty"`
}
