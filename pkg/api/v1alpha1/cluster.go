package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// KindCluster is the kind of Cluster.
const KindCluster = "Cluster"

// Cluster is what all nodes agree on: the addressing plan and how the API server
// is reached. There is one, and its name does not matter. It is read from a file.
//
// +kubebuilder:skipversion
type Cluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterSpec `json:"spec"`
}

// ClusterSpec is the plan. Lists of prefixes have at most one element a family;
// a list left out takes the default named at its field.
type ClusterSpec struct {
	// APIServer is the URL at which every node reaches the API server, e.g.
	// https://172.18.0.3:6443: never the kubernetes Service, which needs us to work.
	// Empty: the kubeconfig given by flag names it.
	APIServer string `json:"apiServer,omitempty"`

	// Zone is "node" (default): every node is a zone of its own; or "global".
	Zone string `json:"zone,omitempty"`

	// Node names the node whose zone is rendered where no flag does: in scripts and
	// bug reports. Agents use --node-name.
	Node string `json:"node,omitempty"`

	// ClusterSubnets are the pods' prefixes, as CIDR/LENGTH, where LENGTH is the prefix
	// length of one node's subnet: 10.244.0.0/16/24. Without LENGTH: 24, or 64 for IPv6.
	// Several of one family are used in the order given.
	ClusterSubnets []string `json:"clusterSubnets"`

	// ServiceSubnets are the prefixes of ClusterIPs.
	ServiceSubnets []string `json:"serviceSubnets,omitempty"`

	// JoinSubnets hold the gateway routers' addresses; default 100.64.0.0/16, fd98::/64.
	JoinSubnets []string `json:"joinSubnets,omitempty"`

	// TransitSubnets hold the zones' addresses; default 100.88.0.0/16, fd97::/64.
	TransitSubnets []string `json:"transitSubnets,omitempty"`

	// MasqueradeSubnets are used inside each node; default 169.254.169.0/29, fd69::/125.
	MasqueradeSubnets []string `json:"masqueradeSubnets,omitempty"`

	// MTU of pod interfaces in bytes; default: each node's own, its NIC's less Geneve
	// (58 bytes over IPv4, 78 over IPv6). Offline, where there is no NIC: 1400.
	MTU int `json:"mtu,omitempty"`

	// PuntRate is how many packets a second of each kind may reach ovn-controller
	// on a node; default 25.
	PuntRate int `json:"puntRate,omitempty"`

	// Multicast on the default network; default off.
	Multicast bool `json:"multicast,omitempty"`

	// TransitKey is the tunnel key of the transit switch; default 16711683.
	TransitKey int `json:"transitKey,omitempty"`

	// Databases are the addresses, of nodes, on which the zone's databases are served
	// where zone is "global": one, or three or five that OVSDB keeps alike by raft.
	// NB is on port 6641, SB on 6642, raft on 6643 and 6644.
	Databases []string `json:"databases,omitempty"`

	// InsecureDatabases makes the databases of a global zone listen on plain TCP: who
	// reaches a port rules the network. Default: TLS, and both sides show certificates.
	InsecureDatabases bool `json:"insecureDatabases,omitempty"`

	// Datapath is OVS's: "system", the kernel's; or "netdev", userspace. Default: the
	// kernel's on a node whose kernel has it, else userspace.
	Datapath string `json:"datapath,omitempty"`

	Gateway GatewaySpec `json:"gateway,omitempty"`

	// MultiNetwork is who attaches pods to the networks that their annotation names:
	// "native" (default), Portolan in the runtime's one call; or "multus", which calls
	// Portolan once a network.
	MultiNetwork string `json:"multiNetwork,omitempty"`

	// NamespaceIsolation lets a pod name only network attachment definitions of its own
	// namespace, and of SharedNamespaces; default off.
	NamespaceIsolation bool `json:"namespaceIsolation,omitempty"`

	// Offload hands flows to NICs; left out: Open vSwitch's settings are not touched.
	Offload *OffloadSpec `json:"offload,omitempty"`

	// ManagementPort makes a function of a NIC the nodes' management port; left out: it is a
	// port of Open vSwitch's own, whose packets no NIC moves.
	ManagementPort *ManagementPortSpec `json:"managementPort,omitempty"`

	// SharedNamespaces are those whose definitions all pods may name where
	// namespaceIsolation is on.
	SharedNamespaces []string `json:"sharedNamespaces,omitempty"`
}

// OffloadSpec says where flows may be moved, and what OVN leaves out so that they can.
type OffloadSpec struct {
	// Mode is "off"; "hardware": in the NIC where it takes them, else in the kernel;
	// "hardware-only": TC holds only what a NIC takes; or "software": in TC, and never in a
	// NIC. It is Open vSwitch's hw-offload and tc-policy, which ovs-vswitchd reads when it starts.
	Mode string `json:"mode"`

	// NodeSelector chooses the nodes; default: all.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// PathMTU is who tells senders that a packet is too big for a pod: "router", OVN's,
	// which then check the length of each packet, or "route", the MTU of interfaces and
	// routes. Default: route where mode is hardware or hardware-only, else router.
	PathMTU string `json:"pathMTU,omitempty"`

	// InvalidConnections is "match" (default), or "deliver" for NICs that cannot match on
	// invalid connections: OVN then takes no notice of packets of such, in the whole zone.
	InvalidConnections string `json:"invalidConnections,omitempty"`

	// ObserveSeconds is the pause between two readings of a node's flows; default 30.
	ObserveSeconds int `json:"observeSeconds,omitempty"`
}

// ManagementPortSpec says which function is the management port: one of device and
// resourceName. Its NIC must be in switchdev mode, and no pod is given it.
type ManagementPortSpec struct {
	// Device by its id: a PCI address ("0000:03:00.2"), an auxiliary device's name, or a soft
	// device's ("soft-mp").
	Device string `json:"device,omitempty"`

	// ResourceName is that of DevicePools: the port is the first device of theirs that is
	// free on the node when one is looked for, by the pools' names, NICs and numbers.
	ResourceName string `json:"resourceName,omitempty"`

	// NodeSelector chooses the nodes; default: all.
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// GatewaySpec is how each node reaches the world outside.
type GatewaySpec struct {
	// Interface is the NIC; default: the one that has the default route.
	Interface string `json:"interface,omitempty"`

	// Bridge that holds the NIC; default br-ex.
	Bridge string `json:"bridge,omitempty"`

	// NextHops are the default gateways; default: those of the default routes.
	NextHops []string `json:"nextHops,omitempty"`

	// VLAN tag of the node's network on the NIC; 0: untagged.
	VLAN int `json:"vlan,omitempty"`

	// Takeover is "" to leave a NIC alone that a DHCP lease or a network daemon
	// holds, or "force".
	Takeover string `json:"takeover,omitempty"`

	// ExternalPortRange is SNAT's, "FIRST-LAST"; empty: not limited.
	ExternalPortRange string `json:"externalPortRange,omitempty"`
}
