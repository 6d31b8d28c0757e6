package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// declared is what is wrong with networks as the objects say it that portolan-manager
// writes: no agent knows of a network that was never accepted.
func declared(ctx context.Context, r *reach.Reach) ([]trouble, error) {
	var out []trouble
	note := func(object, field, message string) {
		if message != "" {
			out = append(out, trouble{Object: object, Field: field, Severity: "error", Message: message, Nodes: []string{"portolan-manager"}})
		}
	}
	const ours = "/apis/" + v1alpha1.Group + "/" + v1alpha1.Version
	var networks struct {
		Items []v1alpha1.Network `json:"items"`
	}
	if err := object(ctx, r, ours+"/networks", &networks); err != nil {
		return nil, fmt.Errorf("list networks: %w", err)
	}
	known := map[string]bool{}
	for i := range networks.Items {
		n := reported(&networks.Items[i])
		told := false
		for _, c := range n.Claims {
			known[c.Definition] = true
			if !c.Accepted {
				told = true
				note("NetworkAttachmentDefinition/"+c.Definition, "spec.config", dash(c.Message))
			}
		}
		if n.Ready == string(metav1.ConditionFalse) || !told {
			note("Network/"+n.Name, "", n.Message)
		}
	}
	var physical struct {
		Items []v1alpha1.PhysicalNetwork `json:"items"`
	}
	if err := object(ctx, r, ours+"/physicalnetworks", &physical); err != nil {
		return nil, fmt.Errorf("list physical networks: %w", err)
	}
	for i := range physical.Items {
		for _, text := range wireOf(physical.Items, physical.Items[i].Name).Trouble {
			note("PhysicalNetwork/"+physical.Items[i].Name, "", text)
		}
	}
	if err := unclaimed(ctx, r, known, note); err != nil {
		return nil, err
	}
	userDefined(ctx, r, note)
	return out, nil
}

// unclaimed finds definitions of ours that are of no network: their text cannot be read.
func unclaimed(ctx context.Context, r *reach.Reach, known map[string]bool, note func(object, field, message string)) error {
	var list struct {
		Items []struct {
			Metadata metav1.ObjectMeta `json:"metadata"`
			Spec     struct {
				Config string `json:"config"`
			} `json:"spec"`
		} `json:"items"`
	}
	if err := object(ctx, r, "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions", &list); err != nil {
		return fmt.Errorf("list NetworkAttachmentDefinitions: %w", err)
	}
	for _, item := range list.Items {
		d := claims.Definition{Namespace: item.Metadata.Namespace, Name: item.Metadata.Name}
		if d.Parse(item.Spec.Config) && d.Err != nil && !known[d.Key()] {
			note("NetworkAttachmentDefinition/"+d.Key(), "spec.config", d.Err.Error())
		}
	}
	return nil
}

// userDefined adds the user-defined networks whose conditions are not true. A cluster
// without the kinds has none.
func userDefined(ctx context.Context, r *reach.Reach, note func(object, field, message string)) {
	for _, kind := range []string{"UserDefinedNetwork", "ClusterUserDefinedNetwork"} {
		var list struct {
			Items []struct {
				Metadata metav1.ObjectMeta `json:"metadata"`
				Status   struct {
					Conditions []metav1.Condition `json:"conditions"`
				} `json:"status"`
			} `json:"items"`
		}
		if object(ctx, r, "/apis/k8s.ovn.org/v1/"+strings.ToLower(kind)+"s", &list) != nil {
			continue
		}
		for _, item := range list.Items {
			name := strings.TrimPrefix(item.Metadata.Namespace+"/"+item.Metadata.Name, "/")
			i := slices.IndexFunc(item.Status.Conditions, func(c metav1.Condition) bool { return c.Status == metav1.ConditionFalse })
			if i >= 0 {
				c := item.Status.Conditions[i]
				note(kind+"/"+name, c.Type, dash(c.Message))
			}
		}
	}
}
