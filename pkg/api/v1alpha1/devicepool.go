package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindDevicePool is the kind of DevicePool; its resource is devicepools.
const KindDevicePool = "DevicePool"

// DevicePool is a set of functions of NICs that pods ask for by a resource name: on each
// node that it selects, the agent makes the NICs that it selects what is asked for
// (functions, e-switch mode, drivers, MTU), and offers their functions to the kubelet. Of
// kind soft it makes veth pairs that play function and representor, on any machine.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=dpool,path=devicepools
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Resource",type=string,JSONPath=`.spec.resourceName`
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.spec.kind`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Devices",type=string,JSONPath=`.status.devices`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type DevicePool struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec DevicePoolSpec `json:"spec"`
	// +optional
	Status DevicePoolStatus `json:"status,omitempty"`
}

// PoolKind says what a pool's devices are made of.
// +kubebuilder:validation:Enum=nic;soft
type PoolKind string

// The kinds of pools.
const (
	NICPool  PoolKind = "nic"
	SoftPool PoolKind = "soft"
)

// DevicePoolSpec says which devices there are to be.
// +kubebuilder:validation:XValidation:rule="(self.kind == 'soft') == has(self.soft)",message="give soft, and it alone, for kind soft"
// +kubebuilder:validation:XValidation:rule="self.kind != 'soft' || !(has(self.nics) || has(self.vfs) || has(self.mode) || has(self.driver) || has(self.rdma) || has(self.tunnelInterface))",message="a soft pool has no NICs: take nics, vfs, mode, driver, rdma and tunnelInterface out"
// +kubebuilder:validation:XValidation:rule="self.kind == 'soft' || has(self.nics)",message="say by nics which NICs the pool is of"
type DevicePoolSpec struct {
	// NodeSelector chooses nodes by labels; nil: all.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// ResourceName that pods request, and that definitions name in their annotation
	// k8s.v1.cni.cncf.io/resourceName: "portolan.io/fast". Several pools may have one; a
	// device is in one pool.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`
	ResourceName string `json:"resourceName"`

	// Kind of devices; left out: nic.
	// +optional
	// +kubebuilder:default=nic
	Kind PoolKind `json:"kind,omitempty"`

	// NICs that the pool is of: each field that is given must match.
	// +optional
	NICs *NICSelector `json:"nics,omitempty"`

	// VFs that each NIC is to have; nil: as many as there are. Where pools share a NIC, the
	// most that one of them asks for.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1024
	VFs *int32 `json:"vfs,omitempty"`

	// Mode of the NICs' e-switch; left out: as it is.
	// +optional
	// +kubebuilder:validation:Enum=legacy;switchdev
	Mode string `json:"mode,omitempty"`

	// MTU of the NICs' own network devices, in bytes; of a soft pool that of its devices;
	// 0: as it is.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	MTU int32 `json:"mtu,omitempty"`

	// Driver of the functions: "netdevice" is the NIC's own, which makes network devices;
	// left out: as it is.
	// +optional
	// +kubebuilder:validation:Enum=netdevice;vfio-pci
	Driver string `json:"driver,omitempty"`

	// RDMA: containers get the RDMA device files of the functions; such without are unwell.
	// +optional
	RDMA bool `json:"rdma,omitempty"`

	// Soft devices of each node, for kind soft.
	// +optional
	Soft *SoftDevices `json:"soft,omitempty"`

	// TunnelInterface is the network device by whose address the tunnels of the pool's
	// devices begin; "uplink": that of the NIC that a device is of. Left out: the node's.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	TunnelInterface string `json:"tunnelInterface,omitempty"`

	// Trusted chooses the namespaces whose definitions may have trust on, and spoof check
	// off; nil: none.
	// +optional
	Trusted *metav1.LabelSelector `json:"trusted,omitempty"`

	// DryRun: nothing is changed and nothing offered; the status says what would be done.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// NICSelector chooses NICs (physical functions), and which of their functions. Its fields are those of the
// SR-IOV device plugin's selectors that say something of a NIC.
type NICSelector struct {
	// Vendors by PCI id: "15b3".
	// +optional
	// +listType=set
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{4}$`
	Vendors []string `json:"vendors,omitempty"`
	// Devices by PCI id, of the NIC or of its functions: "101d", "101e".
	// +optional
	// +listType=set
	// +kubebuilder:validation:items:Pattern=`^[0-9a-f]{4}$`
	Devices []string `json:"devices,omitempty"`
	// Drivers of the NIC itself: "mlx5_core".
	// +optional
	// +listType=set
	Drivers []string `json:"drivers,omitempty"`
	// PFNames of the NIC's network device, each with the numbers of the VFs that are meant,
	// if not all: "ens1f0", "ens1f0#0-3,6".
	// +optional
	// +listType=set
	PFNames []string `json:"pfNames,omitempty"`
	// RootDevices are addresses of NICs: "0000:03:00.0", with VFs as in pfNames.
	// +optional
	// +listType=set
	RootDevices []string `json:"rootDevices,omitempty"`
	// LinkTypes: "ether", "infiniband".
	// +optional
	// +listType=set
	// +kubebuilder:validation:items:Enum=ether;infiniband
	LinkTypes []string `json:"linkTypes,omitempty"`
}

// SoftDevices says how many there are.
type SoftDevices struct {
	// Count on each node.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=256
	Count int32 `json:"count"`
}

// DevicePoolStatus is folded by the manager from what nodes say.
type DevicePoolStatus struct {
	// Ready is "READY/SELECTED" nodes.
	// +optional
	Ready string `json:"ready,omitempty"`
	// Devices is "WELL/ALL" of all nodes.
	// +optional
	Devices string `json:"devices,omitempty"`
	// Nodes that it is selected for and is not ready on, or where it is dry run. At most 100.
	// +optional
	// +listType=map
	// +listMapKey=node
	Nodes []DevicePoolNode `json:"nodes,omitempty"`
	// Conditions: Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// DevicePoolNode is what one node has to say.
type DevicePoolNode struct {
	Node    string `json:"node"`
	Message string `json:"message"`
}

// NodeDevicePool is how a pool stands on one node, as observed: in NodeNetworkStatus.
type NodeDevicePool struct {
	Name string `json:"name"`
	// Ready: every NIC is as asked for, and the kubelet is registered with.
	Ready bool `json:"ready"`
	// Reason why not, in a word: Configuring, Waiting (for pods that have devices), Failed,
	// NoNIC, DryRun, Kubelet, Conflict.
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// Devices that there are, those of them that are well, and that pods have.
	Devices int32 `json:"devices"`
	Well    int32 `json:"well"`
	InUse   int32 `json:"inUse"`
	// Steps that are left to do, or that a dry run would do. At most 32.
	// +optional
	// +listType=atomic
	Steps []string `json:"steps,omitempty"`
}
