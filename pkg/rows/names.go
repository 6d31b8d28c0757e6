package rows

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"strings"
)

// Names of logical things follow OVN-Kubernetes, because operators and their
// tools know them.
const (
	ClusterRouter = "ovn_cluster_router"
	JoinSwitch    = "join"
	TransitSwitch = "transit_switch"
)

// GatewayRouter, ExternalSwitch, MgmtLSP and LocalnetPort name what a node has.
func GatewayRouter(node string) string { return "GR_" + node }

// ExternalSwitch is the switch between a gateway router and the physical network.
func ExternalSwitch(node string) string { return "ext_" + node }

// MgmtLSP is the logical port of a node's management interface.
func MgmtLSP(node string) string { return "k8s-" + node }

// TunnelChassis is the chassis that stands, in other zones, for a node's tunnel address
// beside its first, whose chassis is the node's own.
func TunnelChassis(chassis string, encap netip.Addr) string { return chassis + "/" + encap.String() }

// LocalnetPort is the logical port that stands for a bridge's physical network.
func LocalnetPort(bridge, node string) string { return bridge + "_" + node }

// PodPort is the logical port of a pod's interface on the default network.
func PodPort(namespace, pod string) string { return namespace + "_" + pod }

// NetworkPrefix begins the name of everything that belongs to a network, or to a
// definition "namespace/name": OVN-Kubernetes' form, in which different names may
// come out alike. The default network's is empty.
func NetworkPrefix(name string) string {
	if name == "default" {
		return ""
	}
	return strings.NewReplacer("-", ".", "/", ".").Replace(name) + "_"
}

// AttachmentPort is the logical port of a pod's interface; key is the attachment's:
// "default" or "namespace/definition[/index]".
func AttachmentPort(key, namespace, pod string) string {
	return NetworkPrefix(key) + PodPort(namespace, pod)
}

// Layer2Switch is the one switch of a layer2 network.
func Layer2Switch(network string) string { return NetworkPrefix(network) + "ovn_layer2_switch" }

// LocalnetSwitch is the one switch of a localnet network.
func LocalnetSwitch(network string) string { return NetworkPrefix(network) + "ovn_localnet_switch" }

// LocalnetSwitchPort joins a localnet network's switch to its physical network.
func LocalnetSwitchPort(network string) string {
	return NetworkPrefix(network) + "ovn_localnet_port"
}

// NodeSwitch is a layer3 network's switch of a node.
func NodeSwitch(network, node string) string { return NetworkPrefix(network) + node }

// MAC is the address that goes with an IP: 0a:58 and the four bytes of an IPv4
// address, or the first four bytes of the SHA-256 of an IPv6 address's text.
func MAC(ip netip.Addr) string {
	var b [4]byte
	if ip.Is4() {
		b = ip.As4()
	} else {
		sum := sha256.Sum256([]byte(ip.String()))
		copy(b[:], sum[:4])
	}
	return fmt.Sprintf("0a:58:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3])
}

// Nth is the n-th address of a prefix, counted from its network address, with
// the prefix's length. It is not ok when the prefix has no such address.
func Nth(p netip.Prefix, n int) (netip.Prefix, bool) {
	addr := p.Masked().Addr()
	raw := addr.AsSlice()
	for i := len(raw) - 1; i >= 0 && n > 0; i-- {
		n += int(raw[i])
		raw[i] = byte(n)
		n >>= 8
	}
	out, _ := netip.AddrFromSlice(raw)
	return netip.PrefixFrom(out, p.Bits()), n == 0 && p.Contains(out)
}
