package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindNodeNetwork is the kind of NodeNetwork; its resource is nodenetworks.
const KindNodeNetwork = "NodeNetwork"

// NodeNetwork is what a node's agent says of the network on its node: what it
// found, what waits, and what is wrong there and nowhere else. There is one for
// each Node, of the Node's name and owned by it. Only that node's agent writes it,
// at most once in 5 s and only when something has changed, so a restart on an
// unchanged cluster writes nothing. It is no sign of life: a node that is gone says nothing more.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=nn,path=nodenetworks
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.status.zone`
// +kubebuilder:printcolumn:name="Datapath",type=string,JSONPath=`.status.datapath`
// +kubebuilder:printcolumn:name="Problems",type=integer,JSONPath=`.status.problemCount`
// +kubebuilder:printcolumn:name="Waiting",type=integer,JSONPath=`.status.waitingCount`,priority=1
// +kubebuilder:printcolumn:name="Subnets",type=string,JSONPath=`.status.allocation.subnets`,priority=1
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type NodeNetwork struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +optional
	Status NodeNetworkStatus `json:"status,omitempty"`
}

// Condition is a condition in a status of this group, for those who know no other type
// of Kubernetes.
type Condition = metav1.Condition

// The conditions of a NodeNetwork, and their reasons.
const (
	// ConditionReady is True when pods can start on the node.
	ConditionReady = "Ready"

	// ConditionOffload is there where the Cluster file has the node's flows offloaded: True
	// when ovs-vswitchd hands them on. Its other reasons are codes of docs/features/offload.md.
	ConditionOffload = "Offload"
	// ReasonOffloading: flows are handed on; where each pod's are, portolan offload says.
	ReasonOffloading = "Offloading"

	// ReasonReady: the node's unit is installed and the runtime has been told.
	ReasonReady = "Ready"
	// ReasonStarting: the agent is on its way, or waits for what its message names.
	ReasonStarting = "Starting"
	// ReasonRefused: the agent does not start on this machine; its message says what
	// to change. Nothing of the machine has been changed.
	ReasonRefused = "Refused"
	// ReasonFailed: the agent has ended by an error and is started again.
	ReasonFailed = "Failed"
)

// The bounds of a NodeNetwork's lists: an object of etcd has room for so much. The
// counts beside the lists are of all.
const (
	MaxNodeProblems = 100
	MaxWaitingUnits = 100
)

// NodeNetworkStatus is all there is of a NodeNetwork: nobody asks anything of it.
type NodeNetworkStatus struct {
	// Zone whose logical network the node is rendered in: the node's name where each node is a zone.
	// +optional
	Zone string `json:"zone,omitempty"`

	// Datapath of Open vSwitch on the node: "system", the kernel's, or "netdev", userspace.
	// +optional
	Datapath string `json:"datapath,omitempty"`

	// DatapathReason says why that one.
	// +optional
	DatapathReason string `json:"datapathReason,omitempty"`

	// Chassis is the node's name in OVN, Open vSwitch's system-id.
	// +optional
	Chassis string `json:"chassis,omitempty"`

	// NIC that reaches the world outside, and the bridge that it is in.
	// +optional
	NIC string `json:"nic,omitempty"`
	// +optional
	Bridge string `json:"bridge,omitempty"`

	// EncapIPs are the addresses that the node's tunnels end at.
	// +optional
	// +listType=atomic
	EncapIPs []string `json:"encapIPs,omitempty"`

	// PodMTU is that of the node's pods, in bytes.
	// +optional
	PodMTU int `json:"podMTU,omitempty"`

	// Allocation is what the node's pods live with. It goes before annotations of the
	// Node that somebody has edited while no portolan-manager led. It is kept when the
	// agent does not know it yet; nil: the node has been given nothing.
	// +optional
	Allocation *NodeAllocation `json:"allocation,omitempty"`

	// Version of the agent that wrote this.
	// +optional
	Version string `json:"version,omitempty"`

	// PhysicalNetworks that the node is selected for.
	// +optional
	// +listType=map
	// +listMapKey=name
	PhysicalNetworks []NodePhysicalNetwork `json:"physicalNetworks,omitempty"`

	// DevicePools that the node is selected for, as observed.
	// +optional
	// +listType=map
	// +listMapKey=name
	DevicePools []NodeDevicePool `json:"devicePools,omitempty"`

	// Databases that the agent writes to.
	// +optional
	// +listType=map
	// +listMapKey=name
	Databases []DatabaseStatus `json:"databases,omitempty"`

	// Waiting lists units that are not written because something is missing or was
	// refused, once they have waited for some seconds. At most 100.
	// +optional
	// +listType=atomic
	Waiting []WaitingUnit `json:"waiting,omitempty"`

	// WaitingCount is how many wait.
	WaitingCount int `json:"waitingCount"`

	// Problems with objects that show on this node and perhaps on no other. At most 100.
	// +optional
	// +listType=atomic
	Problems []ObjectProblem `json:"problems,omitempty"`

	// ProblemCount is how many there are.
	ProblemCount int `json:"problemCount"`

	// Conditions: Ready, and Offload where it is asked for.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeAllocation is the id and the subnets that a node's agent runs with.
type NodeAllocation struct {
	// NodeUID of the Node that was given them: one that is registered under its name
	// later has no part in them.
	NodeUID string `json:"nodeUID"`
	// NodeID, 2 to 5000.
	NodeID int `json:"nodeID"`
	// Subnets of the default network, one of each family, IPv4 first.
	// +listType=atomic
	Subnets []string `json:"subnets"`
}

// NodePhysicalNetwork is a PhysicalNetwork on one node.
type NodePhysicalNetwork struct {
	// Name of the PhysicalNetwork.
	Name string `json:"name"`
	// Bridge that it is mapped to.
	// +optional
	Bridge string `json:"bridge,omitempty"`
	// Ready: the bridge is there, with its NIC, and mapped.
	Ready bool `json:"ready"`
	// Message says why it is not.
	// +optional
	Message string `json:"message,omitempty"`
}

// SetReady says that pods can start on the node, in its one condition.
func (s *NodeNetworkStatus) SetReady() {
	s.Conditions = []metav1.Condition{{Type: ConditionReady, Status: metav1.ConditionTrue, Reason: ReasonReady}}
}

// SetNotReady says why none can.
func (s *NodeNetworkStatus) SetNotReady(reason, message string) {
	s.Conditions = []metav1.Condition{{Type: ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: message}}
}

// NotReady is why no pod can start; ok is false when they can, or nothing is said.
func (s *NodeNetworkStatus) NotReady() (reason, message string, ok bool) {
	for _, c := range s.Conditions {
		if c.Type == ConditionReady && c.Status == metav1.ConditionFalse {
			return c.Reason, c.Message, true
		}
	}
	return "", "", false
}

// DatabaseStatus is one database as the agent sees it.
type DatabaseStatus struct {
	// Name is NB, SB or OVS.
	Name string `json:"name"`

	// Up is true while the agent is connected and may write.
	Up bool `json:"up"`

	// Message says why it is not up.
	// +optional
	Message string `json:"message,omitempty"`
}

// WaitingUnit is a group of rows that is not written yet.
type WaitingUnit struct {
	// Unit is the group's name: "pod/NAMESPACE/NAME", "node/NAME", "cluster/.", "vswitch/NAME".
	Unit string `json:"unit"`

	// Database that it is to be written to.
	Database string `json:"database"`

	// Cause says on what it waits, or what the database answered.
	Cause string `json:"cause"`

	// Since is when its waiting was first seen; it outlives restarts of the agent.
	Since metav1.Time `json:"since"`
}

// The severities of an ObjectProblem.
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
	// SeverityRepaired is told for a while of what the node has set right by itself.
	SeverityRepaired = "repaired"
)

// ObjectProblem is something wrong with what somebody asked for.
type ObjectProblem struct {
	// Object is the kind and the name: "Pod/NAMESPACE/NAME", "Node/NAME".
	Object string `json:"object"`

	// Field at fault, as its writer wrote it.
	// +optional
	Field string `json:"field,omitempty"`

	// Severity: an error leaves something that was asked for undone; repaired is what was
	// not as it should be, and is now.
	// +kubebuilder:validation:Enum=error;warning;repaired
	Severity string `json:"severity"`

	// Message says what was asked, what was found and what to do.
	Message string `json:"message"`
}
