package v1alpha1

import (
	"crypto/sha256"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// KindNetwork is the kind of Network; its resource is networks.
const KindNetwork = "Network"

// Network is one logical network: what its NetworkAttachmentDefinitions agreed on,
// and the only source of its id. portolan-manager alone writes it, but for
// spec.namespaceSelector, which is the administrator's. It goes with the last
// definition that claims it and the last pod that uses it.
//
// The object has the network's name where that is a name Kubernetes allows, else
// one derived from it; spec.name is the network's.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=pnet,path=networks
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Topology",type=string,JSONPath=`.spec.topology`
// +kubebuilder:printcolumn:name="Subnets",type=string,JSONPath=`.spec.subnets`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.pods`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="ID",type=integer,JSONPath=`.spec.id`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type Network struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec NetworkSpec `json:"spec"`
	// +optional
	Status NetworkStatus `json:"status,omitempty"`
}

// NetworkSpec is a network's accepted configuration. Fields have the meaning and
// the defaults of OVN-Kubernetes' network configuration, from which they come.
type NetworkSpec struct {
	// Name of the network, as definitions give it; empty: the object's.
	// +optional
	Name string `json:"name,omitempty"`

	// ID is unique in the cluster; 0 is the default network's.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65000
	ID int `json:"id,omitempty"`

	// Topology of the network.
	// +kubebuilder:validation:Enum=layer3;layer2;localnet
	Topology string `json:"topology"`

	// Subnets of the network: "10.1.0.0/16", or for layer3 with the length of a
	// node's own, "10.1.0.0/16/24". None: the network gives no addresses.
	// +optional
	// +listType=atomic
	Subnets []string `json:"subnets,omitempty"`

	// ExcludeSubnets are parts of Subnets that no pod gets an address of.
	// +optional
	// +listType=atomic
	ExcludeSubnets []string `json:"excludeSubnets,omitempty"`

	// ReservedSubnets are parts of Subnets that pods get only by asking.
	// +optional
	// +listType=atomic
	ReservedSubnets []string `json:"reservedSubnets,omitempty"`

	// MTU of its interfaces in bytes; 0: the cluster's.
	// +optional
	MTU int `json:"mtu,omitempty"`

	// VLAN of a localnet on the wire; 0: untagged.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	VLAN int `json:"vlanID,omitempty"`

	// PhysicalNetwork that a localnet is bridged to: a PhysicalNetwork's name.
	// +optional
	PhysicalNetwork string `json:"physicalNetworkName,omitempty"`

	// PersistentIPs: addresses may outlive a pod, held by an IPAMClaim.
	// +optional
	PersistentIPs bool `json:"allowPersistentIPs,omitempty"`

	// Offload of its interfaces: "require", "prefer" or "off"; empty: prefer.
	// +optional
	// +kubebuilder:validation:Enum=require;prefer;off
	Offload string `json:"offload,omitempty"`

	// Definitions that claim the network and agree with it, as "namespace/name";
	// also one that is deleted, while pods are attached by it.
	// +optional
	// +listType=set
	Definitions []string `json:"definitions,omitempty"`

	// NamespaceSelector chooses, by labels, the namespaces whose definitions and pods
	// may join; nil: all. The administrator's.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// Reasons of a Network's condition Ready.
const (
	ReasonAccepted = "Accepted"
	// ReasonConflict: a definition differs from what is accepted, which stays in force.
	ReasonConflict = "Conflict"
	// ReasonInvalid: the configuration cannot be used.
	ReasonInvalid = "Invalid"
	// ReasonPhysicalNetwork: what a localnet is bridged to is not there.
	ReasonPhysicalNetwork = "PhysicalNetworkMissing"
)

// NetworkStatus is what the manager sees of a network.
type NetworkStatus struct {
	// Pods that are attached, and Nodes that they are on.
	Pods  int `json:"pods"`
	Nodes int `json:"nodes"`

	// AddressesUsed of how many.
	// +optional
	AddressesUsed int64 `json:"addressesUsed,omitempty"`
	// AddressesFree is how many pods can still join; no more than is counted in 63 bits.
	// +optional
	AddressesFree int64 `json:"addressesFree,omitempty"`

	// Claims are the definitions that name this network.
	// +optional
	// +listType=map
	// +listMapKey=definition
	Claims []NetworkClaim `json:"claims,omitempty"`

	// Conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NetworkClaim is one definition's part in a network.
type NetworkClaim struct {
	// Definition as "namespace/name".
	Definition string `json:"definition"`
	// Accepted: pods may attach by it.
	Accepted bool `json:"accepted"`
	// Message says why not, field by field.
	// +optional
	Message string `json:"message,omitempty"`
}

// maxObjectName leaves room for an AddressBlock's ".<slot>" in the 253 characters
// that Kubernetes allows.
const maxObjectName = 240

// NetworkObjectName is the name of the Network object of a network, with which the
// names of its AddressBlocks begin: the network's own where Kubernetes allows that,
// else what of it is allowed, and 10 hex digits of its SHA-256.
func NetworkObjectName(network string) string {
	if len(network) <= maxObjectName && len(validation.IsDNS1123Subdomain(network)) == 0 {
		return network
	}
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(network))
	readable = strings.Trim(readable[:min(len(readable), 60)], "-")
	if readable == "" {
		readable = "network"
	}
	return fmt.Sprintf("%s-%x", readable, sha256.Sum256([]byte(network)))[:len(readable)+11]
}
