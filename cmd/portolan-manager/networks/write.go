package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// write is one object's part of a round: requests that follow each other.
type write struct {
	object string
	do     func(context.Context) error
	after  time.Duration // not now: look again then
}

// carryOut does the writes, several at once, and says when to look again.
func (k *Keeper) carryOut(ctx context.Context, todo []write) time.Duration {
	var again time.Duration
	work := make(chan write)
	failed := make(chan write)
	var wg sync.WaitGroup
	for range min(writers, len(todo)) {
		wg.Go(func() {
			for w := range work {
				if err := k.try(ctx, w); err != nil {
					failed <- w
				}
			}
		})
	}
	go func() {
		for _, w := range todo {
			if w.after == 0 {
				work <- w
			}
		}
		close(work)
		wg.Wait()
		close(failed)
	}()
	for range failed {
		again = sooner(again, tryAgain)
	}
	for _, w := range todo {
		if w.after > 0 {
			again = sooner(again, w.after)
		}
	}
	return again
}

// try does one write. What somebody else has changed meanwhile is no failure to be
// logged: the news of it is on the way, and the next round looks again.
func (k *Keeper) try(ctx context.Context, w write) error {
	ctx, cancel := context.WithTimeout(ctx, k.Timeout)
	defer cancel()
	err := w.do(ctx)
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) && !errors.Is(err, context.Canceled) {
		k.log.Warn("not written, will retry", "object", w.object, "err", err)
	}
	return err
}

// networkWrite is what brings a Network to what is wanted; false: it is so. It
// gives the network its id.
func (k *Keeper) networkWrite(want claims.Want) (write, bool) {
	name := want.Spec.Name
	have := k.world.Networks[name]
	if !k.identify(&want) {
		return write{}, false
	}
	k.owners[name] = struct{}{}
	for i := range want.Status.Conditions {
		if c := &want.Status.Conditions[i]; c.LastTransitionTime.IsZero() {
			c.LastTransitionTime = metav1.NewTime(k.Now().Truncate(time.Second))
		}
	}
	w := write{object: "Network/" + name}
	if have == nil {
		w.do = func(ctx context.Context) error { return k.create(ctx, want) }
		return w, true
	}
	spec := !sameSpec(have.Spec, want.Spec) || relabelled(have) != nil
	status := !equality.Semantic.DeepEqual(have.Status, want.Status)
	if !spec && !status {
		return w, false
	}
	if !spec && onlyCounts(have.Status, want.Status) {
		if since := k.Now().Sub(k.counted[name]); since < countPause {
			w.after = countPause - since
			return w, true
		}
	}
	k.counted[name] = k.Now()
	w.do = func(ctx context.Context) error {
		n := have
		if spec {
			if len(n.Spec.Definitions) > 0 && claims.Moves(n.Spec, want.Spec) {
				if used, err := k.leased(ctx, name); used || err != nil {
					return err
				}
			}
			var err error
			if n, err = k.patchSpec(ctx, n, want.Spec); err != nil {
				return err
			}
		}
		if status {
			return k.patchStatus(ctx, n, want.Status)
		}
		return nil
	}
	return w, true
}

// identify gives a network the id it has, or one; false where there is none left.
func (k *Keeper) identify(want *claims.Want) bool {
	name := want.Spec.Name
	if want.Spec.ID != 0 && k.ids.Reserve(name, want.Spec.ID) == nil {
		return true
	}
	id, err := k.ids.Allocate(name) // its own where somebody has changed it
	if err != nil {
		k.log.Warn("network has no id", "network", name, "err", err)
		return false
	}
	if want.Spec.ID != 0 {
		k.log.Warn("network's id set back", "network", name, "was", want.Spec.ID, "id", id)
	}
	want.Spec.ID = id
	return true
}

func sameSpec(have, want v1alpha1.NetworkSpec) bool {
	have.NamespaceSelector, want.NamespaceSelector = nil, nil
	return equality.Semantic.DeepEqual(have, want)
}

// onlyCounts tells a change that every pod makes from one that users wait for.
func onlyCounts(have, want v1alpha1.NetworkStatus) bool {
	return equality.Semantic.DeepEqual(have.Claims, want.Claims) && slices.EqualFunc(have.Conditions, want.Conditions,
		func(a, b metav1.Condition) bool {
			return a.Type == b.Type && a.Status == b.Status && a.Reason == b.Reason && a.Message == b.Message
		}) && (have.Pods == 0) == (want.Pods == 0)
}

func resource(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: name}
}

// create makes a Network, and gives it its status.
func (k *Keeper) create(ctx context.Context, want claims.Want) error {
	n := &v1alpha1.Network{Spec: want.Spec}
	n.APIVersion, n.Kind, n.Name = v1alpha1.APIVersion, v1alpha1.KindNetwork, v1alpha1.NetworkObjectName(want.Spec.Name)
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(n)
	if err != nil {
		return fmt.Errorf("encode Network %s: %w", n.Name, err)
	}
	delete(content, "status")
	u, err := k.Client.Resource(resource("networks")).Create(ctx, &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made, err := k.learn(u)
	if err != nil {
		return err
	}
	k.log.Info("network made", "network", want.Spec.Name, "id", made.Spec.ID, "topology", made.Spec.Topology)
	return k.patchStatus(ctx, made, want.Status)
}

// learn takes what the server answered, so that the next round does not decide on
// what has passed.
func (k *Keeper) learn(u *unstructured.Unstructured) (*v1alpha1.Network, error) {
	n, err := decode[v1alpha1.Network](u)
	if err == nil {
		k.setNetwork(n)
	}
	return n, err
}

// labelLimited is on the Networks that not every namespace may claim. The admission policy
// portolan-claims is asked for those alone: asked for each Network, it took 50 µs for each,
// and the thousandth definition 50 ms.
const labelLimited = v1alpha1.Group + "/limited"

// relabelled are the labels of a Network that have to change; a nil one goes.
func relabelled(n *v1alpha1.Network) map[string]*string {
	_, has := n.Labels[labelLimited]
	switch limited := n.Spec.NamespaceSelector != nil; {
	case limited == has:
		return nil
	case limited:
		return map[string]*string{labelLimited: new(string)}
	default:
		return map[string]*string{labelLimited: nil}
	}
}

// patchSpec writes the labels, and all of a spec but the administrator's part of it.
func (k *Keeper) patchSpec(ctx context.Context, n *v1alpha1.Network, want v1alpha1.NetworkSpec) (*v1alpha1.Network, error) {
	want.NamespaceSelector = nil
	spec, err := fields(want, specFields())
	if err != nil {
		return nil, err
	}
	p := patch{Spec: spec}
	p.Metadata.Labels = relabelled(n)
	u, err := k.patch(ctx, "networks", n.ObjectMeta, p)
	if err != nil {
		return nil, err
	}
	k.log.Info("network changed", "network", networkOf(n))
	return k.learn(u)
}

// leased asks the API server itself whether a node has a part of a network by now. An edit
// comes with the first pods that use it, often in one file: what the watch of blocks tells
// later than that of definitions must not be missed. The next round knows it.
func (k *Keeper) leased(ctx context.Context, network string) (bool, error) {
	list, err := k.Client.Resource(resource("addressblocks")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, err
	}
	found := false
	for i := range list.Items {
		b, err := decode[v1alpha1.AddressBlock](&list.Items[i])
		if err == nil && b.Spec.Network == network {
			found = true
			k.setBlock(b.Name, b)
		}
	}
	return found, nil
}

func (k *Keeper) patchStatus(ctx context.Context, n *v1alpha1.Network, want v1alpha1.NetworkStatus) error {
	status, err := fields(want, []string{"pods", "nodes", "addressesUsed", "addressesFree", "claims", "conditions"})
	if err != nil {
		return err
	}
	u, err := k.patch(ctx, "networks", n.ObjectMeta, patch{Status: status}, "status")
	if err != nil {
		return err
	}
	_, err = k.learn(u)
	return err
}

// patch is a JSON merge patch of one version of an object.
type patch struct {
	Metadata struct {
		UID             types.UID          `json:"uid"`
		ResourceVersion string             `json:"resourceVersion"`
		Labels          map[string]*string `json:"labels,omitempty"`
	} `json:"metadata"`
	Spec   map[string]json.RawMessage `json:"spec,omitempty"`
	Status map[string]json.RawMessage `json:"status,omitempty"`
}

func (k *Keeper) patch(ctx context.Context, of string, o metav1.ObjectMeta, p patch, sub ...string) (*unstructured.Unstructured, error) {
	return k.patchOf(ctx, resource(of), o, p, sub...)
}

func (k *Keeper) patchOf(ctx context.Context, of schema.GroupVersionResource, o metav1.ObjectMeta, p patch, sub ...string) (*unstructured.Unstructured, error) {
	p.Metadata.UID, p.Metadata.ResourceVersion = o.UID, o.ResourceVersion
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode a patch of %s %s: %w", of.Resource, o.Name, err)
	}
	r := k.Client.Resource(of)
	if o.Namespace != "" {
		return r.Namespace(o.Namespace).Patch(ctx, o.Name, types.MergePatchType, body, metav1.PatchOptions{}, sub...)
	}
	return r.Patch(ctx, o.Name, types.MergePatchType, body, metav1.PatchOptions{}, sub...)
}

// specFields are the manager's fields of a Network's spec.
func specFields() []string {
	return []string{
		"name", "id", "topology", "subnets", "excludeSubnets", "reservedSubnets", "mtu", "vlanID", "physicalNetworkName",
		"allowPersistentIPs", "offload", "definitions",
	}
}

// fields is a value's JSON by field, with null for those that it leaves out: in a
// merge patch that takes them away.
func fields(v any, names []string) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	out := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &out); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	for _, name := range names {
		if _, ok := out[name]; !ok {
			out[name] = json.RawMessage("null")
		}
	}
	return out, nil
}

// deletion is that of a network that nobody claims or uses any more.
func (k *Keeper) deletion(n *v1alpha1.Network) write {
	name, uid, version := networkOf(n), n.UID, n.ResourceVersion
	return write{object: "Network/" + name, do: func(ctx context.Context) error {
		err := k.Client.Resource(resource("networks")).Delete(ctx, n.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		k.log.Info("network gone", "network", name, "id", n.Spec.ID)
		k.dropNetwork(n)
		return nil
	}}
}

// orphans deletes the blocks of networks that are gone, but those that hold an
// address for a pod or a claim: the network may come back under its name.
func (k *Keeper) orphans(d claims.Decision) []write {
	wanted := map[string]struct{}{}
	for _, w := range d.Networks {
		wanted[w.Spec.Name] = struct{}{}
	}
	var out []write
	for name, b := range k.blocks {
		_, ok := wanted[b.Spec.Network]
		if ok || k.world.Networks[b.Spec.Network] != nil || len(b.Spec.Entries) > 0 {
			continue
		}
		uid, version := b.UID, b.ResourceVersion
		out = append(out, write{object: "AddressBlock/" + name, do: func(ctx context.Context) error {
			err := k.Client.Resource(resource("addressblocks")).Delete(ctx, name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version},
			})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}})
	}
	return out
}
