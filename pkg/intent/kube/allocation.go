package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Allocation is the id and the subnets that a node's agent runs with, as its
// NodeNetwork says them. Whoever may write a Node may edit its annotations; this only
// the agent of that node writes.
type Allocation struct {
	UID     string // of the Node that was given them
	ID      int
	Subnets []netip.Prefix // IPv4 first
}

// AllocationOf is what a Node has; its UID is "" where the Node has not been given all.
func AllocationOf(n *intent.Node) Allocation {
	if n.UID == "" || n.ID == 0 || len(n.Subnets) == 0 {
		return Allocation{}
	}
	return Allocation{UID: n.UID, ID: n.ID, Subnets: n.Subnets}
}

// Within reports whether a Node's annotations say all of it, and perhaps a family more.
func (a Allocation) Within(n *intent.Node) bool {
	return a.ID == n.ID && Covers(n.Subnets, a.Subnets)
}

// Covers reports whether all of some subnets are among others.
func Covers(all, some []netip.Prefix) bool {
	return !slices.ContainsFunc(some, func(p netip.Prefix) bool { return !slices.Contains(all, p) })
}

// Said is the allocation as a NodeNetwork has it; nil for none.
func (a Allocation) Said() *v1alpha1.NodeAllocation {
	if a.UID == "" {
		return nil
	}
	out := &v1alpha1.NodeAllocation{NodeUID: a.UID, NodeID: a.ID}
	for _, p := range a.Subnets {
		out.Subnets = append(out.Subnets, p.String())
	}
	return out
}

// ParseAllocation reads what a NodeNetwork says; the zero Allocation where it says
// nothing, or what cannot be an allocation.
func ParseAllocation(s *v1alpha1.NodeAllocation) Allocation {
	if s == nil || s.NodeUID == "" {
		return Allocation{}
	}
	if _, err := ParseNodeID(fmt.Sprint(s.NodeID)); err != nil {
		return Allocation{}
	}
	subnets, err := ParseNodeSubnets(encode(map[string][]string{intent.DefaultNetwork: s.Subnets}))
	if err != nil {
		return Allocation{}
	}
	return Allocation{UID: s.NodeUID, ID: s.NodeID, Subnets: subnets}
}

// ReadAllocation reads what a node's NodeNetwork says; there may be none.
func ReadAllocation(ctx context.Context, networks NodeNetworks, node string) (Allocation, error) {
	u, err := networks.resource().Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Allocation{}, nil
	}
	if err != nil {
		return Allocation{}, fmt.Errorf("NodeNetwork %s: %w", node, err)
	}
	return allocationIn(u), nil
}

// allocationIn is what a NodeNetwork says, which an agent of another release may have
// written in ways of its own.
func allocationIn(u *unstructured.Unstructured) Allocation {
	n, err := nodeNetworkOf(u)
	if err != nil {
		return Allocation{}
	}
	return ParseAllocation(n.Status.Allocation)
}

// allocationPage bounds an answer: a NodeNetwork may list a hundred problems.
const allocationPage = 500

// ReadAllocations reads what all NodeNetworks say, by the node's name.
func ReadAllocations(ctx context.Context, networks NodeNetworks) (map[string]Allocation, error) {
	out := map[string]Allocation{}
	for page := (metav1.ListOptions{Limit: allocationPage}); ; {
		list, err := networks.resource().List(ctx, page)
		if err != nil {
			return nil, fmt.Errorf("list nodenetworks: %w", err)
		}
		for i := range list.Items {
			if a := allocationIn(&list.Items[i]); a.UID != "" {
				out[list.Items[i].GetName()] = a
			}
		}
		if page.Continue = list.GetContinue(); page.Continue == "" {
			return out, nil
		}
	}
}

// Denied tells an answer that will not change by itself, a kind that the API server
// does not have or a right that is missing, from a failure of the moment.
func Denied(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsForbidden(err) }
