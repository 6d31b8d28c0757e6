// Package networks knows, in a node's agent, the networks beside the default one:
// which a definition is of, whether a pod may join it, and which addresses it has
// there.
//
//	watch ──> Networks <── cni.Agent asks: Plan, Attach, Give
//	             │
//	             └──> Blocks: leases of the networks' parts, in the API server
//
// Of a layer3 network the node leases one block, its subnet, and gives addresses of it
// from memory. Of a layer2 or localnet network what is given is an entry of a block,
// and is there before anybody is told (ADR 31).
//
// Invariants: a pod gets an interface on a network only where its namespace, its
// definition's namespace and the physical network allow it; an address that another
// node may give is not given without the API server's word.
package networks

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Blocks are the API server's AddressBlocks, by network and slot. kube.Blocks
// implements it.
type Blocks interface {
	// Make makes a block. Its error is kube.ErrBlockTaken when the slot has one.
	Make(ctx context.Context, b *intent.Block) error
	// Change reads a block, has it changed, and writes it if it is still as it was read;
	// else once more. An error of change ends that, and is returned. A block that is not
	// there has kube.ErrBlockGone.
	Change(ctx context.Context, network string, slot int, change func(*intent.Block) error) error
	// Remove removes a block if gone says so of what it is.
	Remove(ctx context.Context, network string, slot int, gone func(*intent.Block) bool) error
}

// Config says whom Networks serves.
type Config struct {
	Node   string
	Blocks Blocks
	MTU    int // of interfaces on networks that are tunnelled and name none
	// Isolated: a pod may name definitions of its own namespace and of Shared ones only.
	Isolated bool
	Shared   []string
	// Local: there is no API server, and so no portolan-manager.
	Local bool
	// Alive reports whether a pod, "namespace/name" and UID, is one of this node's; nil:
	// nobody knows.
	Alive func(pod, uid string) bool
	// File gives the text of the node's CNI configuration of a name, "" where there is
	// none: for definitions without a configuration. Nil: there is none.
	File func(name string) string
	Now  func() time.Time // the clock; nil: time.Now
	Log  *slog.Logger     // nil: slog.Default
}

// Networks is safe for concurrent use.
type Networks struct {
	cfg   Config
	freed chan struct{} // holds a token when there is something to clean

	mu          sync.Mutex // guards what follows
	self        *intent.Node
	networks    map[string]*network           // by name
	claims      map[string]string             // definition → name of its network
	definitions map[string]*intent.Definition // by namespace/name
	plans       map[planKey]*multus.Plan      // made of the definitions that are known
	namespaces  map[string]map[string]string  // labels
	physical    map[string]*intent.PhysicalNetwork
	held        map[string]*intent.Claim // IPAMClaims by namespace/name
	changed     chan struct{}
}

// New makes one that knows nothing yet.
func New(c Config) *Networks {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Networks{
		cfg: c, freed: make(chan struct{}, 1), networks: map[string]*network{}, claims: map[string]string{}, definitions: map[string]*intent.Definition{},
		namespaces: map[string]map[string]string{}, physical: map[string]*intent.PhysicalNetwork{}, held: map[string]*intent.Claim{}, changed: make(chan struct{}),
	}
}

// Put takes an object from the API server. Kinds that say nothing of networks are
// passed over.
func (n *Networks) Put(o intent.Object) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch o := o.(type) {
	case *intent.Node:
		if o.Name != n.cfg.Node {
			return
		}
		n.self = o
	case *intent.Namespace:
		n.namespaces[o.Name] = o.Labels
	case *intent.Definition:
		n.definitions[o.Namespace+"/"+o.Name] = o
		n.plans = nil
	case *intent.PhysicalNetwork:
		n.physical[o.Name] = o
	case *intent.Claim:
		n.held[o.Namespace+"/"+o.Name] = o
	case *intent.Block:
		n.network(o.Network).putBlock(o)
	case *intent.Network:
		if o.Name == intent.DefaultNetwork {
			return
		}
		n.unclaim(o.Name)
		n.network(o.Name).putSpec(o)
		for _, d := range o.Definitions {
			n.claims[d] = o.Name
		}
	default:
		return
	}
	n.wake()
}

// Delete takes an object's end.
func (n *Networks) Delete(k intent.Key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch k.Kind {
	case intent.KindNamespace:
		delete(n.namespaces, k.Name)
	case intent.KindDefinition:
		delete(n.definitions, k.Name)
		n.plans = nil
	case intent.KindPhysicalNetwork:
		delete(n.physical, k.Name)
	case intent.KindClaim:
		delete(n.held, k.Name)
	case intent.KindBlock:
		if slot, name, ok := blockOf(k); ok {
			n.network(name).deleteBlock(slot)
		}
	case intent.KindNetwork:
		n.unclaim(k.Name)
		if w := n.networks[k.Name]; w != nil {
			w.putSpec(nil)
		}
	default:
		return
	}
	n.wake()
}

// network is the state of a network, which is made when there is none; n.mu is held.
func (n *Networks) network(name string) *network {
	w := n.networks[name]
	if w == nil {
		w = newNetwork(name, n)
		n.networks[name] = w
	}
	return w
}

func (n *Networks) unclaim(name string) {
	for d, of := range n.claims {
		if of == name {
			delete(n.claims, d)
		}
	}
}

// wake rings everybody who waits; n.mu is held.
func (n *Networks) wake() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Changed implements cni.Networks.
func (n *Networks) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Named implements cni.Networks.
func (n *Networks) Named(name string) (cni.Network, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.networks[name]
	if w == nil || w.specOf() == nil {
		return cni.Network{}, false
	}
	return n.answer(w), true
}

// All implements cni.Networks.
func (n *Networks) All() []cni.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []cni.Network
	for _, name := range slices.Sorted(maps.Keys(n.networks)) {
		if w := n.networks[name]; w.specOf() != nil {
			out = append(out, n.answer(w))
		}
	}
	return out
}

func (n *Networks) answer(w *network) cni.Network {
	spec := w.specOf()
	mtu := spec.MTU
	if mtu == 0 && spec.Topology != intent.Localnet {
		mtu = n.cfg.MTU
	}
	return cni.Network{Name: spec.Name, MTU: mtu, Addresses: w}
}

// Attach implements cni.Networks. It is the border between namespaces: who may name
// which definition, and whom a network and a physical network let in.
func (n *Networks) Attach(wish cni.Wish) (cni.Network, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if wish.Key == intent.DefaultNetwork {
		return cni.Network{}, n.mayReplace(wish)
	}
	definition := wish.Definition()
	space := wish.DefinitionNamespace()
	if err := n.mayName(wish, definition, space); err != nil {
		return cni.Network{}, err
	}
	a, err := n.attachment(wish)
	if err != nil {
		return cni.Network{}, err
	}
	if multus.Waits(a.Err) {
		return cni.Network{}, &cni.PendingError{Reason: a.Err.Error()}
	}
	chain, err := n.served(a)
	if err != nil {
		return cni.Network{}, err
	}
	if a.Config == nil {
		return cni.Network{Name: a.Network, Chain: chain, Resource: a.Resource, Device: a.Device}, nil
	}
	w := n.networks[n.claims[definition]]
	if w == nil || w.specOf() == nil {
		return cni.Network{}, &cni.PendingError{Reason: fmt.Sprintf("NetworkAttachmentDefinition %s is of no accepted network: kubectl get networks, and the definition's Events, say why", definition)}
	}
	spec := w.specOf()
	for _, s := range []string{wish.Pod.Namespace, space} {
		labels, ok := n.namespaces[s]
		if !ok {
			return cni.Network{}, &cni.PendingError{Reason: fmt.Sprintf("namespace %s is not known yet", s)}
		}
		if !spec.Namespaces.Matches(labels) {
			return cni.Network{}, fmt.Errorf("network %s does not admit namespace %s: its namespaceSelector is %s; ask its administrator, or label the namespace",
				spec.Name, s, spec.Namespaces)
		}
	}
	if err := n.mayUse(spec, space); err != nil {
		return cni.Network{}, err
	}
	if err := n.agrees(a, w, spec); err != nil {
		return cni.Network{}, err
	}
	if err := n.mayHold(wish, w, spec); err != nil {
		return cni.Network{}, err
	}
	out := n.answer(w)
	out.Chain, out.Resource = chain, a.Resource
	out.Device, out.Offload = cmp.Or(a.Device, a.Config.DeviceID), a.Config.Offload
	out.Lease, err = leaseOf(a)
	return out, err
}

// served refuses what this node does not do, rather than leave it out, and says what
// plugins of others do.
func (n *Networks) served(a *multus.Attachment) (cni.Chain, error) {
	if a.Err != nil {
		return cni.Chain{}, a.Err
	}
	if a.Config != nil && a.Config.Default {
		return cni.Chain{}, fmt.Errorf("definition %s is of the default network, which the pod has as its first interface: name another", a.Key)
	}
	return chainOf(a)
}

// mayName applies namespace isolation; n.mu is held.
func (n *Networks) mayName(w cni.Wish, definition, space string) error {
	if !n.cfg.Isolated || space == w.Pod.Namespace || slices.Contains(n.cfg.Shared, space) {
		return nil
	}
	return fmt.Errorf("pod %s may not name NetworkAttachmentDefinition %s: namespaceIsolation is on, and namespace %s is neither the pod's nor one of sharedNamespaces %v",
		w.Pod, definition, space, n.cfg.Shared)
}

// mayUse checks what a localnet is bridged to; n.mu is held.
func (n *Networks) mayUse(spec *intent.Network, space string) error {
	if spec.Topology != intent.Localnet {
		return nil
	}
	name := spec.Wire()
	p := n.physical[name]
	switch {
	case p == nil:
		return &cni.PendingError{Reason: fmt.Sprintf("PhysicalNetwork %s of network %s does not exist: create it", name, spec.Name)}
	case !p.Namespaces.Matches(n.namespaces[space]):
		return fmt.Errorf("PhysicalNetwork %s does not admit definitions of namespace %s: its namespaceSelector is %s", name, space, p.Namespaces)
	case n.self != nil && !p.Nodes.Matches(n.self.Labels):
		return fmt.Errorf("PhysicalNetwork %s is not on node %s: its nodeSelector is %s; give the pod a nodeSelector that agrees", name, n.cfg.Node, p.Nodes)
	case len(p.VLANs) > 0 && !slices.ContainsFunc(p.VLANs, func(r [2]int) bool { return r[0] <= spec.VLAN && spec.VLAN <= r[1] }):
		return fmt.Errorf("PhysicalNetwork %s does not admit VLAN %d of network %s: it has %v", name, spec.VLAN, spec.Name, p.VLANs)
	}
	return nil
}
