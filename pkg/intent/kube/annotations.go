package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// The annotations that Portolan shares with OVN-Kubernetes' users and tools.
// One writer each: the first two the allocator in portolan-manager, the others
// the agent of the node, or of the node that the pod is on.
const (
	AnnotationNodeID      = "k8s.ovn.org/node-id"
	AnnotationNodeSubnets = "k8s.ovn.org/node-subnets"
	AnnotationChassisID   = "k8s.ovn.org/node-chassis-id"
	AnnotationEncapIPs    = "k8s.ovn.org/node-encap-ips"
	AnnotationMgmtMACs    = "k8s.ovn.org/node-mgmt-port-mac-addresses"
	AnnotationGateway     = "k8s.ovn.org/l3-gateway-config"
	AnnotationPrimaryAddr = "k8s.ovn.org/node-primary-ifaddr"
	AnnotationPodNetworks = "k8s.ovn.org/pod-networks"
)

// The annotations by which a pod's owner asks for networks, and for limits on the
// default one.
const (
	AnnotationSelection = "k8s.v1.cni.cncf.io/networks"
	AnnotationInstead   = "v1.multus-cni.io/default-network"
	AnnotationStatus    = "k8s.v1.cni.cncf.io/network-status"
	AnnotationIngress   = "kubernetes.io/ingress-bandwidth"
	AnnotationEgress    = "kubernetes.io/egress-bandwidth"
)

// ParseNodeID parses k8s.ovn.org/node-id: a decimal number from alloc.FirstNodeID
// to alloc.LastNodeID.
func ParseNodeID(s string) (int, error) {
	id, err := strconv.Atoi(s)
	if err != nil || id < alloc.FirstNodeID || id > alloc.LastNodeID || strconv.Itoa(id) != s {
		return 0, fmt.Errorf("node id %q is not a number from %d to %d", s, alloc.FirstNodeID, alloc.LastNodeID)
	}
	return id, nil
}

// stringList is a JSON list of strings; older OVN-Kubernetes wrote a lone string.
type stringList []string

// UnmarshalJSON accepts both forms.
func (l *stringList) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*l = stringList{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// ParseNodeSubnets parses k8s.ovn.org/node-subnets and returns the default
// network's subnets: at most one of each family, IPv4 first. Subnets of other
// networks, which OVN-Kubernetes keeps there, are not read.
func ParseNodeSubnets(s string) ([]netip.Prefix, error) {
	var networks map[string]stringList
	if err := json.Unmarshal([]byte(s), &networks); err != nil {
		return nil, fmt.Errorf(`node subnets %q are not of the form {"default":["10.244.1.0/24"]}: %w`, s, err)
	}
	list, ok := networks[intent.DefaultNetwork]
	if !ok || len(list) == 0 {
		return nil, fmt.Errorf("node subnets %q have no entry %q with a subnet", s, intent.DefaultNetwork)
	}
	subnets, err := parsePrefixes(list)
	if err != nil {
		return nil, err
	}
	for _, p := range subnets {
		if p != p.Masked() {
			return nil, fmt.Errorf("subnet %s has host bits set: its network is %s", p, p.Masked())
		}
		if p.Addr().BitLen()-p.Bits() < 2 {
			return nil, fmt.Errorf("subnet %s is too small to hold a gateway, a management port and a pod", p)
		}
	}
	return subnets, onePerFamily(subnets)
}

// FormatNodeSubnets is the inverse of ParseNodeSubnets.
func FormatNodeSubnets(subnets []netip.Prefix) string {
	return encode(map[string][]netip.Prefix{intent.DefaultNetwork: subnets})
}

// onePerFamily sorts subnets IPv4 first and refuses a second one of a family.
func onePerFamily(subnets []netip.Prefix) error {
	slices.SortFunc(subnets, netip.Prefix.Compare)
	for i := 1; i < len(subnets); i++ {
		if subnets[i].Addr().Is4() == subnets[i-1].Addr().Is4() {
			return fmt.Errorf("subnets %s and %s are of one family, where a node has one of each", subnets[i-1], subnets[i])
		}
	}
	return nil
}

// ParseChassisID parses k8s.ovn.org/node-chassis-id: OVS's system-id, any word
// without blanks, quotes and commas.
func ParseChassisID(s string) (string, error) {
	bad := func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == ',' || r == '\\' }
	if s == "" || len(s) > 253 || strings.ContainsFunc(s, bad) {
		return "", fmt.Errorf("chassis id %q is not a word of 1 to 253 printable characters", s)
	}
	return s, nil
}

// ParseEncapIPs parses k8s.ovn.org/node-encap-ips: a JSON list of addresses.
func ParseEncapIPs(s string) ([]netip.Addr, error) {
	var list []string
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, fmt.Errorf(`encapsulation addresses %q are not a list like ["172.18.0.2"]: %w`, s, err)
	}
	return parseAddrs(list)
}

// ParseMgmtMAC parses k8s.ovn.org/node-mgmt-port-mac-addresses and returns the
// default network's address. A bare address, as older releases wrote, is taken.
func ParseMgmtMAC(s string) (string, error) {
	if !strings.HasPrefix(s, "{") {
		return parseMAC(s)
	}
	var networks map[string]string
	if err := json.Unmarshal([]byte(s), &networks); err != nil {
		return "", fmt.Errorf(`management port addresses %q are not of the form {"default":"0a:58:0a:f4:01:02"}: %w`, s, err)
	}
	mac, ok := networks[intent.DefaultNetwork]
	if !ok {
		return "", fmt.Errorf("management port addresses %q have no entry %q", s, intent.DefaultNetwork)
	}
	return parseMAC(mac)
}

// primaryAddr is k8s.ovn.org/node-primary-ifaddr.
type primaryAddr struct {
	IPv4 string `json:"ipv4,omitempty"`
	IPv6 string `json:"ipv6,omitempty"`
}

// ParsePrimaryAddr parses k8s.ovn.org/node-primary-ifaddr: the node's addresses
// with their subnets' lengths, IPv4 first.
func ParsePrimaryAddr(s string) ([]netip.Prefix, error) {
	var p primaryAddr
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fmt.Errorf(`primary address %q is not of the form {"ipv4":"172.18.0.2/24"}: %w`, s, err)
	}
	list := slices.DeleteFunc([]string{p.IPv4, p.IPv6}, func(s string) bool { return s == "" })
	if len(list) == 0 {
		return nil, fmt.Errorf("primary address %q names neither ipv4 nor ipv6", s)
	}
	addrs, err := parsePrefixes(list)
	if err != nil {
		return nil, err
	}
	return addrs, onePerFamily(addrs)
}

// parsePrefixes parses CIDRs; IPv4 in IPv6 form is refused, because it would
// compare unequal to the same IPv4 prefix.
func parsePrefixes(list []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address with a prefix length: %w", s, err)
		}
		if p.Addr().Is4In6() || p.Addr().IsUnspecified() && p.Bits() > 0 || p.Addr().IsMulticast() {
			return nil, fmt.Errorf("%q is not a unicast IPv4 or IPv6 prefix", s)
		}
		out = append(out, p)
	}
	return out, nil
}

func parseAddrs(list []string) ([]netip.Addr, error) {
	out := make([]netip.Addr, 0, len(list))
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%q is not an IP address: %w", s, err)
		}
		if a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return nil, fmt.Errorf("%q is not a unicast IPv4 or IPv6 address", s)
		}
		out = append(out, a)
	}
	return out, nil
}

// errMAC is the reason given for every kind of unusable hardware address.
var errMAC = errors.New("not a unicast Ethernet address like 0a:58:0a:f4:01:02")

func parseMAC(s string) (string, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || hw[0]&1 != 0 || hw.String() == "00:00:00:00:00:00" {
		return "", fmt.Errorf("%q: %w", s, errMAC)
	}
	return hw.String(), nil
}

// encode marshals values that cannot fail to: structs and maps of strings,
// numbers and netip values. Map keys come out sorted.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("annotation of type %T cannot be encoded: %v", v, err))
	}
	return string(b)
}
