package networks

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/fold"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// PoolFound is what users of a DevicePool are to be told.
type PoolFound struct {
	Pool    string
	UID     string
	Reason  string // "DevicePoolFailed" …
	Message string
}

// poolWrites bring DevicePools' status to what nodes say of them.
func (k *Keeper) poolWrites() []write {
	return k.folded(k.pools, v1alpha1.KindDevicePool, "devicepools", func(name string, s *standing) (foldedStatus, bool) {
		p := k.devicePools[name]
		if p == nil {
			return foldedStatus{}, false
		}
		want := poolStatus(p, s)
		want.Conditions = k.since(p.Status.Conditions, want.Conditions)
		return foldedStatus{
			meta: p.ObjectMeta, same: equality.Semantic.DeepEqual(p.Status, want), want: want,
			fields: []string{"ready", "devices", "nodes", "conditions"}, urgent: turned(p.Status.Conditions, want.Conditions),
			learn: func(u *unstructured.Unstructured) error { return learned(u, name, k.setPool) },
		}, true
	})
}

// poolStatus is a DevicePool's, of the nodes that it selects.
func poolStatus(p *v1alpha1.DevicePool, s *standing) v1alpha1.DevicePoolStatus {
	out := v1alpha1.DevicePoolStatus{Ready: s.of(), Devices: fmt.Sprintf("%d/%d", s.well, s.devices)}
	for _, node := range s.names() {
		out.Nodes = append(out.Nodes, v1alpha1.DevicePoolNode{Node: node, Message: s.selected[node].text()})
	}
	invalid := unreadable(p.Spec.NodeSelector)
	if o, _ := kube.ParseDevicePool(p); invalid == "" {
		invalid = o.Invalid
	}
	c := s.condition(invalid)
	if p.Spec.DryRun && (c.Reason == reasonReady || c.Reason == reasonNotReady) {
		c.Status, c.Reason = metav1.ConditionFalse, reasonDryRun
		c.Message = "dry run: nothing is changed and nothing offered; status.nodes says what would be done"
	}
	out.Conditions = []metav1.Condition{c}
	return out
}

// ofPools are a node's reports on DevicePools.
func ofPools(list []v1alpha1.NodeDevicePool) map[string]report {
	out := make(map[string]report, len(list))
	for _, p := range list {
		r := report{ready: p.Ready, generation: p.ObservedGeneration, devices: p.Devices, well: p.Well, shown: p.Reason == v1alpha1.PoolDryRun}
		if !p.Ready || r.shown {
			r.reason, r.message = p.Reason, p.Message
		}
		if r.shown && len(p.Steps) > 0 {
			r.message = strings.TrimPrefix(r.message+": ", ": ") + strings.Join(p.Steps, "; ")
		}
		out[p.Name] = r
	}
	return out
}

func (k *Keeper) setPool(name string, p *v1alpha1.DevicePool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.devicePools[name]
	switch {
	case p == nil:
		delete(k.devicePools, name)
		delete(k.poolSaid, name)
		k.pools.dropObject(name)
	case old != nil && old.UID == p.UID && !newer(old.ResourceVersion, p.ResourceVersion):
		return
	default:
		k.devicePools[name] = p
		k.pools.setObject(name, p.ObjectMeta, p.Spec.NodeSelector)
	}
	k.ring()
}

// poolPause is how long what is told of a pool stands while one node takes another's
// place in it.
const poolPause = time.Minute

// said is what is told of a pool for one reason: one node's words, for all that have it.
type said struct {
	node, message string
	at            time.Time
}

// poolsFound is what is to be told of pools: for each reason that somebody has to do
// something about, or wait for, one node's words. They stay while that node has them, and
// for a while after if others have the reason: of ten thousand nodes that are ready one
// after the other not each is told. It says when to look again; 0: at the next change.
func (k *Keeper) poolsFound() (found []PoolFound, again time.Duration) {
	for _, name := range slices.Sorted(maps.Keys(k.devicePools)) {
		s := k.pools.objects[name]
		first := map[string]string{}
		for node := range s.named {
			switch r := s.selected[node]; r.reason {
			case v1alpha1.PoolFailed, v1alpha1.PoolConflict, v1alpha1.PoolWaiting:
				if had, ok := first[r.reason]; !ok || node < had {
					first[r.reason] = node
				}
			}
		}
		next := map[string]said{}
		for reason, node := range first {
			now := said{node, s.selected[node].message, k.Now()}
			if had, ok := k.poolSaid[name][reason]; ok {
				r := s.selected[had.node]
				stays := r.reason == reason && r.message == had.message
				if left := poolPause - k.Now().Sub(had.at); stays || left > 0 {
					now = had
					if !stays && (again == 0 || left < again) {
						again = left
					}
				}
			}
			next[reason] = now
			found = append(found, PoolFound{
				Pool: name, UID: string(k.devicePools[name].UID), Reason: fold.OfPool + reason,
				Message: fmt.Sprintf("node %s: %s", now.node, now.message),
			})
		}
		k.poolSaid[name] = next
	}
	slices.SortFunc(found, func(a, b PoolFound) int { return strings.Compare(a.Pool+" "+a.Reason, b.Pool+" "+b.Reason) })
	return found, again
}
