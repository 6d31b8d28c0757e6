package claims

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// ReasonForbidden: who claims, or what, is not allowed to.
const ReasonForbidden = "Forbidden"

// World is what decisions are made of.
type World struct {
	Plan        *intent.Cluster
	MTU         int                                  // that fits through the tunnels, as nodes say; 0: not known, the plan's
	Definitions map[string]*Definition               // by "namespace/name"; those of this plugin
	Networks    map[string]*v1alpha1.Network         // by network name
	Physical    map[string]*v1alpha1.PhysicalNetwork // by name
	Namespaces  map[string]map[string]string         // labels
	Uses        map[string]map[string]Use            // by definition, by pod
	Blocks      map[string]Blocks                    // by network name
}

// Use is what one pod has by one definition.
type Use struct {
	Node      string
	Addressed int // interfaces with addresses
}

// Blocks sums up a network's AddressBlocks.
type Blocks struct {
	Count int
	Held  int // entries that a claim alone holds
}

// Want is a network as it should be. Its ID is 0 where it has none yet.
type Want struct {
	Spec   v1alpha1.NetworkSpec // without NamespaceSelector, which is the administrator's
	Status v1alpha1.NetworkStatus
}

// Finding is why a definition is not as its writer wants it.
type Finding struct{ Reason, Message string }

// Decision is all that follows from a world.
type Decision struct {
	Networks []Want             // those new last, in the order of their claims' ages
	Gone     []string           // networks that nobody claims or uses any more
	Findings map[string]Finding // by definition
}

// claim is a definition and what is thought of it.
type claim struct {
	*Definition
	fault *fault
}

// Decide says which networks there should be.
func Decide(w *World) Decision {
	d := Decision{Findings: map[string]Finding{}}
	claims := map[string][]*claim{}
	for key, def := range w.Definitions {
		if def.Network == "" {
			d.Findings[key] = Finding{v1alpha1.ReasonInvalid, def.Err.Error()}
			continue
		}
		claims[def.Network] = append(claims[def.Network], &claim{Definition: def})
	}
	for _, list := range claims {
		slices.SortFunc(list, older)
	}
	names := slices.Sorted(maps.Keys(w.Networks))
	there := w.survey(names)
	var fresh []string
	for name := range claims {
		if w.Networks[name] == nil {
			fresh = append(fresh, name)
		}
	}
	slices.SortFunc(fresh, func(a, b string) int { return older(claims[a][0], claims[b][0]) })
	for _, name := range append(names, fresh...) {
		s := w.settle(name, claims[name], there)
		if s == nil {
			d.Gone = append(d.Gone, name)
			continue
		}
		for _, c := range s.claims {
			if c.Message != "" {
				d.Findings[c.Definition] = Finding{s.reasons[c.Definition], c.Message}
			}
		}
		if s.Spec.Topology != "" {
			d.Networks = append(d.Networks, s.Want)
		}
	}
	return d
}

// older orders claims: of those that differ, the first is accepted.
func older(a, b *claim) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Key(), b.Key()))
}

// survey is what of the networks that are there may be in the way of a claim, gathered
// once for all claims.
type survey struct {
	held    map[string]string   // the network by which pods are attached, by definition
	escaped map[string][]string // accepted networks, by their name in OVN
	used    []neighbour         // accepted networks that pods are attached to
}

// neighbour is a network and its subnets.
type neighbour struct {
	name    string
	subnets []intent.NetworkSubnet
}

func (w *World) survey(names []string) *survey {
	out := &survey{held: map[string]string{}, escaped: map[string][]string{}}
	for _, name := range names {
		n := w.Networks[name]
		if len(n.Spec.Definitions) == 0 {
			continue
		}
		out.escaped[escaped(name)] = append(out.escaped[escaped(name)], name)
		used := false
		for _, def := range n.Spec.Definitions {
			if len(w.Uses[def]) > 0 {
				used, out.held[def] = true, name
			}
		}
		if used {
			out.used = append(out.used, neighbour{name, parsed(n.Spec).Subnets})
		}
	}
	return out
}

// settled is a network on its way to a Want.
type settled struct {
	Want
	name    string
	inUse   bool     // its configuration must not change
	had     []string // definitions that were accepted before
	claims  []v1alpha1.NetworkClaim
	reasons map[string]string // of claims' messages
	live    int               // claims that are accepted
	worst   string            // a reason that makes the network not ready
}

// settle decides about one network; nil: it goes.
func (w *World) settle(name string, list []*claim, there *survey) *settled {
	s := &settled{name: name, reasons: map[string]string{}}
	before := w.Networks[name]
	if before != nil {
		s.had = before.Spec.Definitions
		s.Spec = before.Spec
		s.Spec.NamespaceSelector = nil
	}
	s.Spec.Name = name
	used := slices.ContainsFunc(s.had, func(def string) bool { return len(w.Uses[def]) > 0 })
	s.inUse = used || before != nil && len(s.had) > 0 && w.Blocks[name].Count > 0
	if len(list) == 0 && !used {
		return nil
	}
	for _, c := range list {
		c.fault = w.judge(c, before, there)
	}
	s.base(list)
	s.Spec.Definitions = nil
	for _, c := range list {
		s.claim(c)
	}
	for _, def := range s.had {
		if len(w.Uses[def]) > 0 && !slices.Contains(s.Spec.Definitions, def) {
			s.Spec.Definitions = append(s.Spec.Definitions, def)
		}
	}
	slices.Sort(s.Spec.Definitions)
	w.status(s, before)
	return s
}

// judge is check, and what a claim may not for other networks' sake.
func (w *World) judge(c *claim, before *v1alpha1.Network, there *survey) *fault {
	if other := there.held[c.Key()]; other != "" && other != c.Network {
		return &fault{v1alpha1.ReasonConflict, fmt.Sprintf(
			"name is %s, and %d pods are attached to network %s by this definition: it stays that network's until they have gone",
			c.Network, len(w.Uses[c.Key()]), other)}
	}
	if f := w.check(c.Definition); f != nil {
		return f
	}
	if before != nil {
		if ok, err := w.chosen(before.Spec.NamespaceSelector, c.Namespace); err != nil || !ok {
			return &fault{ReasonForbidden, fmt.Sprintf(
				"namespace %s is not among those that network %s's spec.namespaceSelector chooses", c.Namespace, c.Network)}
		}
		if len(before.Spec.Definitions) > 0 {
			return nil // it was accepted beside the others
		}
	}
	return there.beside(c)
}

// beside refuses a network that is new where another that is there is in its way.
func (s *survey) beside(c *claim) *fault {
	for _, name := range s.escaped[escaped(c.Network)] {
		if name != c.Network {
			return invalid("name %q and that of network %q are one name in OVN, where - and / are dots: choose another", c.Network, name)
		}
	}
	subnets := parsed(c.Spec).Subnets
	for _, other := range s.used {
		if other.name == c.Network {
			continue
		}
		if a, b := overlap(subnets, other.subnets); a != "" {
			return invalid("subnets: %s overlaps %s of network %s, which is in use: choose another", a, b, other.name)
		}
	}
	return nil
}

func escaped(name string) string { return strings.NewReplacer("-", ".", "/", ".").Replace(name) }

// base is the configuration that claims have to agree with.
func (s *settled) base(list []*claim) {
	var first *claim
	for _, c := range list {
		if c.fault == nil && (!s.inUse || slices.Contains(s.had, c.Key())) {
			first = c
			break
		}
	}
	switch {
	case first == nil && (s.inUse || len(s.had) > 0):
	case first == nil: // nothing of it was ever accepted
		s.Spec = v1alpha1.NetworkSpec{Name: s.name, ID: s.Spec.ID, Topology: s.Spec.Topology}
		for _, c := range list {
			s.Spec.Topology = cmp.Or(c.Spec.Topology, s.Spec.Topology)
		}
	case s.inUse:
		soften(&s.Spec, first.Spec)
	default:
		id := s.Spec.ID
		s.Spec = first.Spec
		s.Spec.ID = id
	}
}

// claim accepts a definition, or says why not.
func (s *settled) claim(c *claim) {
	out := v1alpha1.NetworkClaim{Definition: c.Key()}
	before := s.inUse && slices.Contains(s.had, c.Key())
	reason := v1alpha1.ReasonConflict
	switch {
	case c.fault != nil:
		reason, out.Message = c.fault.reason, c.fault.message
		out.Accepted = before && reason != ReasonForbidden
		if out.Accepted && reason != v1alpha1.ReasonPhysicalNetwork {
			out.Message += "; while the network is in use, what was accepted stays in force"
		}
		if reason == v1alpha1.ReasonPhysicalNetwork {
			s.worst = reason
		}
	default:
		out.Message = differs(s.Spec, c.Spec)
		out.Accepted = out.Message == "" || before
		if out.Message != "" && before {
			out.Message += "; while the network is in use, what is accepted stays in force"
		}
	}
	if out.Accepted {
		s.live++
		s.Spec.Definitions = append(s.Spec.Definitions, out.Definition)
	}
	if out.Message != "" {
		s.reasons[out.Definition] = reason
	}
	s.claims = append(s.claims, out)
}

// status counts, and says how the network is.
func (w *World) status(s *settled, before *v1alpha1.Network) {
	pods, nodes := map[string]struct{}{}, map[string]struct{}{}
	used := int64(w.Blocks[s.name].Held)
	for _, def := range s.Spec.Definitions {
		for pod, use := range w.Uses[def] {
			pods[pod], nodes[use.Node] = struct{}{}, struct{}{}
			used += int64(use.Addressed)
		}
	}
	s.Status = v1alpha1.NetworkStatus{Pods: len(pods), Nodes: len(nodes), AddressesUsed: used, Claims: s.claims}
	s.Status.AddressesFree = max(0, capacity(s.Spec)-used)
	c := s.condition()
	if before != nil {
		for _, old := range before.Status.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	s.Status.Conditions = []metav1.Condition{c}
}

// mostTold is how many claims a condition's message names.
const mostTold = 5

func (s *settled) condition() metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAccepted}
	var told []string
	for _, claim := range s.claims {
		if claim.Message == "" {
			continue
		}
		if told = append(told, claim.Definition+": "+claim.Message); len(told) == 1 {
			c.Reason = s.reasons[claim.Definition]
		}
	}
	if more := len(told) - mostTold; more > 0 {
		told = append(told[:mostTold], fmt.Sprintf("and %d more, in status.claims", more))
	}
	c.Message = strings.Join(told, "\n")
	switch {
	case s.worst != "":
		c.Status, c.Reason = metav1.ConditionFalse, s.worst
	case len(s.claims) == 0:
		c.Status, c.Reason = metav1.ConditionFalse, ReasonLeaving
		c.Message = fmt.Sprintf("no definition is left, and %d pods are attached: the network goes with the last of them", s.Status.Pods)
	case s.live == 0:
		c.Status = metav1.ConditionFalse
	}
	return c
}

// ReasonLeaving: pods use the network, and no new ones can join.
const ReasonLeaving = "Leaving"
