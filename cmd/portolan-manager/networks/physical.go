package networks

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// mostNodes is how many nodes the status of an object names.
const mostNodes = 100

// The reasons of the condition Ready of objects that select nodes.
const (
	reasonReady    = "Ready"
	reasonNotReady = "NodesNotReady"
	reasonNoNode   = "NoNode"
	reasonDryRun   = "DryRun"
)

// physicalWrites bring PhysicalNetworks' status to what nodes say of them.
func (k *Keeper) physicalWrites() []write {
	return k.folded(k.wires, "PhysicalNetwork", "physicalnetworks", func(name string, s *standing) (foldedStatus, bool) {
		p := k.world.Physical[name]
		if p == nil {
			return foldedStatus{}, false
		}
		want := physicalStatus(p, s)
		want.Conditions = k.since(p.Status.Conditions, want.Conditions)
		return foldedStatus{
			meta: p.ObjectMeta, same: equality.Semantic.DeepEqual(p.Status, want), want: want, fields: []string{"ready", "nodes", "conditions"},
			urgent: turned(p.Status.Conditions, want.Conditions),
			learn:  func(u *unstructured.Unstructured) error { return learned(u, name, k.setPhysical) },
		}, true
	})
}

// physicalStatus is a PhysicalNetwork's, of the nodes that it selects.
func physicalStatus(p *v1alpha1.PhysicalNetwork, s *standing) v1alpha1.PhysicalNetworkStatus {
	out := v1alpha1.PhysicalNetworkStatus{Ready: s.of()}
	for _, node := range s.names() {
		out.Nodes = append(out.Nodes, v1alpha1.PhysicalNetworkNode{Node: node, Message: s.selected[node].text()})
	}
	invalid := unreadable(p.Spec.NodeSelector)
	if _, err := claims.VLANs(p.Spec.VLANs); invalid == "" && err != nil {
		invalid = "spec." + err.Error()
	}
	out.Conditions = []metav1.Condition{s.condition(invalid)}
	return out
}

// unreadable says why a selector of nodes cannot be read.
func unreadable(selector *metav1.LabelSelector) string {
	if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		return "spec.nodeSelector: " + err.Error()
	}
	return ""
}

// ofWires are a node's reports on PhysicalNetworks.
func ofWires(list []v1alpha1.NodePhysicalNetwork) map[string]report {
	out := make(map[string]report, len(list))
	for _, p := range list {
		out[p.Name] = report{ready: p.Ready, message: unlessReady(p.Ready, p.Message)}
	}
	return out
}

// foldedStatus is what an object's status is to be.
type foldedStatus struct {
	meta   metav1.ObjectMeta
	want   any
	fields []string
	same   bool // it is so
	urgent bool // somebody waits for the change
	learn  func(*unstructured.Unstructured) error
}

// folded are the writes of the objects that a tally has anew. One whose counts alone
// change is written once in a while.
func (k *Keeper) folded(t *tally, kind, resource string, status func(string, *standing) (foldedStatus, bool)) []write {
	if !k.nodesHeard {
		return nil // half of what nodes say would be told as the loss of the other half
	}
	var out []write
	for name := range t.dirty {
		s := t.objects[name]
		f, ok := status(name, s)
		if !ok || f.same {
			delete(t.dirty, name)
			continue
		}
		w := write{object: kind + "/" + name}
		if since := k.Now().Sub(t.written[name]); since < countPause && !f.urgent {
			w.after = countPause - since
			out = append(out, w)
			continue
		}
		t.written[name] = k.Now()
		w.do = func(ctx context.Context) error {
			text, err := fields(f.want, f.fields)
			if err != nil {
				return err
			}
			u, err := k.patch(ctx, resource, f.meta, patch{Status: text}, "status")
			if err != nil {
				return err
			}
			return f.learn(u)
		}
		out = append(out, w)
	}
	return out
}

// learned hands on what the server answered, so that the next round does not decide on
// what has passed.
func learned[T any](u *unstructured.Unstructured, name string, set func(string, *T)) error {
	o, err := decode[T](u)
	if err == nil {
		set(name, o)
	}
	return err
}

// since gives conditions the time of their last change: now, or what they have.
func (k *Keeper) since(have, want []metav1.Condition) []metav1.Condition {
	for i, c := range want {
		want[i].LastTransitionTime = metav1.NewTime(k.Now().Truncate(time.Second))
		for _, old := range have {
			if old.Type == c.Type && old.Status == c.Status {
				want[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return want
}

// turned tells whether a condition is another than it was.
func turned(have, want []metav1.Condition) bool {
	for _, c := range want {
		for _, old := range have {
			if old.Type == c.Type && old.Status == c.Status && old.ObservedGeneration == c.ObservedGeneration {
				return false
			}
		}
	}
	return true
}

func unlessReady(ready bool, message string) string {
	if ready {
		return ""
	}
	return message
}
