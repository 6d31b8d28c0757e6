package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// declaredPools is what is wrong with DevicePools as their status says it. What agents
// have told of a pool on their node is not told again.
func declaredPools(ctx context.Context, r *reach.Reach, told []trouble) ([]trouble, error) {
	var list struct {
		Items []v1alpha1.DevicePool `json:"items"`
	}
	if err := object(ctx, r, "/apis/"+v1alpha1.Group+"/"+v1alpha1.Version+"/devicepools", &list); err != nil {
		return nil, fmt.Errorf("list device pools: %w", err)
	}
	var out []trouble
	for i := range list.Items {
		out = append(out, poolTroubles(&list.Items[i], told)...)
	}
	return out, nil
}

// poolTroubles is why one pool is not ready; of a dry run nothing is, as it is asked for.
func poolTroubles(p *v1alpha1.DevicePool, told []trouble) []trouble {
	name := v1alpha1.KindDevicePool + "/" + p.Name
	whole := func(severity, message string) []trouble {
		return []trouble{{Object: name, Severity: severity, Message: message, Nodes: []string{"portolan-manager"}}}
	}
	c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case c == nil || c.ObservedGeneration < p.Generation:
		return whole("waiting", fmt.Sprintf("portolan-manager has not said how generation %d of it stands", p.Generation))
	case c.Status == metav1.ConditionTrue || p.Spec.DryRun && c.Reason == v1alpha1.PoolDryRun:
		return nil
	case c.Reason == v1alpha1.ReasonInvalid:
		return whole("error", c.Message)
	case len(p.Status.Nodes) == 0:
		return whole("warning", c.Message)
	}
	var out []trouble
	for _, n := range p.Status.Nodes {
		if slices.ContainsFunc(told, func(t trouble) bool { return t.Object == name && slices.Contains(t.Nodes, n.Node) }) {
			continue
		}
		severity := "warning"
		if reason, _, ok := strings.Cut(n.Message, ": "); !ok || reason == v1alpha1.PoolConfiguring {
			severity = "waiting" // for the node's agent
		}
		same := slices.IndexFunc(out, func(t trouble) bool { return t.Message == n.Message })
		if same < 0 {
			out = append(out, trouble{Object: name, Severity: severity, Message: n.Message})
			same = len(out) - 1
		}
		out[same].Nodes = append(out[same].Nodes, n.Node)
	}
	return out
}
