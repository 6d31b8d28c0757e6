package networks

import (
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/util/resourceversion"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// podUse is where a pod is, and its interfaces by definition.
type podUse struct {
	node string
	by   map[string]int // definition → interfaces with addresses
}

// Put takes a pod, a namespace or a node from the manager's watch.
func (k *Keeper) Put(o intent.Object) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch o := o.(type) {
	case *intent.Pod:
		k.bind(o.Namespace+"/"+o.Name, o.Node)
		k.setPod(o.Namespace+"/"+o.Name, useOf(o))
	case *intent.Namespace:
		if old, ok := k.world.Namespaces[o.Name]; !ok || !maps.Equal(old, o.Labels) {
			k.world.Namespaces[o.Name] = o.Labels
			k.ring()
		}
	case *intent.Node:
		if old, ok := k.nodes[o.Name]; !ok || !maps.Equal(old, o.Labels) {
			k.nodes[o.Name] = o.Labels
			k.wires.setNode(o.Name)
			k.pools.setNode(o.Name)
			k.ring()
		}
	}
}

// Delete takes that one of them is gone.
func (k *Keeper) Delete(key intent.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch key.Kind {
	case intent.KindPod:
		k.bind(key.Name, "")
		k.setPod(key.Name, podUse{})
	case intent.KindNamespace:
		delete(k.world.Namespaces, key.Name)
		k.ring()
	case intent.KindNode:
		delete(k.nodes, key.Name)
		k.wires.setNode(key.Name)
		k.pools.setNode(key.Name)
		k.ring()
	}
}

// bind notes where a pod is; "": nowhere any more.
func (k *Keeper) bind(pod, node string) {
	old := k.bound[pod]
	if old == node {
		return
	}
	if old != "" {
		if k.peopled[old]--; k.peopled[old] == 0 {
			delete(k.peopled, old)
		}
	}
	if node == "" {
		delete(k.bound, pod)
		return
	}
	k.bound[pod] = node
	k.peopled[node]++
}

// Synced takes that the watch has delivered what there was.
func (k *Keeper) Synced(s kube.Source) {
	switch s {
	case kube.Pods, kube.Namespaces, kube.Nodes:
		k.heard(string(s))
	}
}

// useOf is what a pod has of networks other than the default one.
func useOf(p *intent.Pod) podUse {
	u := podUse{node: p.Node}
	for _, a := range p.Attachments {
		parts := strings.SplitN(a.Network, "/", 3) // namespace/definition[/index]
		if len(parts) < 2 {
			continue
		}
		if u.by == nil {
			u.by = map[string]int{}
		}
		n := 0
		if len(a.Addresses) > 0 {
			n = 1
		}
		u.by[parts[0]+"/"+parts[1]] += n
	}
	return u
}

func (k *Keeper) setPod(pod string, u podUse) {
	old := k.pods[pod]
	if old.node == u.node && maps.Equal(old.by, u.by) {
		return
	}
	for def := range old.by {
		delete(k.world.Uses[def], pod)
		if len(k.world.Uses[def]) == 0 {
			delete(k.world.Uses, def)
		}
	}
	for def, n := range u.by {
		if k.world.Uses[def] == nil {
			k.world.Uses[def] = map[string]claims.Use{}
		}
		k.world.Uses[def][pod] = claims.Use{Node: u.node, Addressed: n}
	}
	if len(u.by) == 0 {
		delete(k.pods, pod)
	} else {
		k.pods[pod] = u
	}
	if len(u.by)+len(old.by) > 0 {
		k.ring()
	}
}

// SetNode takes what a node's agent says.
func (k *Keeper) SetNode(n *v1alpha1.NodeNetwork) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reports[n.Name] = n.Status
	k.wires.setReport(n.Name, ofWires(n.Status.PhysicalNetworks))
	k.pools.setReport(n.Name, ofPools(n.Status.DevicePools))
	k.ring()
}

// DropNode forgets a node whose NodeNetwork has gone.
func (k *Keeper) DropNode(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.reports, name)
	k.wires.setReport(name, nil)
	k.pools.setReport(name, nil)
	k.ring()
}

// NodesHeard takes that every NodeNetwork there was has been given by SetNode. What is
// folded of them is not written before.
func (k *Keeper) NodesHeard() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.nodesHeard = true
	k.ring()
}

// setNetwork takes a Network as the server has it, unless a later version is known
// from the answer to a write.
func (k *Keeper) setNetwork(n *v1alpha1.Network) {
	name := networkOf(n)
	if n.Name != v1alpha1.NetworkObjectName(name) {
		k.log.Warn("a Network with a name that is not its network's is left alone", "network", name, "object", n.Name)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.world.Networks[name]; old != nil && old.UID == n.UID && !newer(old.ResourceVersion, n.ResourceVersion) {
		return
	}
	k.world.Networks[name] = n
	k.ring()
}

func networkOf(n *v1alpha1.Network) string {
	if n.Spec.Name != "" {
		return n.Spec.Name
	}
	return n.Name
}

// newer tells whether the second of two versions is; what cannot be compared is.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order < 0
}

func (k *Keeper) dropNetwork(n *v1alpha1.Network) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if old := k.world.Networks[networkOf(n)]; old != nil && old.UID == n.UID {
		delete(k.world.Networks, networkOf(n))
		k.ring()
	}
}

// setDefinition takes a definition: d is nil where it is another plugin's, and o
// where it is gone.
func (k *Keeper) setDefinition(key string, d *claims.Definition, o *nad) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o == nil {
		delete(k.nads, key)
	} else {
		k.nads[key] = o
	}
	if d == nil {
		delete(k.world.Definitions, key)
	} else {
		k.world.Definitions[key] = d
	}
	k.ring()
}

func (k *Keeper) setPhysical(name string, p *v1alpha1.PhysicalNetwork) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.world.Physical[name]
	switch {
	case p == nil:
		delete(k.world.Physical, name)
		k.wires.dropObject(name)
	case old != nil && old.UID == p.UID && !newer(old.ResourceVersion, p.ResourceVersion):
		return
	default:
		k.world.Physical[name] = p
		k.wires.setObject(name, p.ObjectMeta, p.Spec.NodeSelector)
	}
	k.ring()
}

// setBlock takes a block; nil: it is gone.
func (k *Keeper) setBlock(name string, b *v1alpha1.AddressBlock) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.blocks[name]
	if old != nil && b != nil && old.UID == b.UID && !newer(old.ResourceVersion, b.ResourceVersion) {
		return
	}
	if old != nil {
		k.count(old, -1)
	}
	if b == nil {
		delete(k.blocks, name)
	} else {
		k.blocks[name] = b
		k.count(b, 1)
	}
	k.ring()
}

func (k *Keeper) count(b *v1alpha1.AddressBlock, by int) {
	sum := k.world.Blocks[b.Spec.Network]
	sum.Count += by
	for _, e := range b.Spec.Entries {
		if e.Claim == "" {
			continue
		}
		if e.Pod == "" {
			sum.Held += by
		}
		switch {
		case by < 0:
			delete(k.claimed[e.Claim], b.Name)
		case k.claimed[e.Claim] == nil:
			k.claimed[e.Claim] = map[string]struct{}{b.Name: {}}
		default:
			k.claimed[e.Claim][b.Name] = struct{}{}
		}
		if len(k.claimed[e.Claim]) == 0 {
			delete(k.claimed, e.Claim)
		}
	}
	if k.world.Blocks[b.Spec.Network] = sum; sum.Count == 0 {
		delete(k.world.Blocks, b.Spec.Network)
	}
}

// tunnelMTU is the least that nodes say fits through their tunnels; 0: none says.
func (k *Keeper) tunnelMTU() int {
	least := 0
	for _, s := range k.reports {
		if s.PodMTU > 0 && (least == 0 || s.PodMTU < least) {
			least = s.PodMTU
		}
	}
	return least
}
