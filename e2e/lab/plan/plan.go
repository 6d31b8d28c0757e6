// Package plan answers: given the options of a lab, which machines are in it
// and which address, MAC and prefix does each of them have? It is arithmetic
// only: no I/O, and the same options give the same plan, so every command can
// recompute it instead of asking the running lab.
//
//	         172.18.0.0/16                     the second wire: nodes have no address there
//	client .100 ──┐                         ┌── eth1 of each node
//	   gw .1 ── br0 ── eth0 of each node    br1 ── wire     172.19.0.100/24, untagged
//	                   (.3 .2 .4 .5 …)      └── OVS ── wire100  172.19.100.100/24, VLAN 100
package plan

import (
	"fmt"
	"net/netip"
	"slices"
)

// Families a lab's pods, services and nodes may have.
const (
	IPv4 = "ipv4"
	IPv6 = "ipv6"
	Dual = "dual"
)

// CNI choices: Portolan from deploy/, a bridge as stand-in, or nothing.
const (
	Portolan = "portolan"
	StandIn  = "standin"
	NoCNI    = "none"
)

// Forms of Multus: a plugin by itself, or a daemon with a plugin that calls it.
const (
	Thin  = "thin"
	Thick = "thick"
)

// MaxNodes is how many nodes the address plan has room for on one machine.
const MaxNodes = 16

// Options is what a user chooses about a lab.
type Options struct {
	Nodes    int    `json:"nodes"`
	Zone     string `json:"zone"`     // "node" or "global": Portolan's database layout
	Families string `json:"families"` // IPv4, IPv6 or Dual
	CNI      string `json:"cni"`      // Portolan, StandIn or NoCNI
	// Databases is how many nodes serve the databases of zone "global": 1 or 3; else 0.
	Databases int  `json:"databases"`
	Insecure  bool `json:"insecure"` // they listen on plain TCP
	// Multus is the form in which Multus calls Portolan: Thin or Thick; empty: it is not there.
	Multus string `json:"multus"`
}

// Validate says what is wrong with o, what was found and what is possible.
func (o Options) Validate() error {
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return fmt.Errorf("nodes: asked for %d, a lab has 1 to %d", o.Nodes, MaxNodes)
	}
	for _, c := range []struct {
		name, value string
		allowed     []string
	}{
		{"zone", o.Zone, []string{"node", "global"}},
		{"families", o.Families, []string{IPv4, IPv6, Dual}},
		{"cni", o.CNI, []string{Portolan, StandIn, NoCNI}},
		{"multus", o.Multus, []string{"", Thin, Thick}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return fmt.Errorf("%s: asked for %q, choose one of %q", c.name, c.value, c.allowed)
		}
	}
	if o.Multus != "" && o.CNI != Portolan {
		return fmt.Errorf("multus: asked for %q over cni %q, which it does not know: choose --cni portolan", o.Multus, o.CNI)
	}
	if o.Zone != "global" {
		if o.Databases != 0 || o.Insecure {
			return fmt.Errorf("databases: asked for %d, insecure %t, but in zone %q every node has its own: choose --zone global", o.Databases, o.Insecure, o.Zone)
		}
		return nil
	}
	if o.Databases != 1 && o.Databases != 3 || o.Databases > o.Nodes {
		return fmt.Errorf("databases: asked for %d on %d nodes, choose 1, or 3 on as many nodes", o.Databases, o.Nodes)
	}
	return nil
}

// Host is a machine on the lab's outside network: the client, or a node's part there.
type Host struct {
	Name string
	MAC  string
	// Addrs are the addresses of eth0 with their prefix length, first family first.
	Addrs []netip.Prefix
}

// WireHost is a host on the lab's second wire, with both families whatever the
// cluster has.
type WireHost struct {
	Host
	VLAN int // that it is in; 0: untagged
}

// WireVLAN is the VLAN of the second outside host of the second wire.
const WireVLAN = 100

// Node is one Kubernetes node.
type Node struct {
	Host
	Number       byte   // the last byte of its addresses
	LANMAC       string // MAC of eth1, which has no address: it is for physical networks
	ControlPlane bool
	// PodCIDRs is what the stand-in CNI gives to this node. Portolan allocates its own.
	PodCIDRs []netip.Prefix
}

// IPs are the node's addresses without prefix length.
func (h Host) IPs() []netip.Addr {
	var out []netip.Addr
	for _, p := range h.Addrs {
		out = append(out, p.Addr())
	}
	return out
}

// Plan is a lab laid out.
type Plan struct {
	Options
	Machines     []Node // Machines[0] is the control plane
	Client       Host
	Wire         []WireHost     // the outside hosts of the second wire
	Gateways     []netip.Prefix // addresses of the bridge: default gateways that route nowhere
	PodCIDRs     []netip.Prefix
	ServiceCIDRs []netip.Prefix
}

// Of lays out a lab. o must be valid.
func Of(o Options) Plan {
	p := Plan{Options: o}
	pods := map[bool]netip.Prefix{true: netip.MustParsePrefix("10.244.0.0/16"), false: netip.MustParsePrefix("fd00:10:244::/48")}
	services := map[bool]netip.Prefix{true: netip.MustParsePrefix("10.96.0.0/16"), false: netip.MustParsePrefix("fd00:10:96::/112")}
	for _, v4 := range o.families() {
		p.PodCIDRs = append(p.PodCIDRs, pods[v4])
		p.ServiceCIDRs = append(p.ServiceCIDRs, services[v4])
	}
	p.Gateways = o.Addrs(1)
	p.Client = Host{Name: "client", MAC: mac(18, 100), Addrs: o.Addrs(100)}
	p.Wire = []WireHost{
		{Host{"wire", mac(19, 100), wireAddrs(0)}, 0},
		{Host{"wire100", mac(19, 101), wireAddrs(WireVLAN)}, WireVLAN},
	}
	for i := range o.Nodes {
		name, last := nodeAt(i)
		n := Node{Host: Host{Name: name, MAC: mac(18, last), Addrs: o.Addrs(last)}, ControlPlane: i == 0,
			Number: last, LANMAC: mac(19, last)}
		for _, v4 := range o.families() {
			n.PodCIDRs = append(n.PodCIDRs, podCIDR(v4, byte(i)))
		}
		p.Machines = append(p.Machines, n)
	}
	return p
}

// Node finds a node by name.
func (p Plan) Node(name string) (Node, error) {
	var names []string
	for _, n := range p.Machines {
		if n.Name == name {
			return n, nil
		}
		names = append(names, n.Name)
	}
	return Node{}, fmt.Errorf("node %q: not in this lab, which has %q", name, names)
}

// DatabaseServers are the addresses of the nodes that serve a global zone's databases.
func (p Plan) DatabaseServers() []netip.Addr {
	var out []netip.Addr
	for _, n := range p.Machines[:p.Databases] {
		out = append(out, n.IPs()[0])
	}
	return out
}

// API is the address on which the kube-apiserver is reached by everything.
func (p Plan) API() netip.AddrPort {
	return netip.AddrPortFrom(p.Machines[0].IPs()[0], 6443)
}

// MTU of the lab's NICs, in bytes.
const MTU = 1500

// PodMTU is the NICs' less what Geneve adds, in bytes: 58 over IPv4, 78 over IPv6,
// which carries the tunnels where nodes have no other.
func (o Options) PodMTU() int {
	if o.families()[0] {
		return MTU - 58
	}
	return MTU - 78
}

// families lists the lab's families in order; true is IPv4.
func (o Options) families() []bool {
	return map[string][]bool{IPv4: {true}, IPv6: {false}, Dual: {true, false}}[o.Families]
}

// Addrs gives the outside addresses of the host numbered last.
func (o Options) Addrs(last byte) []netip.Prefix {
	var out []netip.Prefix
	for _, v4 := range o.families() {
		if v4 {
			out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 18, 0, last}), 16))
			continue
		}
		a := netip.MustParseAddr("fc00:f853:ccd:e793::").As16()
		a[15] = last
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(a), 64))
	}
	return out
}

// wireAddrs are the addresses of the second wire's host in a VLAN.
func wireAddrs(vlan byte) []netip.Prefix {
	v6 := netip.MustParseAddr("fd00:172:19::100").As16()
	v6[7] = vlan
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 19, vlan, 100}), 24), netip.PrefixFrom(netip.AddrFrom16(v6), 64)}
}

// OnlyNetwork lists the hosts that are nothing but a network namespace.
func (p Plan) OnlyNetwork() []string {
	names := []string{p.Client.Name}
	for _, w := range p.Wire {
		names = append(names, w.Name)
	}
	return names
}

// nodeAt names the node and gives its last address byte, as kind with three
// nodes on Docker does: the control plane happens to be .3 and the first worker .2.
func nodeAt(i int) (string, byte) {
	switch i {
	case 0:
		return "ovn-control-plane", 3
	case 1:
		return "ovn-worker", 2
	}
	return fmt.Sprintf("ovn-worker%d", i), byte(i + 2)
}

func podCIDR(v4 bool, i byte) netip.Prefix {
	if v4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, i, 0}), 24)
	}
	a := netip.MustParseAddr("fd00:10:244::").As16()
	a[7] = i
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// mac follows Docker: 02:42 and the IPv4 address. A node that reboots keeps it,
// so that neighbours' ARP entries stay right.
func mac(net, last byte) string { return fmt.Sprintf("02:42:ac:%02x:00:%02x", net, last) }
