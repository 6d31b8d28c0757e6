package networks

import (
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// tally folds what nodes' agents say of objects that select nodes by labels. What changes
// on one node costs a look at each object, and none at another node; only an object's own
// change costs a look at every node.
type tally struct {
	nodes   map[string]map[string]string // labels, by node: the Keeper's
	reports map[string]map[string]report // by node and object
	objects map[string]*standing
	dirty   map[string]struct{}  // objects whose status may be another
	written map[string]time.Time // when it was
}

// report is what a node says of an object.
type report struct {
	ready           bool
	shown           bool // named in the status though it is ready
	generation      int64
	reason, message string
	devices, well   int32
}

// standing is how one object stands on the nodes that it selects.
type standing struct {
	selector   labels.Selector
	generation int64
	selected   map[string]report
	named      map[string]struct{} // those of selected that the status names
	ready      int
	devices    int64
	well       int64
}

// unsaid is of a node that has said nothing of an object.
const unsaid = "the node's agent has not said anything of it yet"

func newTally(nodes map[string]map[string]string) *tally {
	return &tally{
		nodes: nodes, reports: map[string]map[string]report{}, objects: map[string]*standing{}, dirty: map[string]struct{}{}, written: map[string]time.Time{},
	}
}

// setObject takes an object as it is now; a selector that cannot be read selects nothing.
func (t *tally) setObject(name string, o metav1.ObjectMeta, selector *metav1.LabelSelector) {
	t.dirty[name] = struct{}{}
	s := labels.Everything()
	if selector != nil {
		var err error
		if s, err = metav1.LabelSelectorAsSelector(selector); err != nil {
			s = labels.Nothing()
		}
	}
	if had := t.objects[name]; had != nil && had.generation == o.Generation && had.selector.String() == s.String() {
		return
	}
	now := &standing{selector: s, generation: o.Generation, selected: map[string]report{}, named: map[string]struct{}{}}
	t.objects[name] = now
	for node := range t.nodes {
		t.look(name, now, node)
	}
}

func (t *tally) dropObject(name string) {
	delete(t.objects, name)
	delete(t.dirty, name)
	delete(t.written, name)
}

// setReport takes all that a node says; nothing: it is gone.
func (t *tally) setReport(node string, said map[string]report) {
	if maps.Equal(t.reports[node], said) {
		return
	}
	if t.reports[node] = said; len(said) == 0 {
		delete(t.reports, node)
	}
	t.setNode(node)
}

// setNode looks at a node whose labels or reports are others, or that has come or gone.
func (t *tally) setNode(node string) {
	for name, s := range t.objects {
		if t.look(name, s, node) {
			t.dirty[name] = struct{}{}
		}
	}
}

// look takes one node's part in one object, and says whether it is another.
func (t *tally) look(name string, s *standing, node string) bool {
	had, was := s.selected[node]
	l, there := t.nodes[node]
	is := there && s.selector.Matches(labels.Set(l))
	var now report
	if is {
		now = t.reports[node][name].of(s.generation)
	}
	if was == is && had == now {
		return false
	}
	if was {
		s.count(had, -1)
		delete(s.selected, node)
		delete(s.named, node)
	}
	if is {
		s.count(now, 1)
		s.selected[node] = now
		if !now.ready || now.shown {
			s.named[node] = struct{}{}
		}
	}
	return true
}

func (s *standing) count(r report, by int) {
	if r.ready {
		s.ready += by
	}
	s.devices += int64(by) * int64(r.devices)
	s.well += int64(by) * int64(r.well)
}

// of is a report as it counts for a generation of its object: what was said of an earlier
// one says nothing of this.
func (r report) of(generation int64) report {
	switch {
	case r == report{}:
		r.message = unsaid
	case r.generation != 0 && r.generation < generation:
		r.ready, r.reason = false, ""
		r.message = fmt.Sprintf("the node's agent has not said anything of generation %d yet", generation)
	case !r.ready && r.message == "":
		r.message = "not ready, and the node's agent does not say why"
	}
	return r
}

// names lists the nodes that a status names, the first of them, in order.
func (s *standing) names() []string {
	list := slices.Sorted(maps.Keys(s.named))
	return list[:min(len(list), mostNodes)]
}

// of counts the nodes that an object is ready on, and that it selects.
func (s *standing) of() string { return fmt.Sprintf("%d/%d", s.ready, len(s.selected)) }

// condition says whether an object is ready on every node that it selects; invalid is what
// is wrong with it itself.
func (s *standing) condition(invalid string) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, ObservedGeneration: s.generation}
	switch {
	case invalid != "":
		c.Reason, c.Message = v1alpha1.ReasonInvalid, invalid
	case len(s.selected) == 0:
		c.Reason, c.Message = reasonNoNode, "spec.nodeSelector selects no node"
	case s.ready < len(s.selected):
		first := s.firstUnready()
		c.Reason, c.Message = reasonNotReady, fmt.Sprintf("ready on %s nodes; %s: %s", s.of(), first, s.selected[first].text())
	default:
		c.Status, c.Reason = metav1.ConditionTrue, reasonReady
	}
	return c
}

func (s *standing) firstUnready() string {
	first := ""
	for node := range s.named {
		if !s.selected[node].ready && (first == "" || node < first) {
			first = node
		}
	}
	return first
}

// text is what a status says of a node.
func (r report) text() string {
	if r.reason != "" && r.message != "" {
		return r.reason + ": " + r.message
	}
	return r.reason + r.message
}
