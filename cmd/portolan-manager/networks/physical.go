package networks

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// mostNodes is how many nodes a PhysicalNetwork's status names.
const mostNodes = 100

// The reasons of a PhysicalNetwork's condition Ready.
const (
	reasonReady    = "Ready"
	reasonNotReady = "NodesNotReady"
	reasonNoNode   = "NoNode"
)

// physicalWrites bring PhysicalNetworks' status to what nodes say of them.
func (k *Keeper) physicalWrites() []write {
	var out []write
	for _, name := range slices.Sorted(maps.Keys(k.world.Physical)) {
		p := k.world.Physical[name]
		want := k.physicalStatus(p)
		for i, c := range want.Conditions {
			want.Conditions[i].LastTransitionTime = metav1.NewTime(k.Now().Truncate(time.Second))
			for _, old := range p.Status.Conditions {
				if old.Type == c.Type && old.Status == c.Status {
					want.Conditions[i].LastTransitionTime = old.LastTransitionTime
				}
			}
		}
		if equality.Semantic.DeepEqual(p.Status, want) {
			continue
		}
		out = append(out, write{object: "PhysicalNetwork/" + name, do: func(ctx context.Context) error {
			status, err := fields(want, []string{"ready", "nodes", "conditions"})
			if err != nil {
				return err
			}
			u, err := k.patch(ctx, "physicalnetworks", p.ObjectMeta, patch{Status: status}, "status")
			if err != nil {
				return err
			}
			next, err := decode[v1alpha1.PhysicalNetwork](u)
			if err == nil {
				k.setPhysical(name, next)
			}
			return err
		}})
	}
	return out
}

// physicalStatus folds the nodes that a PhysicalNetwork selects.
func (k *Keeper) physicalStatus(p *v1alpha1.PhysicalNetwork) v1alpha1.PhysicalNetworkStatus {
	var s v1alpha1.PhysicalNetworkStatus
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: reasonReady}
	refuse := func(reason, format string, args ...any) {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reason, fmt.Sprintf(format, args...)
	}
	selector := labels.Everything()
	if p.Spec.NodeSelector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(p.Spec.NodeSelector); err != nil {
			refuse(v1alpha1.ReasonInvalid, "spec.nodeSelector: %s", err)
			s.Conditions = []metav1.Condition{c}
			return s
		}
	}
	selected, ready := 0, 0
	for _, node := range slices.Sorted(maps.Keys(k.nodes)) {
		if !selector.Matches(labels.Set(k.nodes[node])) {
			continue
		}
		selected++
		if message := k.trouble(p.Name, node); message == "" {
			ready++
		} else {
			s.Nodes = append(s.Nodes, v1alpha1.PhysicalNetworkNode{Node: node, Message: message})
		}
	}
	s.Ready = fmt.Sprintf("%d/%d", ready, selected)
	_, err := claims.VLANs(p.Spec.VLANs)
	switch {
	case err != nil:
		refuse(v1alpha1.ReasonInvalid, "spec.%s", err)
	case selected == 0:
		refuse(reasonNoNode, "spec.nodeSelector selects no node")
	case ready < selected:
		refuse(reasonNotReady, "ready on %s nodes; %s: %s", s.Ready, s.Nodes[0].Node, s.Nodes[0].Message)
	}
	s.Nodes = s.Nodes[:min(len(s.Nodes), mostNodes)]
	s.Conditions = []metav1.Condition{c}
	return s
}

// trouble is why a physical network is not ready on a node; "": it is.
func (k *Keeper) trouble(physical, node string) string {
	for _, p := range k.reports[node].PhysicalNetworks {
		switch {
		case p.Name != physical:
		case p.Ready:
			return ""
		case p.Message != "":
			return p.Message
		default:
			return "not ready, and the node's agent does not say why"
		}
	}
	return "the node's agent has not said anything of it yet"
}
