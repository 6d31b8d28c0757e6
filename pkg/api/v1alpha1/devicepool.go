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

// Uplink is the word for a NIC's own network device in spec.tunnelInterface.
const Uplink = "uplink"

// DevicePoolSpec says which devices there are to be.
// +kubebuilder:validation:XValidation:rule="(self.kind == 'soft') == has(self.soft)",message="give soft, and it alone, for kind soft"
// +kubebuilder:validation:XValidation:rule="self.kind != 'soft' || !(has(self.nics) || has(self.vfs) || has(self.mode) || has(self.driver) || has(self.rdma) && self.rdma)",message="a soft pool has no NICs: take nics, vfs, mode, driver and rdma out"
// +kubebuilder:validation:XValidation:rule="self.kind != 'soft' || !has(self.tunnelInterface) || self.tunnelInterface != 'uplink'",message="soft devices are of no NIC, which uplink would be: give tunnelInterface the name of a network device"
// +kubebuilder:validation:XValidation:rule="self.kind == 'soft' || has(self.nics)",message="say by nics which NICs the pool is of"
// +kubebuilder:validation:XValidation:rule="!has(self.driver) || self.driver != 'vfio-pci' || !has(self.rdma) || !self.rdma",message="a function with the driver vfio-pci has no RDMA device: take rdma out, or give driver netdevice"
type DevicePoolSpec struct {
	// NodeSelector chooses nodes by labels; nil: all.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['Exists', 'DoesNotExist'] ? !has(e.values) || e.values.size() == 0 : e.operator in ['In', 'NotIn'] && has(e.values) && e.values.size() > 0)",message="an operator is In or NotIn, with values, or Exists or DoesNotExist, without"
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// ResourceName that pods request, and that definitions name in their annotation
	// k8s.v1.cni.cncf.io/resourceName: "portolan.io/fast". Several pools may have one; a
	// device is in one pool.
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')",message="give a domain and a name, as portolan.io/fast: the domain in lower case, the name of letters, digits, '-', '_' and '.', at most 63"
	// +kubebuilder:validation:XValidation:rule="!self.contains('kubernetes.io/') && !self.startsWith('requests.')",message="the kubelet takes no device of the domain kubernetes.io, or of one that begins with requests: give a domain of your own, as portolan.io/fast"
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
	// devices begin; "uplink": that of the NIC that a device is of, which a soft one is not.
	// Left out: the node's.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	TunnelInterface string `json:"tunnelInterface,omitempty"`

	// Trusted chooses the namespaces whose definitions may have trust on, and spoof check
	// off; nil: none.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['Exists', 'DoesNotExist'] ? !has(e.values) || e.values.size() == 0 : e.operator in ['In', 'NotIn'] && has(e.values) && e.values.size() > 0)",message="an operator is In or NotIn, with values, or Exists or DoesNotExist, without"
	Trusted *metav1.LabelSelector `json:"trusted,omitempty"`

	// DryRun: nothing is changed and nothing offered; the status says what would be done.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// NICSelector chooses NICs (physical functions), and which of their functions. Its fields are those of the
// SR-IOV device plugin's selectors that say something of a NIC.
// +kubebuilder:validation:XValidation:rule="has(self.vendors) || has(self.devices) || has(self.drivers) || has(self.pfNames) || has(self.rootDevices) || has(self.linkTypes)",message="give at least one of vendors, devices, drivers, pfNames, rootDevices and linkTypes: a pool of every NIC of a node is not made"
type NICSelector struct {
	// Vendors by PCI id: "15b3".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=16
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[0-9a-f]{4}$')",message="give 4 hex digits in lower case, as 15b3"
	Vendors []string `json:"vendors,omitempty"`
	// Devices by PCI id, of the NIC or of its functions: "101d", "101e".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=16
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[0-9a-f]{4}$')",message="give 4 hex digits in lower case, as 15b3"
	Devices []string `json:"devices,omitempty"`
	// Drivers of the NIC itself: "mlx5_core".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=64
	Drivers []string `json:"drivers,omitempty"`
	// PFNames of the NIC's network device, each with the numbers of the VFs that are meant,
	// if not all: "ens1f0", "ens1f0#0-3,6".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=40
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[^#/ ]{1,15}(#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$')",message="give the network device of a NIC, and after # the numbers of its VFs if not all are meant, as ens1f0 or ens1f0#0-3,6"
	// +kubebuilder:validation:items:XValidation:rule="!self.matches('^[^#/ ]{1,15}(#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$') || !self.contains('#') || self.split('#')[1].split(',').map(r, r.contains('-') ? [int(r.split('-')[0]), int(r.split('-')[1])] : [int(r), int(r)]).all(r, r[0] <= r[1])",message="a range of VFs runs backwards: give the lower number first, as #1-3"
	// +kubebuilder:validation:items:XValidation:rule="!self.matches('^[^#/ ]{1,15}(#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$') || !self.contains('#') || [self.split('#')[1].split(',').map(r, r.contains('-') ? [int(r.split('-')[0]), int(r.split('-')[1])] : [int(r), int(r)])].all(rs, rs.exists(a, a[0] > a[1]) || rs.all(a, rs.filter(b, a[0] <= b[1] && b[0] <= a[1]).size() == 1))",message="a VF is named twice: give each number once, as #0-3,6"
	PFNames []string `json:"pfNames,omitempty"`
	// RootDevices are addresses of NICs: "0000:03:00.0", with VFs as in pfNames.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=40
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}[.][0-7](#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$')",message="give the PCI address of a NIC, and after # the numbers of its VFs if not all are meant, as 0000:03:00.0 or 0000:03:00.0#0-3,6"
	// +kubebuilder:validation:items:XValidation:rule="!self.matches('^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}[.][0-7](#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$') || !self.contains('#') || self.split('#')[1].split(',').map(r, r.contains('-') ? [int(r.split('-')[0]), int(r.split('-')[1])] : [int(r), int(r)]).all(r, r[0] <= r[1])",message="a range of VFs runs backwards: give the lower number first, as #1-3"
	// +kubebuilder:validation:items:XValidation:rule="!self.matches('^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}[.][0-7](#[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*)?$') || !self.contains('#') || [self.split('#')[1].split(',').map(r, r.contains('-') ? [int(r.split('-')[0]), int(r.split('-')[1])] : [int(r), int(r)])].all(rs, rs.exists(a, a[0] > a[1]) || rs.all(a, rs.filter(b, a[0] <= b[1] && b[0] <= a[1]).size() == 1))",message="a VF is named twice: give each number once, as #0-3,6"
	RootDevices []string `json:"rootDevices,omitempty"`
	// LinkTypes: "ether", "infiniband".
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
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

// The reasons of a NodeDevicePool that is not ready.
const (
	// PoolConfiguring: steps are being done.
	PoolConfiguring = "Configuring"
	// PoolWaiting: steps wait for pods that have devices of the NIC.
	PoolWaiting = "Waiting"
	// PoolFailed: a step has failed, or the pool cannot be used as it is written.
	PoolFailed = "Failed"
	// PoolNoNIC: the node has no NIC that the pool selects.
	PoolNoNIC = "NoNIC"
	// PoolDryRun: the steps are what would be done.
	PoolDryRun = "DryRun"
	// PoolKubelet: the kubelet does not answer, or has refused the resource.
	PoolKubelet = "Kubelet"
	// PoolConflict: another pool, or the node's own network, has what this one asks for.
	PoolConflict = "Conflict"
)

// MaxPoolSteps bounds NodeDevicePool.Steps.
const MaxPoolSteps = 32

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
	// ObservedGeneration of the pool that this is said of; 0: not known.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Devices that there are, those of them that are well, and that pods have.
	Devices int32 `json:"devices"`
	Well    int32 `json:"well"`
	InUse   int32 `json:"inUse"`
	// Steps that are left to do, or that a dry run would do. At most 32.
	// +optional
	// +listType=atomic
	Steps []string `json:"steps,omitempty"`
}
