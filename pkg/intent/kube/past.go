package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Past keeps in force what a Node last said well, so that an annotation that
// somebody edits cuts nobody off: what is malformed or removed counts as what it
// was, and subnets that are another node's as those that the node had. The allocator
// sets an edited annotation back. It is used by one goroutine.
type Past struct {
	zoning  Zoning
	nodes   map[string]*pastNode
	holders holders // of what is held, by subnet
}

// pastNode is a node's past.
type pastNode struct {
	uid     types.UID
	held    *intent.Node
	encap   bool         // the tunnel addresses are an annotation's
	runs    Allocation   // what it is known to run with; zero: not known
	refused *corev1.Node // whose subnets are another's; nil: none
}

// NewPast knows nothing of any Node.
func NewPast(zoning Zoning) *Past {
	return &Past{zoning: zoning, nodes: map[string]*pastNode{}, holders: holders{by: map[netip.Prefix][]string{}, lengths: map[length]int{}}}
}

// Pin begins the past of a Node with what it runs with. From that it has its subnets
// where the annotation is malformed or removed, and to other Nodes they are taken,
// whatever its annotation says.
func (s *Past) Pin(name string, runs Allocation) {
	if runs.UID != "" {
		s.Forget(name)
		was := &pastNode{uid: types.UID(runs.UID), runs: runs}
		s.nodes[name] = was
		s.hold(name, was, &intent.Node{ID: runs.ID, Subnets: runs.Subnets})
	}
}

// Forget drops a node that has gone.
func (s *Past) Forget(name string) {
	if was := s.nodes[name]; was != nil {
		s.holders.drop(name, was.held.Subnets)
		delete(s.nodes, name)
	}
}

// hold makes what a node holds another thing.
func (s *Past) hold(name string, was *pastNode, held *intent.Node) {
	if was.held != nil {
		s.holders.drop(name, was.held.Subnets)
	}
	was.held = held
	s.holders.add(name, held.Subnets)
}

// Node is ParseNode with the node's past.
func (s *Past) Node(n *corev1.Node) (*intent.Node, []rows.Problem) {
	out, list := ParseNode(n, s.zoning)
	p := &problems{key: out.Key(), list: list}
	was := s.nodes[n.Name]
	if was == nil || was.uid != n.UID { // another machine may have the name
		s.Forget(n.Name)
		was = &pastNode{uid: n.UID, held: &intent.Node{}}
		s.nodes[n.Name] = was
	}
	said := func(annotation string) bool {
		_, present := n.Annotations[annotation]
		return present && !slices.ContainsFunc(list, func(q rows.Problem) bool { return q.Field == annotationField(annotation) })
	}
	if !said(AnnotationNodeID) {
		out.ID = was.held.ID
	}
	was.refused = nil
	if !said(AnnotationNodeSubnets) {
		out.Subnets = was.held.Subnets
	} else if other, which := s.holders.of(n.Name, out.Subnets); other != "" {
		p.annotation(AnnotationNodeSubnets, fmt.Errorf("subnet %s is node %s's", which, other))
		out.Subnets, was.refused = was.held.Subnets, n
	}
	if !said(AnnotationChassisID) {
		out.Chassis = was.held.Chassis
	}
	if !said(AnnotationMgmtMACs) {
		out.MgmtMAC = was.held.MgmtMAC
	}
	if !said(AnnotationGateway) {
		out.Gateway = was.held.Gateway
	}
	if was.encap = was.encap || said(AnnotationEncapIPs); was.encap && !said(AnnotationEncapIPs) {
		out.EncapIPs = was.held.EncapIPs
	}
	held := out
	if !Covers(out.Subnets, was.runs.Subnets) {
		runs := *out
		runs.Subnets = was.runs.Subnets
		held = &runs
	}
	s.hold(n.Name, was, held)
	return out, p.list
}

// Again lists the nodes that were refused and may not be any more, by name.
func (s *Past) Again() []*corev1.Node {
	var out []*corev1.Node
	for name, was := range s.nodes {
		if was.refused == nil {
			continue
		}
		subnets, err := ParseNodeSubnets(was.refused.Annotations[AnnotationNodeSubnets])
		if other, _ := s.holders.of(name, subnets); err == nil && other == "" {
			out = append(out, was.refused)
		}
	}
	slices.SortFunc(out, func(a, b *corev1.Node) int { return strings.Compare(a.Name, b.Name) })
	return out
}
