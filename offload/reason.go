package offload

// Code names why a flow, an interface or a node is not in hardware. Codes are part of
// what users rely on: one is never given another meaning.
type Code string

// The codes. Reasons says of each what it means and what helps.
const (
	UserspaceDatapath Code = "userspace-datapath"
	NoFlower          Code = "no-tc-flower"
	HWOffloadOff      Code = "hw-offload-off"
	RestartNeeded     Code = "restart-needed"
	TCPolicy          Code = "tc-policy"

	NoDevice         Code = "no-device"
	DeviceGone       Code = "device-gone"
	InternalPort     Code = "internal-port"
	NoESwitch        Code = "no-eswitch"
	LegacyMode       Code = "legacy-mode"
	FeatureOff       Code = "feature-off"
	UplinkFeatureOff Code = "uplink-feature-off"
	PortPriority     Code = "port-priority"

	EgressVeth        Code = "egress-veth"
	EgressInternal    Code = "egress-internal"
	EgressOtherSwitch Code = "egress-other-switch"
	EgressNoDevice    Code = "egress-no-device"
	TunnelUnderlay    Code = "tunnel-underlay"
	EncapOff          Code = "encap-off"

	MatchUnsupported Code = "match-unsupported"
	DPHash           Code = "dp-hash"
	CTInvalid        Code = "ct-invalid"
	Fragment         Code = "fragment"
	ChainNumber      Code = "chain-number"

	Sampling          Code = "sample"
	Controller        Code = "controller"
	SlowPath          Code = "slow-path"
	HashAction        Code = "hash"
	CheckPktLen       Code = "check-pkt-len"
	CTHelper          Code = "ct-helper"
	ActionUnsupported Code = "action-unsupported"
	TooManyActions    Code = "too-many-actions"

	NoRecircSharing Code = "no-recirc-sharing"
	NoCTAction      Code = "no-ct-action"
	EarlierStage    Code = "earlier-stage"

	ICMPConntrack Code = "icmp-conntrack"
	CTProtocol    Code = "ct-protocol"
	ConnectionNew Code = "connection-new"

	PartialOnly   Code = "partial"
	TooYoung      Code = "too-young"
	TCRefused     Code = "tc-refused"
	DriverRefused Code = "driver-refused"
)

// Explanation is what a code means, and its cure.
type Explanation struct {
	Code    Code   `json:"code"`
	Meaning string `json:"meaning"`
	Cure    string `json:"cure"`
}

// Explain says what a code means; the zero Explanation for one that is none.
func Explain(c Code) Explanation {
	for _, e := range Reasons() {
		if e.Code == c {
			return e
		}
	}
	return Explanation{}
}

// Reasons lists every code, from what holds for a node to what holds for one flow.
func Reasons() []Explanation {
	return append(append(nodeReasons(), deviceReasons()...), flowReasons()...)
}

func nodeReasons() []Explanation {
	return []Explanation{
		{UserspaceDatapath, "Open vSwitch moves packets itself: its bridges are of datapath type netdev, which hands no flow to TC.",
			"Run a kernel with the openvswitch module, and leave spec.datapath of the Cluster file out or set it to system."},
		{NoFlower, "The kernel has no cls_flower, so TC cannot hold flows.",
			"Boot a kernel with CONFIG_NET_CLS_FLOWER, or install its modules."},
		{HWOffloadOff, "Open vSwitch is not told to offload: other_config:hw-offload is not true.",
			"Set spec.offload.mode to hardware in the Cluster file, and restart ovs-vswitchd on the node."},
		{RestartNeeded, "Open vSwitch is told to offload, and ovs-vswitchd does not: it reads the setting when it starts.",
			"Delete the node's ovs-node pod, in a maintenance window: packets stop while ovs-vswitchd starts."},
		{TCPolicy, "tc-policy is skip_hw: flows go to TC in software by order.",
			"Set spec.offload.mode to hardware in the Cluster file, and restart ovs-vswitchd on the node."},
	}
}

func deviceReasons() []Explanation {
	return []Explanation{
		{NoDevice, "The interface is a veth pair or another device of software: no NIC is behind it.",
			"Let the pod request a device of a DevicePool, and its definition name the resource."},
		{DeviceGone, "Open vSwitch has a port for a device that is not there.",
			"Delete the pod; if it stays, look at the NIC's functions and its driver's log."},
		{InternalPort, "The port is Open vSwitch's own, and its packets begin in the kernel.",
			"None for pods; give the management port a function of the NIC if its traffic must be offloaded."},
		{NoESwitch, "The device is of a NIC, but is no representor: its driver offers no e-switch, or the function itself is the port.",
			"Use a NIC that can be in switchdev mode, and attach the representor."},
		{LegacyMode, "The NIC's e-switch is in legacy mode.",
			"Switch it: a DevicePool with mode switchdev, or devlink dev eswitch set DEV mode switchdev."},
		{FeatureOff, "hw-tc-offload is off on the representor, or its driver has none.",
			"ethtool -K REPRESENTOR hw-tc-offload on; a DevicePool does it."},
		{UplinkFeatureOff, "hw-tc-offload is off on the NIC's own port.",
			"ethtool -K NIC hw-tc-offload on; a DevicePool does it."},
		{PortPriority, "hw-offload-priority of the port, or of Open vSwitch, is none: it is kept out of offload by order.",
			"Remove other_config:hw-offload-priority from the Interface."},
		{EgressVeth, "Packets leave to a veth pair: a pod without a device is at the other end.",
			"Give both pods devices; what goes to a pod on a veth pair is software."},
		{EgressInternal, "Packets leave to a port of Open vSwitch's own: the management port or a bridge's.",
			"None for traffic of the node itself; give the management port a function of the NIC."},
		{EgressOtherSwitch, "Packets leave by a device of another e-switch: another NIC, or the other port of one that is not bonded.",
			"Take both devices from one NIC, or bond its ports (VF LAG), both in switchdev mode before."},
		{EgressNoDevice, "Packets leave by a port without a device of the kernel, or by a NIC without an e-switch.",
			"Let the bridge have the uplink of the e-switch that the function is of."},
		{TunnelUnderlay, "The tunnel's packets do not leave, or come, by the uplink of the function's e-switch.",
			"Put the tunnel address (ovn-encap-ip) on the NIC that has the functions, not on another NIC or a VLAN device of one."},
		{EncapOff, "The NIC's e-switch is told not to do tunnels: devlink's encap-mode is none.",
			"devlink dev eswitch set DEV encap-mode basic, before functions are made."},
	}
}

func flowReasons() []Explanation {
	return []Explanation{
		{MatchUnsupported, "The flow matches on something that TC's flower has no key for; the detail names it.",
			"Find which rule matches on it: portolan ovn trace. A mark or priority of the kernel's comes from the node's own rules."},
		{DPHash, "The flow matches on dp_hash, that of a choice among backends or routes by the datapath's hash.",
			"None: only a connection's first packet meets it; load balancers with selection_fields have none."},
		{CTInvalid, "The flow matches on connections that are invalid, which this NIC cannot.",
			"Set spec.offload.invalidConnections to deliver in the Cluster file: OVN then matches on no invalid connection, and such packets are delivered."},
		{Fragment, "The flow is of fragments, whose headers TC cannot rewrite, or not of IPv6 at all.",
			"Send packets that fit the MTU."},
		{ChainNumber, "The flow's recirculation id is above 2^28, which TC's chains cannot have.",
			"Restart ovs-vswitchd: its ids begin anew."},
		{Sampling, "Packets are sampled: sFlow, IPFIX, a mirror's sample or ACL sampling.",
			"Switch sampling off for this traffic."},
		{Controller, "Packets go to ovn-controller: a log, a reject, an ARP or DNS answer, a learned neighbour.",
			"Take the log off ACLs of this traffic; what OVN answers itself it answers in software."},
		{SlowPath, "Every packet of the flow is handled by ovs-vswitchd; the detail says why.",
			"The detail names it: a controller, BFD, LACP, or a match that the datapath cannot do."},
		{HashAction, "The datapath computes a hash to choose a backend or a route.",
			"None: only a connection's first packet meets it; load balancers with selection_fields choose without one, at a flow for each client."},
		{CheckPktLen, "The packet's length is checked before a router port, which gateway_mtu asks for.",
			"Set spec.offload.pathMTU to route in the Cluster file: the routers of offloaded nodes then check no lengths."},
		{CTHelper, "Connections are followed by a helper (ftp, tftp), which TC cannot.",
			"Leave out the helper for this traffic."},
		{ActionUnsupported, "The flow has an action that TC cannot do, or rewrites a field that it cannot; the detail names it.",
			"Find which rule asks for it: portolan ovn trace."},
		{TooManyActions, "The flow has more actions than TC takes, 32.",
			"Fewer outputs: a multicast or broadcast to many ports is software."},
		{NoRecircSharing, "TC and the openvswitch module of this kernel cannot hand packets to each other between stages, so connection tracking stays out of TC.",
			"Boot a kernel with CONFIG_NET_TC_SKB_EXT (Debian's and its like have it off)."},
		{NoCTAction, "The kernel has no act_ct, so TC cannot track connections.",
			"Boot a kernel with CONFIG_NET_ACT_CT, or install its modules."},
		{EarlierStage, "An earlier stage of the same packets is not in TC, and TC takes no later one then.",
			"Look at the reason of the earlier stage, which is listed too."},
		{ICMPConntrack, "ICMP through connection tracking is not offloaded by any NIC: a ping shows nothing.",
			"Judge by TCP or UDP."},
		{CTProtocol, "Only connections of TCP and UDP are offloaded.",
			"None."},
		{ConnectionNew, "The packets begin connections: TC takes over when they are established.",
			"None: this is so for a connection's first packets."},
		{PartialOnly, "The NIC only classifies, and ovs-vswitchd acts.",
			"Use actions that the NIC's rte_flow driver can do; the log of ovs-vswitchd names the one that it cannot."},
		{TooYoung, "The flow was made after the reading before, and may still move.",
			"Look again."},
		{TCRefused, "Nothing is known that stands against it, and the flow is not in TC: the kernel has refused it, or has not been asked.",
			"See ovs-vswitchd's log for \"failed to offload flow\"; ovs-appctl vlog/set netdev_offload_tc:dbg shows each refusal."},
		{DriverRefused, "The flow is in TC and the NIC's driver has not taken it.",
			"See the kernel's log, or tc's messages with OVS's log at debug; the NIC's tables may be full, or its firmware old."},
	}
}
