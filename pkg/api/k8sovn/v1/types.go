package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// APIVersion is that of every kind here.
const APIVersion = "k8s.ovn.org/v1"

// The kinds.
const (
	KindUDN  = "UserDefinedNetwork"
	KindCUDN = "ClusterUserDefinedNetwork"
)

// The conditions of both kinds, and the reasons of the first, as OVN-Kubernetes has
// them.
const (
	// ConditionCreated: every selected namespace has the definition.
	ConditionCreated = "NetworkCreated"
	// ConditionReady: pods can attach.
	ConditionReady = "NetworkReady"

	ReasonCreated   = "NetworkAttachmentDefinitionCreated"
	ReasonSyncError = "NetworkAttachmentDefinitionSyncError"
	// ReasonRole: the role is not one that Portolan has.
	ReasonRole = "RoleNotSupported"
)

// The values of Topology, Role and IPAM.
const (
	Layer2    = "Layer2"
	Layer3    = "Layer3"
	Localnet  = "Localnet"
	Primary   = "Primary"
	Secondary = "Secondary"

	IPAMDisabled   = "Disabled"
	IPAMPersist    = "Persistent"
	VLANModeAccess = "Access"
)

// UserDefinedNetwork is a network of one namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,path=userdefinednetworks
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Topology",type=string,JSONPath=`.spec.topology`
// +kubebuilder:printcolumn:name="Created",type=string,JSONPath=`.status.conditions[?(@.type=="NetworkCreated")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="NetworkReady")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type UserDefinedNetwork struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec cannot be changed: make another network"
	Spec UserDefinedNetworkSpec `json:"spec"`
	// +optional
	Status Status `json:"status,omitempty"`
}

// ClusterUserDefinedNetwork is a network of all namespaces that it selects.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=clusteruserdefinednetworks
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Topology",type=string,JSONPath=`.spec.network.topology`
// +kubebuilder:printcolumn:name="Created",type=string,JSONPath=`.status.conditions[?(@.type=="NetworkCreated")].status`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="NetworkReady")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterUserDefinedNetwork struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterUserDefinedNetworkSpec `json:"spec"`
	// +optional
	Status Status `json:"status,omitempty"`
}

// UserDefinedNetworkSpec is a network of one namespace: a localnet is the cluster's.
// +kubebuilder:validation:XValidation:rule="(self.topology == 'Layer3') == has(self.layer3)",message="give layer3 with topology Layer3, and with no other"
// +kubebuilder:validation:XValidation:rule="(self.topology == 'Layer2') == has(self.layer2)",message="give layer2 with topology Layer2, and with no other"
type UserDefinedNetworkSpec struct {
	// +kubebuilder:validation:Enum=Layer2;Layer3
	Topology string `json:"topology"`
	// +optional
	Layer3 *Layer3Config `json:"layer3,omitempty"`
	// +optional
	Layer2 *Layer2Config `json:"layer2,omitempty"`
}

// ClusterUserDefinedNetworkSpec is a network and the namespaces that have it.
type ClusterUserDefinedNetworkSpec struct {
	// NamespaceSelector chooses namespaces; the empty one all.
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="network cannot be changed: make another network"
	Network NetworkSpec `json:"network"`
}

// NetworkSpec is a network of any topology.
// +kubebuilder:validation:XValidation:rule="(self.topology == 'Layer3') == has(self.layer3)",message="give layer3 with topology Layer3, and with no other"
// +kubebuilder:validation:XValidation:rule="(self.topology == 'Layer2') == has(self.layer2)",message="give layer2 with topology Layer2, and with no other"
// +kubebuilder:validation:XValidation:rule="(self.topology == 'Localnet') == has(self.localnet)",message="give localnet with topology Localnet, and with no other"
type NetworkSpec struct {
	// +kubebuilder:validation:Enum=Layer2;Layer3;Localnet
	Topology string `json:"topology"`
	// +optional
	Layer3 *Layer3Config `json:"layer3,omitempty"`
	// +optional
	Layer2 *Layer2Config `json:"layer2,omitempty"`
	// +optional
	Localnet *LocalnetConfig `json:"localnet,omitempty"`
}

// Layer3Config is a subnet for each node, with routers between them.
// +kubebuilder:validation:XValidation:rule="!has(self.joinSubnets) || self.role == 'Primary'",message="joinSubnets is for role Primary only"
// +kubebuilder:validation:XValidation:rule="!has(self.mtu) || self.mtu >= 1280 || !self.subnets.exists(s, isCIDR(s.cidr) && cidr(s.cidr).ip().family() == 6)",message="mtu is 1280 or more where a subnet is IPv6"
type Layer3Config struct {
	// +kubebuilder:validation:Enum=Primary;Secondary
	Role string `json:"role"`
	// +optional
	// +kubebuilder:validation:Minimum=576
	// +kubebuilder:validation:Maximum=65535
	MTU int `json:"mtu,omitempty"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	// +listType=atomic
	Subnets []Layer3Subnet `json:"subnets"`
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +listType=atomic
	JoinSubnets []CIDR `json:"joinSubnets,omitempty"`
}

// Layer3Subnet is a prefix, and the length of a node's part of it.
// +kubebuilder:validation:XValidation:rule="!has(self.hostSubnet) || !isCIDR(self.cidr) || self.hostSubnet > cidr(self.cidr).prefixLength()",message="hostSubnet is longer than cidr's length"
type Layer3Subnet struct {
	CIDR CIDR `json:"cidr"`
	// HostSubnet is 24, or 64 for IPv6, when not given.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=127
	HostSubnet int `json:"hostSubnet,omitempty"`
}

// Layer2Config is one switch for all nodes.
// +kubebuilder:validation:XValidation:rule="has(self.ipam) && has(self.ipam.mode) && self.ipam.mode == 'Disabled' ? !has(self.subnets) : has(self.subnets)",message="give subnets, or ipam.mode Disabled, and not both"
// +kubebuilder:validation:XValidation:rule="self.role != 'Primary' || !has(self.ipam) || !has(self.ipam.mode) || self.ipam.mode != 'Disabled'",message="ipam.mode Disabled is for role Secondary only"
// +kubebuilder:validation:XValidation:rule="!has(self.joinSubnets) || self.role == 'Primary'",message="joinSubnets is for role Primary only"
// +kubebuilder:validation:XValidation:rule="!has(self.defaultGatewayIPs) || self.role == 'Primary'",message="defaultGatewayIPs is for role Primary only"
// +kubebuilder:validation:XValidation:rule="!has(self.infrastructureSubnets) || self.role == 'Primary'",message="infrastructureSubnets is for role Primary only"
// +kubebuilder:validation:XValidation:rule="!has(self.reservedSubnets) || has(self.subnets)",message="reservedSubnets are parts of subnets: give those too"
// +kubebuilder:validation:XValidation:rule="!has(self.mtu) || self.mtu >= 1280 || !has(self.subnets) || !self.subnets.exists(s, isCIDR(s) && cidr(s).ip().family() == 6)",message="mtu is 1280 or more where a subnet is IPv6"
type Layer2Config struct {
	// +kubebuilder:validation:Enum=Primary;Secondary
	Role string `json:"role"`
	// +optional
	// +kubebuilder:validation:Minimum=576
	// +kubebuilder:validation:Maximum=65535
	MTU int `json:"mtu,omitempty"`
	// +optional
	Subnets CIDRs `json:"subnets,omitempty"`
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=25
	// +listType=atomic
	ReservedSubnets []CIDR `json:"reservedSubnets,omitempty"`
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	// +listType=atomic
	InfrastructureSubnets []CIDR `json:"infrastructureSubnets,omitempty"`
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	// +listType=atomic
	DefaultGatewayIPs []Address `json:"defaultGatewayIPs,omitempty"`
	// +optional
	JoinSubnets CIDRs `json:"joinSubnets,omitempty"`
	// +optional
	IPAM *IPAM `json:"ipam,omitempty"`
}

// LocalnetConfig is a wire outside.
// +kubebuilder:validation:XValidation:rule="has(self.ipam) && has(self.ipam.mode) && self.ipam.mode == 'Disabled' ? !has(self.subnets) : has(self.subnets)",message="give subnets, or ipam.mode Disabled, and not both"
// +kubebuilder:validation:XValidation:rule="!has(self.excludeSubnets) || has(self.subnets)",message="excludeSubnets are parts of subnets: give those too"
// +kubebuilder:validation:XValidation:rule="!has(self.mtu) || self.mtu >= 1280 || !has(self.subnets) || !self.subnets.exists(s, isCIDR(s) && cidr(s).ip().family() == 6)",message="mtu is 1280 or more where a subnet is IPv6"
type LocalnetConfig struct {
	// +kubebuilder:validation:Enum=Secondary
	Role string `json:"role"`
	// PhysicalNetworkName is a PhysicalNetwork's name.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[^,:]+$`
	PhysicalNetworkName string `json:"physicalNetworkName"`
	// +optional
	// +kubebuilder:validation:Minimum=576
	// +kubebuilder:validation:Maximum=65535
	MTU int `json:"mtu,omitempty"`
	// +optional
	Subnets CIDRs `json:"subnets,omitempty"`
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=25
	// +listType=atomic
	ExcludeSubnets []CIDR `json:"excludeSubnets,omitempty"`
	// +optional
	IPAM *IPAM `json:"ipam,omitempty"`
	// +optional
	VLAN *VLAN `json:"vlan,omitempty"`
}

// IPAM says whether the network gives addresses, and for how long.
// +kubebuilder:validation:XValidation:rule="!has(self.lifecycle) || self.lifecycle != 'Persistent' || !has(self.mode) || self.mode == 'Enabled'",message="lifecycle Persistent needs mode Enabled"
// +kubebuilder:validation:MinProperties=1
type IPAM struct {
	// Mode is Enabled when not given.
	// +optional
	// +kubebuilder:validation:Enum=Enabled;Disabled
	Mode string `json:"mode,omitempty"`
	// Lifecycle Persistent: addresses outlive a pod, held by an IPAMClaim.
	// +optional
	// +kubebuilder:validation:Enum=Persistent
	Lifecycle string `json:"lifecycle,omitempty"`
}

// VLAN of a localnet on the wire.
// +kubebuilder:validation:XValidation:rule="(self.mode == 'Access') == has(self.access)",message="give access with mode Access"
type VLAN struct {
	// +kubebuilder:validation:Enum=Access
	Mode string `json:"mode"`
	// +optional
	Access *AccessVLAN `json:"access,omitempty"`
}

// AccessVLAN is one VLAN, whose tag pods do not see.
type AccessVLAN struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4094
	ID int `json:"id"`
}

// CIDR is a prefix: "10.1.0.0/16".
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="not a prefix such as 10.1.0.0/16"
type CIDR string

// Address is an IP address.
// +kubebuilder:validation:MaxLength=39
// +kubebuilder:validation:XValidation:rule="isIP(self)",message="not an IP address"
type Address string

// CIDRs are prefixes, one a family.
//
// +listType=atomic
// +kubebuilder:validation:MinItems=1
// +kubebuilder:validation:MaxItems=2
// +kubebuilder:validation:XValidation:rule="size(self) != 2 || !isCIDR(self[0]) || !isCIDR(self[1]) || cidr(self[0]).ip().family() != cidr(self[1]).ip().family()",message="two subnets are of two families, IPv4 and IPv6"
type CIDRs []CIDR

// Status says what has become of the network.
type Status struct {
	// Conditions: NetworkCreated and NetworkReady.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
