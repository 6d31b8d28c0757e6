package kube

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Zoning says which zone a node is in (architecture §2).
type Zoning string

// The zonings. The zero Zoning is ZonePerNode.
const (
	ZonePerNode Zoning = "node"
	ZoneGlobal  Zoning = "global"
)

// Of is the zone of a node.
func (z Zoning) Of(node string) string {
	if z == ZoneGlobal {
		return string(ZoneGlobal)
	}
	return node
}

// problems collects what is wrong with one object.
type problems struct {
	key  intent.Key
	list []rows.Problem
}

// annotation files err, if any, as a Problem with an annotation.
func (p *problems) annotation(name string, err error) {
	if err == nil {
		return
	}
	p.list = append(p.list, rows.Problem{
		Object: p.key.String(), Field: annotationField(name), Severity: rows.Error,
		Message: fmt.Sprintf("%s; it is ignored: remove the annotation and its writer sets it anew, or correct it", err),
	})
}

// annotationField is an annotation as Problems name it.
func annotationField(name string) string { return "metadata.annotations[" + name + "]" }

// read parses an annotation, if it is there, and files the error if it is malformed.
func read[T any](p *problems, annotations map[string]string, name string, parse func(string) (T, error)) (T, bool) {
	var zero T
	s, ok := annotations[name]
	if !ok {
		return zero, false
	}
	v, err := parse(s)
	if err != nil {
		p.annotation(name, err)
		return zero, false
	}
	return v, true
}

// ParseNode makes a node's intent. A malformed annotation counts as absent.
func ParseNode(n *corev1.Node, zoning Zoning) (*intent.Node, []rows.Problem) {
	out := &intent.Node{Name: n.Name, Zone: zoning.Of(n.Name), Labels: maps.Clone(n.Labels), UID: string(n.UID)}
	p := &problems{key: out.Key()}
	out.ID, _ = read(p, n.Annotations, AnnotationNodeID, ParseNodeID)
	out.Subnets, _ = read(p, n.Annotations, AnnotationNodeSubnets, ParseNodeSubnets)
	out.Chassis, _ = read(p, n.Annotations, AnnotationChassisID, ParseChassisID)
	out.MgmtMAC, _ = read(p, n.Annotations, AnnotationMgmtMACs, ParseMgmtMAC)
	out.Gateway, _ = read(p, n.Annotations, AnnotationGateway, ParseGateway)
	encap, _ := read(p, n.Annotations, AnnotationEncapIPs, ParseEncapIPs)
	if len(encap) == 0 {
		primary, _ := read(p, n.Annotations, AnnotationPrimaryAddr, ParsePrimaryAddr)
		encap = primaryEncap(primary, n.Status.Addresses)
	}
	out.EncapIPs = encap
	return out, p.list
}

// primaryEncap is the tunnel endpoint of a node whose agent has named none: its
// primary address, else the first internal address that kubelet reports.
func primaryEncap(primary []netip.Prefix, addresses []corev1.NodeAddress) []netip.Addr {
	if len(primary) > 0 {
		return []netip.Addr{primary[0].Addr()}
	}
	for _, a := range addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if list, err := parseAddrs([]string{a.Address}); err == nil {
			return list
		}
	}
	return nil
}

// AgentAnnotations is what a node's agent says of its node in annotations: all
// that ParseNode reads, but for what the allocator writes. vlan as for FormatGateway.
func AgentAnnotations(n *intent.Node, vlan int) map[string]string {
	m := map[string]string{AnnotationGateway: FormatGateway(n.Name, n.Gateway, vlan)}
	if n.Chassis != "" {
		m[AnnotationChassisID] = n.Chassis
	}
	if len(n.EncapIPs) > 0 {
		m[AnnotationEncapIPs] = encode(n.EncapIPs)
	}
	if n.MgmtMAC != "" {
		m[AnnotationMgmtMACs] = encode(map[string]string{intent.DefaultNetwork: n.MgmtMAC})
	}
	var primary primaryAddr
	for _, p := range n.Gateway.Addresses {
		switch {
		case p.Addr().Is4() && primary.IPv4 == "":
			primary.IPv4 = p.String()
		case p.Addr().Is6() && primary.IPv6 == "":
			primary.IPv6 = p.String()
		}
	}
	if primary != (primaryAddr{}) {
		m[AnnotationPrimaryAddr] = encode(primary)
	}
	return m
}

// ParseNamespace makes a namespace's intent.
func ParseNamespace(n *corev1.Namespace) *intent.Namespace {
	return &intent.Namespace{Name: n.Name, Labels: maps.Clone(n.Labels)}
}

// NodeAddresses asks for the addresses that a node's kubelet reports as its own.
func NodeAddresses(ctx context.Context, client Client, name string) ([]netip.Addr, error) {
	n, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, ip)
		}
	}
	return out, nil
}

// CheckIdentity refuses a node's name on a machine that has none of the addresses
// that the node's kubelet reports: two machines of one name would take each other's
// pods, addresses and chassis. of are the Node's addresses, here the machine's.
func CheckIdentity(name string, of, here []netip.Addr) error {
	if len(of) == 0 || slices.ContainsFunc(of, func(a netip.Addr) bool { return slices.Contains(here, a) }) {
		return nil
	}
	return fmt.Errorf("node %s has address %s, which no link of this machine has: it is another machine's name; give this one's Node object by --node-name", name, of[0])
}
