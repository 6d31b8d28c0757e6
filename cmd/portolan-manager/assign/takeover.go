package assign

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// lost says what a node's agent ran with that the node cannot have, and why; "" is
// nothing.
type lost struct{ id, subnets string }

// TakeOver begins with what the cluster says, and then with what an earlier leader put
// to rest. runs is what agents say that they run with, by the node's name. While nobody
// leads, whoever may write a Node may edit its annotations, and an agent that somebody
// has taken over may say anything: so what both say goes first, then what an agent says
// against its Node's annotations, then the annotations. Among equals the older Node goes
// first. Whatever else was ever given rests from now on: its node may have gone while
// nobody led. It sorts nodes, the oldest first.
func (a *Assigner) TakeOver(nodes []*corev1.Node, runs map[string]kube.Allocation, left Record) {
	slices.SortFunc(nodes, olderFirst)
	each := func(take func(*corev1.Node, kube.Allocation)) {
		for _, n := range nodes {
			// What a Node had that was deleted is no more than a rest to its successor.
			if r := runs[n.Name]; r.UID != "" && r.UID == string(n.UID) {
				take(n, r)
			}
		}
	}
	each(a.agreed)
	a.Resume(left.Rests)
	each(a.running)
	for _, n := range nodes {
		a.Reserve(n)
	}
	a.ids.Hush(max(left.ID, a.ids.High()))
	below := a.subnets.High()
	for i := range below {
		if i < len(left.Subnets) {
			below[i] = max(below[i], left.Subnets[i])
		}
	}
	a.subnets.Hush(below)
}

// agreed takes over what a node's annotations and its agent both say.
func (a *Assigner) agreed(n *corev1.Node, r kube.Allocation) {
	if id, err := kube.ParseNodeID(n.Annotations[kube.AnnotationNodeID]); err == nil && id == r.ID {
		a.reserveID(n.Name, id)
	}
	if subnets, err := kube.ParseNodeSubnets(n.Annotations[kube.AnnotationNodeSubnets]); err == nil && slices.Equal(subnets, r.Subnets) {
		a.reserveSubnets(n.Name, subnets)
	}
}

// running takes over what a node's agent says against its annotations, as far as nobody
// holds it and it does not rest for another.
func (a *Assigner) running(n *corev1.Node, r kube.Allocation) {
	s := a.of(n.Name)
	rest := a.restOf(n.Name, r)
	if id, err := kube.ParseNodeID(n.Annotations[kube.AnnotationNodeID]); s.id == 0 && (err != nil || id != r.ID) {
		err := rest
		if err == nil {
			err = a.ids.Reserve(n.Name, r.ID)
		}
		if err != nil {
			s.lost.id = fmt.Sprintf("id %d, which it cannot have: %s", r.ID, err)
		} else {
			s.id = r.ID
		}
	}
	if s.subnets != nil || s.foreign != nil {
		return
	}
	claimed, err := kube.ParseNodeSubnets(n.Annotations[kube.AnnotationNodeSubnets])
	if other := a.holder(n.Name, r.Subnets); rest == nil && other != "" {
		rest = fmt.Errorf("node %s has them", other)
	}
	switch {
	case rest != nil:
		s.lost.subnets = fmt.Sprintf("subnets %s, which it cannot have: %s", r.Subnets, rest)
	case err != nil: // an earlier plan's, perhaps
		a.reserveSubnets(n.Name, r.Subnets)
	case kube.Covers(claimed, r.Subnets) && a.holder(n.Name, claimed) == "" && a.subnets.Reserve(n.Name, claimed) == nil:
		s.subnets = claimed // a family more, of which the agent does not know yet
	case a.subnets.Reserve(n.Name, r.Subnets) == nil:
		s.subnets = r.Subnets
	}
}

// restOf is an error if any of an allocation rests for another node.
func (a *Assigner) restOf(name string, r kube.Allocation) error {
	for _, rest := range a.Rests() {
		if rest.Node != name && (rest.ID == r.ID || overlap(rest.Subnets, r.Subnets)) {
			return fmt.Errorf("node %s had them, which is deleted, and they rest", rest.Node)
		}
	}
	return nil
}
