// Package foresee answers what portolan-manager would make of definitions that nobody
// has applied: which network each would be of, and why one would be refused.
//
//	intent that is there ──┐
//	manifest ──────────────┴─> Networks ──> networks as they would be, notes, problems
//
// It decides by package claims, as the manager does; ids are assumed. There is no I/O:
// the agents' API and the portolan command ask it for their plans.
package foresee

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/claims"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Networks says what a manifest's definitions come to on top of what is there; with
// remove, what their deletion does.
func Networks(have, manifest []intent.Object, remove bool) inspect.Foresight {
	var out inspect.Foresight
	var asked []*intent.Definition
	for _, o := range manifest {
		if d, ok := o.(*intent.Definition); ok {
			asked = append(asked, d)
		}
	}
	if len(asked) == 0 {
		return out
	}
	s := newScene(have)
	for n, d := range asked {
		if remove {
			delete(s.world.Definitions, keyOf(d))
			continue
		}
		s.add(d, time.Unix(1, 0).Add(time.Duration(n)))
	}
	for _, o := range manifest { // a manifest may bring a wire with its network
		if p, ok := o.(*intent.PhysicalNetwork); ok && !remove {
			s.world.Physical[p.Name] = physical(p)
		}
	}
	decided := claims.Decide(&s.world)
	for _, w := range decided.Networks {
		s.change(&out, w)
	}
	for _, name := range decided.Gone {
		out.Gone = append(out.Gone, intent.Key{Kind: intent.KindNetwork, Name: name})
		out.Notes = append(out.Notes, fmt.Sprintf("network %s would go: no definition claims it and no pod is on it", name))
	}
	for _, d := range asked {
		s.tell(&out, d, decided, remove)
	}
	return out
}

func keyOf(d *intent.Definition) string { return d.Namespace + "/" + d.Name }

// scene is what there is, as the manager would see it.
type scene struct {
	world    claims.World
	networks map[string]*intent.Network
	foreign  map[string]bool // definitions that are not Portolan's
	present  map[string]bool // networks that are rendered
	last     int             // the highest id
}

func newScene(have []intent.Object) *scene {
	s := &scene{networks: map[string]*intent.Network{}, foreign: map[string]bool{}, present: map[string]bool{}, world: claims.World{
		Plan: &intent.Cluster{}, Definitions: map[string]*claims.Definition{}, Networks: map[string]*v1alpha1.Network{}, Physical: map[string]*v1alpha1.PhysicalNetwork{},
		Namespaces: map[string]map[string]string{}, Uses: map[string]map[string]claims.Use{}, Blocks: map[string]claims.Blocks{},
	}}
	for _, o := range have {
		switch o := o.(type) {
		case *intent.Cluster:
			s.world.Plan, s.world.MTU = o, o.MTU
		case *intent.Definition:
			s.add(o, time.Unix(0, 0))
		case *intent.Network:
			if o.Name != intent.DefaultNetwork {
				s.networks[o.Name], s.world.Networks[o.Name] = o, network(o)
				s.last = max(s.last, o.ID)
			}
		case *intent.PhysicalNetwork:
			s.world.Physical[o.Name] = physical(o)
		case *intent.Namespace:
			s.world.Namespaces[o.Name] = o.Labels
		case *intent.Presence:
			s.present[o.Network] = true
		case *intent.Block:
			b := s.world.Blocks[o.Network]
			b.Count++
			s.world.Blocks[o.Network] = b
		case *intent.Pod:
			s.use(o)
		}
	}
	for name, n := range s.networks {
		for _, key := range n.Definitions {
			if s.world.Definitions[key] == nil { // who asks may not know definitions' text
				d := &claims.Definition{Network: name, Spec: s.world.Networks[name].Spec, Created: time.Unix(0, 0)}
				d.Namespace, d.Name, _ = strings.Cut(key, "/")
				s.world.Definitions[key] = d
			}
		}
	}
	return s
}

func (s *scene) use(p *intent.Pod) {
	for _, a := range p.Attachments {
		if a.Network == intent.DefaultNetwork {
			continue
		}
		d := intent.DefinitionOf(a.Network)
		if s.world.Uses[d] == nil {
			s.world.Uses[d] = map[string]claims.Use{}
		}
		u := s.world.Uses[d][p.Key().Name]
		u.Node = p.Node
		if len(a.Addresses) > 0 {
			u.Addressed++
		}
		s.world.Uses[d][p.Key().Name] = u
	}
}

// add reads a definition; the first by age is the one whose word counts.
func (s *scene) add(d *intent.Definition, created time.Time) {
	c := &claims.Definition{Namespace: d.Namespace, Name: d.Name, UID: d.UID, Created: created}
	if old := s.world.Definitions[keyOf(d)]; old != nil {
		c.UID, c.Created = old.UID, old.Created // an edit makes it no younger
	}
	if delete(s.world.Definitions, keyOf(d)); c.Parse(d.Config) {
		s.world.Definitions[keyOf(d)] = c
	} else {
		s.foreign[keyOf(d)] = true
	}
}

// change notes a network that is new, or would be another.
func (s *scene) change(out *inspect.Foresight, w claims.Want) {
	spec := w.Spec
	old := s.networks[spec.Name]
	if old != nil {
		spec.ID = old.ID
		spec.NamespaceSelector = selector(old.Namespaces)
	} else {
		if len(spec.Definitions) == 0 {
			return // what is refused is told of its definition
		}
		s.last++
		spec.ID = s.last
	}
	n, problems := kube.ParseNetwork(&v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.NetworkObjectName(spec.Name)}, Spec: spec})
	out.Problems = append(out.Problems, problems...)
	if n == nil || old != nil && old.Equal(n) {
		return
	}
	out.Objects = append(out.Objects, n)
	if old == nil {
		out.Notes = append(out.Notes, fmt.Sprintf("network %s would be made: %s; id %d is assumed, for portolan-manager gives ids", n.Name, described(n), n.ID))
	}
}

// described is a network in a few words.
func described(n *intent.Network) string {
	words := []string{string(n.Topology)}
	for _, s := range n.Subnets {
		words = append(words, inspect.SubnetText(s))
	}
	if n.Topology == intent.Localnet {
		words = append(words, "on physical network "+n.Wire())
		if n.VLAN != 0 {
			words = append(words, fmt.Sprintf("VLAN %d", n.VLAN))
		}
	}
	return strings.Join(words, ", ")
}

// tell says what becomes of one definition.
func (s *scene) tell(out *inspect.Foresight, d *intent.Definition, decided claims.Decision, remove bool) {
	key := keyOf(d)
	if remove {
		if n := len(s.world.Uses[key]); n > 0 {
			out.Notes = append(out.Notes, fmt.Sprintf("%s: %d pods that are attached by it go on, new ones are refused, and the network goes with the last of them", key, n))
		}
		return
	}
	if s.foreign[key] {
		out.Notes = append(out.Notes, key+" is of no network of Portolan's, so it has no rows: another plugin, the default network, or a file of the node")
		return
	}
	if f, refused := decided.Findings[key]; refused {
		out.Problems = append(out.Problems, rows.Problem{Object: "NetworkAttachmentDefinition/" + key, Field: "spec.config", Severity: rows.Error, Message: f.Reason + ": " + f.Message})
		return
	}
	name := s.world.Definitions[key].Network
	if old := s.networks[name]; old != nil {
		out.Notes = append(out.Notes, fmt.Sprintf("%s is of network %s, which is there (id %d)", key, name, old.ID))
	}
	if !s.present[name] {
		out.Notes = append(out.Notes, fmt.Sprintf("no pod of this zone uses network %s, so it costs no rows: the first pod that is attached makes them, and they go %s after the last", name, "120 s"))
	}
}

// network is the object of an intent.
func network(n *intent.Network) *v1alpha1.Network {
	spec := v1alpha1.NetworkSpec{
		Name: n.Name, ID: n.ID, Topology: string(n.Topology), MTU: n.MTU, VLAN: n.VLAN, PhysicalNetwork: n.PhysicalNetwork,
		PersistentIPs: n.PersistentIPs, Offload: n.Offload, Definitions: n.Definitions, NamespaceSelector: selector(n.Namespaces),
	}
	for _, s := range n.Subnets {
		spec.Subnets = append(spec.Subnets, inspect.SubnetText(s))
	}
	for _, p := range n.Exclude {
		spec.ExcludeSubnets = append(spec.ExcludeSubnets, p.String())
	}
	for _, p := range n.Reserved {
		spec.ReservedSubnets = append(spec.ReservedSubnets, p.String())
	}
	return &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.NetworkObjectName(n.Name)}, Spec: spec}
}

func physical(p *intent.PhysicalNetwork) *v1alpha1.PhysicalNetwork {
	spec := v1alpha1.PhysicalNetworkSpec{NIC: p.NIC, Bridge: p.Bridge, NodeSelector: selector(p.Nodes), NamespaceSelector: selector(p.Namespaces)}
	for _, r := range p.VLANs {
		spec.VLANs = append(spec.VLANs, fmt.Sprintf("%d-%d", r[0], r[1]))
	}
	return &v1alpha1.PhysicalNetwork{ObjectMeta: metav1.ObjectMeta{Name: p.Name}, Spec: spec}
}

// selector is the object's form of a selector; nil selects all.
func selector(l intent.Labels) *metav1.LabelSelector {
	if len(l) == 0 {
		return nil
	}
	ops := map[intent.Op]metav1.LabelSelectorOperator{
		intent.In: metav1.LabelSelectorOpIn, intent.NotIn: metav1.LabelSelectorOpNotIn,
		intent.Exists: metav1.LabelSelectorOpExists, intent.DoesNotExist: metav1.LabelSelectorOpDoesNotExist,
	}
	out := &metav1.LabelSelector{}
	for _, r := range l {
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: r.Key, Operator: ops[r.Op], Values: slices.Clone(r.Values)})
	}
	return out
}
