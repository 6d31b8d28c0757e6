// Package assign answers which id and which subnets each node of the cluster has.
// Its inputs are Node objects as the API server holds them, what their agents say that
// they run with, and what an earlier leader put to rest; its output is annotations to
// write and findings to tell.
//
// Invariants: no id and no subnet is two nodes'; what a deleted node had rests five
// minutes, over changes of the leader too; an annotation that somebody else
// changes is set back, also one that was changed while nobody led. There is no I/O
// here: portolan-manager does it.
package assign

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// Assigner decides what each node's annotations should say. It does no I/O and is
// used by one goroutine.
//
// At the start TakeOver finds out what nodes have, before Assign is called for any.
// From then on what is held here is the truth, and an annotation that somebody else
// changes is set back: a node's own kubelet may write its annotations, and must not
// take another node's subnet.
type Assigner struct {
	ids     *alloc.IDs
	subnets *alloc.Subnets
	state   map[string]*nodeState
	rests   []Rest
	now     func() time.Time
}

// nodeState is what is known of a node beyond its annotations.
type nodeState struct {
	id       int            // 0: holds none
	subnets  []netip.Prefix // nil: holds none
	foreign  []netip.Prefix // in force, though no part of the plan
	lost     lost           // what its agent ran with, and another node has
	findings []Finding      // as of the last Assign
}

// Finding is something wrong that the user should see as an Event.
type Finding struct {
	Reason  string // one of those below
	Message string
}

// The reasons of findings.
const (
	ReasonNoID        = "NodeIDsExhausted"
	ReasonNoSubnet    = "NodeSubnetsExhausted"
	ReasonIDTaken     = "NodeIDConflict"
	ReasonSubnetTaken = "NodeSubnetConflict"
	ReasonOutside     = "NodeSubnetOutsidePlan"
	ReasonRestored    = "NodeAnnotationRestored"
	ReasonMoved       = "NodeAllocationMoved"
)

// Done reports whether it tells what has been done, once, and of nothing that lasts.
func (f Finding) Done() bool { return f.Reason == ReasonRestored || f.Reason == ReasonMoved }

// Decision is what to do about a node.
type Decision struct {
	Annotations map[string]string // to write; empty: none
	Findings    []Finding
	Retry       time.Duration // look again after; 0: not before something changes
}

// New makes an assigner; now is the clock that rests are measured by.
func New(clusterSubnets []string, now func() time.Time) (*Assigner, error) {
	pools, err := kube.ParseClusterSubnets(clusterSubnets)
	if err != nil {
		return nil, err
	}
	rest := alloc.RestConfig{Now: now}
	ids, err := alloc.NewIDs(alloc.FirstNodeID, alloc.LastNodeID, rest)
	if err != nil {
		return nil, err
	}
	subnets, err := alloc.NewSubnets(pools, rest)
	if err != nil {
		return nil, err
	}
	return &Assigner{ids: ids, subnets: subnets, state: map[string]*nodeState{}, now: now}, nil
}

// olderFirst orders nodes: of two that claim one value, the first keeps it.
func olderFirst(a, b *corev1.Node) int {
	return cmp.Or(a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// Reserve takes over what a node's annotations say, as far as nobody holds it.
func (a *Assigner) Reserve(n *corev1.Node) {
	if id, err := kube.ParseNodeID(n.Annotations[kube.AnnotationNodeID]); err == nil {
		a.reserveID(n.Name, id)
	}
	if subnets, err := kube.ParseNodeSubnets(n.Annotations[kube.AnnotationNodeSubnets]); err == nil {
		a.reserveSubnets(n.Name, subnets)
	}
}

// reserveID gives a node that has no id one that it had, if nobody holds it.
func (a *Assigner) reserveID(name string, id int) {
	if s := a.of(name); s.id == 0 && a.ids.Reserve(name, id) == nil {
		s.id = id
	}
}

// reserveSubnets gives a node that has no subnets those that it had, if nobody holds
// them; what is no part of the plan is noted.
func (a *Assigner) reserveSubnets(name string, subnets []netip.Prefix) {
	s := a.of(name)
	if s.subnets != nil {
		return
	}
	s.foreign = subnets
	if a.subnets.Reserve(name, subnets) == nil {
		s.subnets, s.foreign = subnets, nil
	}
}

func (a *Assigner) of(name string) *nodeState {
	s := a.state[name]
	if s == nil {
		s = &nodeState{}
		a.state[name] = s
	}
	return s
}

// Forget puts to rest what a deleted node held.
func (a *Assigner) Forget(name string) {
	if s := a.state[name]; s != nil && (s.id != 0 || s.subnets != nil) {
		a.rests = append(a.rests, Rest{Node: name, ID: s.id, Subnets: s.subnets, Since: a.now()})
	}
	delete(a.state, name)
	a.ids.Release(name)
	a.subnets.Release(name)
}

// Assign decides about one node.
func (a *Assigner) Assign(n *corev1.Node) Decision {
	a.Reserve(n)
	a.giveBack(n.Name)
	d := Decision{Annotations: map[string]string{}}
	a.assignID(n, &d)
	a.assignSubnets(n, &d)
	a.of(n.Name).findings = d.Findings
	return d
}

func (a *Assigner) assignID(n *corev1.Node, d *Decision) {
	s := a.of(n.Name)
	text, present := n.Annotations[kube.AnnotationNodeID]
	claimed, err := kube.ParseNodeID(text)
	if s.id == 0 && err == nil && s.lost.id == "" { // a good annotation that Reserve could not take over
		d.find(ReasonIDTaken, "%s; to have another allocated, drain the node and remove its annotation %s",
			a.ids.Reserve(n.Name, claimed), kube.AnnotationNodeID)
		return
	}
	if s.id == 0 {
		id, err := a.ids.Allocate(n.Name)
		if err != nil {
			d.exhausted(ReasonNoID, err)
			return
		}
		s.id = id
	}
	if s.lost.id != "" {
		d.find(ReasonMoved, "its NodeNetwork says %s: this node is given %d instead, and its agent starts anew", s.lost.id, s.id)
		s.lost.id = ""
	} else if present && claimed != s.id {
		d.find(ReasonRestored, "annotation %s was %q and is set back to %d, which this node has", kube.AnnotationNodeID, text, s.id)
	}
	if want := strconv.Itoa(s.id); text != want {
		d.Annotations[kube.AnnotationNodeID] = want
	}
}

func (a *Assigner) assignSubnets(n *corev1.Node, d *Decision) {
	s := a.of(n.Name)
	text, present := n.Annotations[kube.AnnotationNodeSubnets]
	claimed, err := kube.ParseNodeSubnets(text)
	if s.subnets == nil && err == nil && s.lost.subnets == "" { // a good annotation that Reserve could not take over
		reason, cause := ReasonOutside, a.subnets.Reserve(n.Name, claimed)
		if other := a.holder(n.Name, claimed); other != "" {
			reason, cause = ReasonSubnetTaken, fmt.Errorf("node %s has subnets %s, which overlap those of node %s", n.Name, claimed, other)
		}
		d.find(reason, "%s; to have others allocated, drain the node and remove its annotation %s", cause, kube.AnnotationNodeSubnets)
		return
	}
	if s.subnets == nil && present && s.foreign != nil && s.lost.subnets == "" && a.holder(n.Name, s.foreign) == "" {
		d.find(ReasonRestored, "annotation %s was %q and is set back to %s, which this node has", kube.AnnotationNodeSubnets, text, s.foreign)
		d.Annotations[kube.AnnotationNodeSubnets] = kube.FormatNodeSubnets(sorted(s.foreign))
		return
	}
	had := s.subnets
	subnets, err := a.allocate(n.Name)
	if err != nil {
		d.exhausted(ReasonNoSubnet, err)
		if had == nil {
			return
		}
		subnets = had // of one family, and the other is exhausted
	}
	s.subnets, s.foreign = subnets, nil
	if s.lost.subnets != "" {
		d.find(ReasonMoved, "its NodeNetwork says %s: this node is given %s instead; its agent starts anew, and its pods must be deleted", s.lost.subnets, subnets)
		s.lost.subnets = ""
	} else if present && !subset(claimed, subnets) {
		d.find(ReasonRestored, "annotation %s was %q and is set back to %s, which this node has", kube.AnnotationNodeSubnets, text, subnets)
	}
	if !slices.Equal(claimed, sorted(subnets)) {
		d.Annotations[kube.AnnotationNodeSubnets] = kube.FormatNodeSubnets(sorted(subnets))
	}
}

// overlapTries bounds the search for a subnet that no foreign one overlaps.
const overlapTries = 4096

// allocate gives a node subnets that overlap no other node's foreign ones: those
// that were given under another plan and are in use still. A subnet tried in vain
// is put to rest, so that the next try yields another.
func (a *Assigner) allocate(name string) ([]netip.Prefix, error) {
	for range overlapTries {
		subnets, err := a.subnets.Allocate(name)
		if err != nil || a.of(name).subnets != nil || a.holder(name, subnets) == "" {
			return subnets, err
		}
		a.subnets.Release(name)
	}
	return nil, fmt.Errorf("the first %d free subnets overlap subnets that nodes have from an earlier plan", overlapTries)
}

// Troubled lists the nodes that have findings: what a deletion may help.
func (a *Assigner) Troubled() (names []string) {
	for name, s := range a.state {
		if len(s.findings) > 0 {
			names = append(names, name)
		}
	}
	return names
}

// holder is another node that holds a subnet overlapping one of these; "" if none.
func (a *Assigner) holder(name string, subnets []netip.Prefix) string {
	var found []string
	for other, s := range a.state {
		if other != name && (overlap(s.subnets, subnets) || overlap(s.foreign, subnets)) {
			found = append(found, other)
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Min(found)
}

func overlap(a, b []netip.Prefix) bool {
	return slices.ContainsFunc(a, func(p netip.Prefix) bool { return slices.ContainsFunc(b, p.Overlaps) })
}

func subset(a, b []netip.Prefix) bool {
	return !slices.ContainsFunc(a, func(p netip.Prefix) bool { return !slices.Contains(b, p) }) && len(a) > 0
}

// sorted is the order that ParseNodeSubnets gives: IPv4 first.
func sorted(p []netip.Prefix) []netip.Prefix {
	return slices.SortedFunc(slices.Values(p), netip.Prefix.Compare)
}

func (d *Decision) find(reason, format string, args ...any) {
	d.Findings = append(d.Findings, Finding{reason, fmt.Sprintf(format, args...)})
}

// exhaustedRetry is how soon to look again where nobody can say when there is room.
const exhaustedRetry = time.Minute

func (d *Decision) exhausted(reason string, err error) {
	d.find(reason, "%s", err)
	var full *alloc.ExhaustedError
	d.Retry = exhaustedRetry
	if errors.As(err, &full) && full.Retry > 0 {
		d.Retry = min(d.Retry, full.Retry)
	}
}

// Nodes is how many nodes are known.
func (a *Assigner) Nodes() int { return len(a.state) }

// Count is how many nodes have a finding of one of these reasons.
func (a *Assigner) Count(reasons ...string) (n int) {
	for _, s := range a.state {
		if slices.ContainsFunc(s.findings, func(f Finding) bool { return slices.Contains(reasons, f.Reason) }) {
			n++
		}
	}
	return n
}
