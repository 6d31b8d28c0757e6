package networks

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// depart notes since when nodes are gone that blocks speak of. One that registers
// again under its name has what it had: its pods and its agent may live.
func (k *Keeper) depart() {
	spoken := map[string]struct{}{}
	for _, b := range k.blocks {
		spoken[b.Spec.Node] = struct{}{}
		for _, e := range b.Spec.Entries {
			if e.Node != "" { // another than the block's
				spoken[e.Node] = struct{}{}
			}
		}
	}
	for name := range spoken {
		if _, here := k.nodes[name]; name != "" && !here && k.departed[name].IsZero() {
			k.departed[name] = k.Now()
		}
	}
	for name := range k.departed {
		_, here := k.nodes[name]
		if _, ok := spoken[name]; here || !ok {
			delete(k.departed, name)
		}
	}
}

// left reports whether a node is gone for good: its Node for the time that ids and
// subnets of nodes rest, and its pods.
func (k *Keeper) left(node string) bool {
	since := k.departed[node]
	return !since.IsZero() && k.peopled[node] == 0 && k.Now().Sub(since) >= alloc.DefaultRest
}

// mend brings a block to what it should be, as far as that is nobody else's: entries of
// nodes that are gone, of claims that are gone, and what rests in a block of nobody.
// False: it is so. k.mu is held.
func (k *Keeper) mend(b *intent.Block) bool {
	var list []intent.BlockEntry
	changed := false
	for _, e := range b.Entries {
		if e.Claim != "" && !k.holds(e.Claim, b.Network, e.Key) {
			e.Claim, changed = "", true
		}
		if e.Pod != "" && k.left(e.Node) {
			changed = true
			if e.Claim == "" {
				continue
			}
			e.Pod, e.UID, e.Network, e.MAC, e.Encap, e.Node = "", "", "", "", netip.Addr{}, b.Node
		}
		if e.Pod == "" && e.Claim == "" && (e.Node == "" || k.left(e.Node)) && k.rested(b, e) {
			changed = true
			continue
		}
		list = append(list, e)
	}
	b.Entries = list
	if b.Node != "" && k.left(b.Node) {
		for i := range b.Entries {
			if b.Entries[i].Node == b.Node {
				b.Entries[i].Node = ""
			}
		}
		b.Node, changed = "", true
	}
	return changed
}

// rested reports whether an entry of nobody has rested long enough.
func (k *Keeper) rested(b *intent.Block, e intent.BlockEntry) bool {
	id := fmt.Sprintf("%d %s", e.Key, b.Network)
	if k.resting[id].IsZero() {
		k.resting[id] = k.Now()
	}
	k.rests[id] = struct{}{}
	return k.Now().Sub(k.resting[id]) >= alloc.DefaultQuarantine
}

// calm reports, without reading all of it, that there is nothing to mend in a block.
func (k *Keeper) calm(b *v1alpha1.AddressBlock) bool {
	if b.Spec.Node == "" || !k.departed[b.Spec.Node].IsZero() {
		return false
	}
	return !slices.ContainsFunc(b.Spec.Entries, func(e v1alpha1.AddressEntry) bool {
		return e.Claim != "" || e.Node != "" && !k.departed[e.Node].IsZero()
	})
}

// blockWrites mend blocks.
func (k *Keeper) blockWrites() []write {
	k.depart()
	clear(k.rests)
	var out []write
	for _, name := range slices.Sorted(maps.Keys(k.blocks)) {
		if k.calm(k.blocks[name]) {
			continue
		}
		b, problems := kube.ParseBlock(k.blocks[name])
		if len(problems) > 0 {
			continue // whoever wrote it has to mend it: it is told as a Problem
		}
		empty := b.Node == "" && len(b.Entries) == 0
		if changed := k.mend(b); changed || empty {
			out = append(out, write{object: "AddressBlock/" + name, do: func(ctx context.Context) error {
				return k.changeBlock(ctx, name, func(b *intent.Block) error {
					k.mend(b)
					return nil
				})
			}})
		}
	}
	maps.DeleteFunc(k.resting, func(id string, _ time.Time) bool {
		_, still := k.rests[id]
		return !still
	})
	if len(k.departed)+len(k.resting) > 0 {
		out = append(out, write{after: lookAtRests})
	}
	return out
}

// lookAtRests is how often what rests is looked at.
const lookAtRests = 5 * time.Second

// changeBlock reads a block, has it changed, and writes it if it is still as it was
// read. One that nobody leases and that holds nothing goes. k.mu is held in change.
func (k *Keeper) changeBlock(ctx context.Context, name string, change func(*intent.Block) error) error {
	r := k.Client.Resource(resource("addressblocks"))
	u, err := r.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		k.setBlock(name, nil)
		return nil
	}
	if err != nil {
		return err
	}
	object, err := decode[v1alpha1.AddressBlock](u)
	if err != nil {
		return err
	}
	b, problems := kube.ParseBlock(object)
	if len(problems) > 0 {
		return fmt.Errorf("AddressBlock %s: %s: %s; correct it or delete it", name, problems[0].Field, problems[0].Message)
	}
	k.mu.Lock()
	err = change(b)
	k.mu.Unlock()
	if err != nil {
		return err
	}
	if b.Node == "" && len(b.Entries) == 0 {
		err := r.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &object.UID, ResourceVersion: &object.ResourceVersion}})
		if err == nil || apierrors.IsNotFound(err) {
			k.log.Info("address block returned", "network", b.Network, "slot", b.Slot, "node", object.Spec.Node)
			k.setBlock(name, nil)
			return nil
		}
		return err
	}
	slices.SortFunc(b.Entries, func(x, y intent.BlockEntry) int { return x.Key - y.Key })
	object.Spec = kube.FormatBlock(b)
	return k.putBlock(object, func(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		return r.Update(ctx, u, metav1.UpdateOptions{})
	})
}

// makeBlock makes a block that no node leases.
func (k *Keeper) makeBlock(ctx context.Context, name string, b *intent.Block) error {
	object := &v1alpha1.AddressBlock{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: kube.FormatBlock(b)}
	return k.putBlock(object, func(u *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		return k.Client.Resource(resource("addressblocks")).Create(ctx, u, metav1.CreateOptions{})
	})
}

func (k *Keeper) putBlock(object *v1alpha1.AddressBlock, do func(*unstructured.Unstructured) (*unstructured.Unstructured, error)) error {
	object.APIVersion, object.Kind = v1alpha1.APIVersion, v1alpha1.KindAddressBlock
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return fmt.Errorf("encode AddressBlock %s: %w", object.Name, err)
	}
	u, err := do(&unstructured.Unstructured{Object: content})
	if err != nil {
		return err
	}
	made, err := decode[v1alpha1.AddressBlock](u)
	if err == nil {
		k.setBlock(made.Name, made)
	}
	return err
}
