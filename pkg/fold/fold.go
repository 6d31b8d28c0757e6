// Package fold answers what is wrong with each object, in one statement for each,
// whoever has found it: the manager's own units and door, the allocator, and the
// agents of the nodes, whose NodeNetworks say what is wrong in one place only.
//
//	units, door, allocation ─┐
//	NodeNetwork, one a node ─┴─> Board ──changed──> []Statement ──> Events
//
// Invariants: a statement does not depend on the order in which things were found;
// Take yields an object only when its statement reads otherwise than at the Take
// before; no I/O, no clock.
package fold

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The reasons of statements about what no more special reason is known of.
const (
	ReasonInput    = "NetworkInputInvalid" // what the object says cannot be done
	ReasonPlace    = "NetworkProblem"      // something is wrong on a node
	ReasonNotReady = "NetworkNotReady"     // no pod can start on the node
	ReasonRepaired = "NetworkRepaired"     // the node's agent has set something right
)

// OfPool begins the reasons of statements about DevicePools, which end with a node's.
const OfPool = "DevicePool"

// Found is one thing that is wrong with an object.
type Found struct {
	Object  intent.Key
	Reason  string // one word in camel case
	Field   string // "": the object as a whole
	Message string // what was found and what to do
}

// Statement is all that is wrong with an object. No Message: nothing is, any more.
type Statement struct {
	Object  intent.Key
	Reason  string
	Message string
}

// source is who has found something: a node's agent, or a part of the manager.
type source struct {
	place bool
	name  string
}

// Board holds what is wrong. It is used by one goroutine.
type Board struct {
	found map[source][]Found
	about map[intent.Key]map[source]struct{}
	said  map[intent.Key]Statement
	dirty map[intent.Key]struct{}
	nodes map[string]struct{} // that have a NodeNetwork
}

// NewBoard makes a board on which nothing is wrong.
func NewBoard() *Board {
	return &Board{
		found: map[source][]Found{}, about: map[intent.Key]map[source]struct{}{},
		said: map[intent.Key]Statement{}, dirty: map[intent.Key]struct{}{}, nodes: map[string]struct{}{},
	}
}

// Set gives all that a part of the manager finds wrong, instead of what it found
// before.
func (b *Board) Set(part string, found []Found) { b.set(source{name: part}, found) }

// SetNode gives what a node's agent says.
func (b *Board) SetNode(n *v1alpha1.NodeNetwork) {
	b.nodes[n.Name] = struct{}{}
	b.set(source{place: true, name: n.Name}, ofNode(n))
}

// DropNode forgets a node whose NodeNetwork has gone.
func (b *Board) DropNode(name string) {
	delete(b.nodes, name)
	b.set(source{place: true, name: name}, nil)
}

func (b *Board) set(from source, found []Found) {
	for _, f := range b.found[from] {
		delete(b.about[f.Object], from)
		if len(b.about[f.Object]) == 0 {
			delete(b.about, f.Object)
		}
		b.dirty[f.Object] = struct{}{}
	}
	delete(b.found, from)
	if len(found) > 0 {
		b.found[from] = slices.Clone(found)
	}
	for _, f := range found {
		if b.about[f.Object] == nil {
			b.about[f.Object] = map[source]struct{}{}
		}
		b.about[f.Object][from] = struct{}{}
		b.dirty[f.Object] = struct{}{}
	}
}

// Take returns the statements that have changed since the last Take, in the order
// of their objects.
func (b *Board) Take() []Statement {
	var out []Statement
	for _, key := range slices.SortedFunc(maps.Keys(b.dirty), intent.Key.Compare) {
		s := b.statement(key)
		if s == b.said[key] || s.Message == "" && b.said[key].Message == "" {
			continue
		}
		if b.said[key] = s; s.Message == "" {
			delete(b.said, key)
		}
		out = append(out, s)
	}
	clear(b.dirty)
	return out
}

// Statements returns all that stand, in the order of their objects.
func (b *Board) Statements() []Statement {
	return slices.SortedFunc(maps.Values(b.said), func(x, y Statement) int { return x.Object.Compare(y.Object) })
}

// Objects lists, in no order, the objects that something is wrong with.
func (b *Board) Objects() []intent.Key { return slices.Collect(maps.Keys(b.about)) }

// claim is one thing that is wrong, with the nodes that say it; none: the manager does.
type claim struct {
	Found
	nodes []string
}

// statement is what all sources say of an object. What the manager finds itself
// holds everywhere, so nodes that say the same add nothing.
func (b *Board) statement(key intent.Key) Statement {
	byText := map[[2]string]*claim{}
	for from := range b.about[key] {
		for _, f := range b.found[from] {
			if f.Object != key {
				continue
			}
			text := [2]string{f.Field, f.Message}
			s := byText[text]
			if s == nil {
				s = &claim{Found: f}
				byText[text] = s
			}
			switch {
			case !from.place:
				s.Found, s.nodes = f, []string{} // of the manager, and so to stay
			case s.nodes == nil || len(s.nodes) > 0:
				s.nodes = append(s.nodes, from.name)
			}
		}
	}
	list := slices.SortedFunc(maps.Values(byText), func(x, y *claim) int {
		return cmp.Or(weight(x.Reason)-weight(y.Reason), cmp.Compare(x.Field, y.Field), cmp.Compare(x.Message, y.Message))
	})
	if len(list) == 0 {
		return Statement{Object: key}
	}
	var parts []string
	for _, s := range list {
		slices.Sort(s.nodes)
		parts = append(parts, s.text(len(b.nodes)))
	}
	return Statement{Object: key, Reason: list[0].Reason, Message: join(parts)}
}

// weight puts what is worst first: its reason becomes the statement's.
func weight(reason string) int {
	return slices.Index([]string{
		ReasonNotReady, ReasonInput, ReasonPlace, ReasonRepaired,
		OfPool + v1alpha1.PoolFailed, OfPool + v1alpha1.PoolConflict, OfPool + v1alpha1.PoolWaiting,
	}, reason)
}

// namedNodes is how many nodes a statement names.
const namedNodes = 5

// text is one thing with its place; total is how many nodes there are.
func (s claim) text(total int) string {
	message := s.Message
	if s.Field != "" {
		message = s.Field + ": " + message
	}
	switch {
	case len(s.nodes) == 0 || s.Object == intent.Key{Kind: intent.KindNode, Name: s.nodes[0]} && len(s.nodes) == 1:
		return message
	case len(s.nodes) == 1:
		return fmt.Sprintf("on node %s: %s", s.nodes[0], message)
	}
	names := strings.Join(s.nodes[:min(len(s.nodes), namedNodes)], ", ")
	if more := len(s.nodes) - namedNodes; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("on %d of %d nodes (%s): %s", len(s.nodes), total, names, message)
}

// longest is how many bytes of a message are told: an Event has room for so much.
const longest = 1000

// join makes one message, leaving out whole parts that have no room.
func join(parts []string) string {
	out := ""
	for i, p := range parts {
		if i > 0 {
			p = "; " + p
		}
		if len(out)+len(p) > longest && i > 0 {
			return out + fmt.Sprintf("; and %d more problems, see portolan problems", len(parts)-i)
		}
		out += p
	}
	if len(out) > longest {
		out = strings.ToValidUTF8(out[:longest], "") + "…"
	}
	return out
}

// ofNode is what a NodeNetwork says of objects: of the Node too, when it is not
// ready. What is of no object that has Events of its own is said of the Node.
func ofNode(n *v1alpha1.NodeNetwork) []Found {
	self := intent.Key{Kind: intent.KindNode, Name: n.Name}
	var out []Found
	if _, message, ok := n.Status.NotReady(); ok {
		out = append(out, Found{Object: self, Reason: ReasonNotReady, Message: "no pod can start here, portolan-node says: " + message})
	}
	for _, p := range n.Status.Problems {
		key, ok := intent.ParseKey(p.Object)
		field, message := p.Field, p.Message
		if !ok || !hasEvents(key.Kind) {
			if field != "" {
				field = " " + field
			}
			key, field, message = self, "", p.Object+field+": "+message
		}
		reason := ReasonPlace
		if p.Severity == v1alpha1.SeverityRepaired {
			reason = ReasonRepaired
		}
		out = append(out, Found{Object: key, Reason: reason, Field: field, Message: message})
	}
	if more := n.Status.ProblemCount - len(n.Status.Problems); more > 0 {
		out = append(out, Found{Object: self, Reason: ReasonPlace, Message: fmt.Sprintf("%d more problems than its NodeNetwork has room for: see portolan problems", more)})
	}
	return out
}

// hasEvents tells the kinds of intent whose objects users look at for Events.
func hasEvents(k intent.Kind) bool { return k == intent.KindNode || k == intent.KindPod }

// OfProblems are problems that units and the door find from what the cluster says.
func OfProblems(list []rows.Problem) []Found {
	var out []Found
	for _, p := range list {
		if key, ok := intent.ParseKey(p.Object); ok && hasEvents(key.Kind) {
			out = append(out, Found{Object: key, Reason: ReasonInput, Field: p.Field, Message: p.Message})
		}
	}
	return out
}
