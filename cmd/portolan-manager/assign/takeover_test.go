package assign

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// says is what an agent says that it runs with: as a NodeNetwork, read back.
func says(uid string, id int, subnets ...string) kube.Allocation {
	return kube.ParseAllocation(&v1alpha1.NodeAllocation{NodeUID: uid, NodeID: id, Subnets: subnets})
}

const (
	one   = "10.244.1.0/24"
	two   = "10.244.2.0/24"
	three = "10.244.3.0/24"
	nine  = "10.244.9.0/24"
)

// takeOver is what Nodes, their agents and an earlier leader say when a leader begins.
// Nodes are a, b and c, of which a is the oldest; each is a line of want.
type takeOver struct {
	name  string
	nodes []*corev1.Node
	runs  map[string]kube.Allocation
	left  Record
	want  []string
}

// edits are annotations that somebody has edited.
func edits() []takeOver {
	return []takeOver{

		{
			name:  "garbage is set back to what the agent runs with",
			nodes: []*corev1.Node{testNode("a", 3, "2", "garbage"), testNode("b", 2, "three", subnet(two)), testNode("c", 1, "4", `{"default":[]}`)},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one), "b": says("u", 3, two), "c": says("u", 4, three)},
			want:  []string{subnet(one) + " !NodeAnnotationRestored", "3 !NodeAnnotationRestored", subnet(three) + " !NodeAnnotationRestored"},
		},
		{
			name:  "so is another node's, whoever is older",
			nodes: []*corev1.Node{testNode("a", 3, "3", subnet(two)), testNode("b", 2, "3", subnet(two)), testNode("c", 1, "4", subnet(two))},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one), "b": says("u", 3, two), "c": says("u", 4, three)},
			want: []string{
				"2 " + subnet(one) + " !NodeAnnotationRestored !NodeAnnotationRestored", "", subnet(three) + " !NodeAnnotationRestored",
			},
		},
		{
			name:  "so is nobody's",
			nodes: []*corev1.Node{testNode("a", 3, "9", subnet(nine))},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one)},
			want:  []string{"2 " + subnet(one) + " !NodeAnnotationRestored !NodeAnnotationRestored"},
		},
		{
			name:  "so is one that was removed, which is told of none",
			nodes: []*corev1.Node{testNode("a", 3, "", "")},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one)},
			want:  []string{"2 " + subnet(one)},
		},
		{
			name:  "two that were exchanged",
			nodes: []*corev1.Node{testNode("a", 3, "2", subnet(two)), testNode("b", 2, "3", subnet(one))},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one), "b": says("u", 3, two)},
			want:  []string{subnet(one) + " !NodeAnnotationRestored", subnet(two) + " !NodeAnnotationRestored"},
		},
		{
			name:  "what is no part of the plan stays, and is set back too",
			nodes: []*corev1.Node{testNode("a", 3, "2", "garbage"), testNode("b", 2, "3", subnet("10.9.2.0/24"))},
			runs:  map[string]kube.Allocation{"a": says("u", 2, "10.9.1.0/24"), "b": says("u", 3, "10.9.2.0/24")},
			want:  []string{subnet("10.9.1.0/24") + " !NodeAnnotationRestored", "!NodeSubnetOutsidePlan"},
		},
	}
}

// claims are what several say of one thing.
func claims() []takeOver {
	return []takeOver{
		{
			name:  "an agent that says another node's takes nothing, though its Node is older",
			nodes: []*corev1.Node{testNode("a", 3, "2", subnet(one)), testNode("b", 2, "3", subnet(two))},
			runs:  map[string]kube.Allocation{"a": says("u", 3, two), "b": says("u", 3, two)},
			want:  []string{"!NodeAllocationMoved !NodeAllocationMoved", ""},
		},
		{
			name:  "nor does it with an annotation that is no good",
			nodes: []*corev1.Node{testNode("a", 3, "2", "garbage"), testNode("b", 2, "3", subnet(two))},
			runs:  map[string]kube.Allocation{"a": says("u", 2, two), "b": says("u", 3, two)},
			want:  []string{subnet("10.244.3.0/24") + " !NodeAllocationMoved", ""},
		},
		{
			name:  "of two agents against both annotations the older Node's holds, and the other gets its own",
			nodes: []*corev1.Node{testNode("a", 3, "2", "garbage"), testNode("b", 2, "3", subnet(three))},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one), "b": says("u", 2, one)},
			want:  []string{subnet(one) + " !NodeAnnotationRestored", "!NodeAllocationMoved !NodeAllocationMoved"},
		},
		{
			name:  "or new ones",
			nodes: []*corev1.Node{testNode("a", 3, "x", "garbage"), testNode("b", 2, "y", "garbage")},
			runs:  map[string]kube.Allocation{"a": says("u", 2, one), "b": says("u", 2, one)},
			want: []string{
				"2 " + subnet(one) + " !NodeAnnotationRestored !NodeAnnotationRestored",
				"3 " + subnet("10.244.2.0/24") + " !NodeAllocationMoved !NodeAllocationMoved",
			},
		},
		{
			name:  "what another Node of the name had is not taken up",
			nodes: []*corev1.Node{testNode("a", 3, "", "")},
			runs:  map[string]kube.Allocation{"a": says("the one before", 7, nine)},
			want:  []string{`2 {"default":["10.244.0.0/24"]}`},
		},
		{
			name:  "what rests for another is not taken up",
			nodes: []*corev1.Node{testNode("a", 3, "2", "garbage")},
			runs:  map[string]kube.Allocation{"a": says("u", 2, nine)},
			left:  Record{Rests: []Rest{{Node: "gone", ID: 7, Subnets: says("u", 7, nine).Subnets, Since: time.Unix(1e9, 0)}}},
			want:  []string{subnet("10.244.10.0/24") + " !NodeAllocationMoved"},
		},
		{
			name:  "annotations alone are what they were: agents that do not say anything yet",
			nodes: []*corev1.Node{testNode("a", 3, "3", subnet(two)), testNode("b", 2, "3", subnet(two)), testNode("c", 1, "4", subnet(three))},
			runs:  map[string]kube.Allocation{"c": says("u", 4, three)},
			want:  []string{"", "!NodeIDConflict !NodeSubnetConflict", ""},
		},
		{
			name:  "an agent goes before another Node's annotation alone",
			nodes: []*corev1.Node{testNode("a", 3, "3", subnet(two)), testNode("b", 2, "x", "garbage")},
			runs:  map[string]kube.Allocation{"b": says("u", 3, two)},
			want:  []string{"!NodeIDConflict !NodeSubnetConflict", "3 " + subnet(two) + " !NodeAnnotationRestored !NodeAnnotationRestored"},
		},
	}
}

func TestTakeOver(t *testing.T) {
	for _, test := range slices.Concat(edits(), claims()) {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newTest(t, "10.244.0.0/16/24")
			a.TakeOver(slices.Clone(test.nodes), test.runs, test.left)
			for i, n := range test.nodes {
				expect(t, a, n, test.want[i])
			}
			for _, n := range test.nodes { // what is done is told once, and nothing is written again
				if d := a.Assign(n); len(d.Annotations) > 0 || slices.ContainsFunc(d.Findings, Finding.Done) {
					t.Errorf("%s again: %+v", n.Name, d)
				}
			}
		})
	}
}

// TestAFamilyThatTheAgentDoesNotKnowYetStays: the last leader gave it just before it ended.
func TestAFamilyThatTheAgentDoesNotKnowYetStays(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/24", "fd00:10:244::/48/64")
	n := testNode("a", 3, "2", `{"default":["10.244.1.0/24","fd00:10:244:7::/64"]}`)
	a.TakeOver([]*corev1.Node{n}, map[string]kube.Allocation{"a": says("u", 2, one)}, Record{})
	expect(t, a, n, "")
	n.Annotations[kube.AnnotationNodeSubnets] = "garbage"
	expect(t, a, n, `{"default":["10.244.1.0/24","fd00:10:244:7::/64"]} !NodeAnnotationRestored`)
}

// TestWhatIsToldOfANodeThatMoves names what was claimed, who has it, what is given and what to do.
func TestWhatIsToldOfANodeThatMoves(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/24")
	old, young := testNode("a", 3, "2", subnet(one)), testNode("b", 2, "x", "garbage")
	a.TakeOver([]*corev1.Node{young, old}, map[string]kube.Allocation{"a": says("u", 2, one), "b": says("u", 2, one)}, Record{})
	d := a.Assign(young)
	var text []string
	for _, f := range d.Findings {
		text = append(text, f.Message)
	}
	want := "its NodeNetwork says id 2, which it cannot have: node b has id 2: held by a: this node is given 3 instead, and its agent starts anew\n" +
		"its NodeNetwork says subnets [10.244.1.0/24], which it cannot have: node a has them: this node is given [10.244.2.0/24] instead; its agent starts anew, and its pods must be deleted"
	if got := strings.Join(text, "\n"); got != want {
		t.Errorf("told\n%s\nwant\n%s", got, want)
	}
}

// vandal is a cluster in which annotations are edited while nobody leads.
type vandal struct {
	t     *testing.T
	dice  *rand.Rand
	clock *clock
	nodes map[string]*corev1.Node
	runs  map[string]kube.Allocation // what agents live with, and say
	liar  string                     // whose agent says anything; "": nobody's
	left  Record
	uids  int
}

// TestLeadersComeAndGo: whatever is written into annotations while nobody leads, and
// whatever one agent says that somebody has taken over, every other node has at the next
// leader what its pods live with, and no two nodes have the same.
func TestLeadersComeAndGo(t *testing.T) {
	for seed := range uint64(150) {
		c := &clock{time.Unix(1e9, 0)}
		v := &vandal{t: t, dice: rand.New(rand.NewPCG(seed, 0)), clock: c, nodes: map[string]*corev1.Node{}, runs: map[string]kube.Allocation{}}
		if seed%2 == 1 {
			v.liar = "n3"
		}
		for range 12 {
			v.term()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// term is one leader's, and the time after it.
func (v *vandal) term() {
	a, err := New([]string{"10.244.0.0/16/24"}, v.clock.now)
	if err != nil {
		v.t.Fatal(err)
	}
	var list []*corev1.Node
	for _, n := range v.nodes {
		list = append(list, n)
	}
	a.TakeOver(list, v.runs, v.left)
	for range 4 {
		v.join(a)
		for _, name := range v.names() {
			v.assign(a, v.nodes[name])
		}
		v.check()
	}
	v.left = a.Record()
	v.clock.t = v.clock.t.Add(time.Duration(v.dice.IntN(8)) * time.Minute)
	for range v.dice.IntN(6) {
		v.edit()
	}
}

// join has a node come or go; the agent of a node lives with what it was given.
func (v *vandal) join(a *Assigner) {
	name := fmt.Sprint("n", v.dice.IntN(8))
	switch n := v.nodes[name]; {
	case n == nil:
		n = testNode(name, 0, "", "")
		v.uids++
		n.UID, n.CreationTimestamp.Time = types.UID(fmt.Sprint(v.uids)), v.clock.t
		v.nodes[name] = n
	case v.dice.IntN(3) == 0:
		a.Forget(name)
		delete(v.nodes, name) // its NodeNetwork stays a while
	}
}

func (v *vandal) assign(a *Assigner, n *corev1.Node) {
	for k, text := range a.Assign(n).Annotations {
		n.Annotations[k] = text
	}
	if r := v.runs[n.Name]; r.UID != string(n.UID) {
		id, _ := kube.ParseNodeID(n.Annotations[kube.AnnotationNodeID])
		subnets, _ := kube.ParseNodeSubnets(n.Annotations[kube.AnnotationNodeSubnets])
		v.runs[n.Name] = kube.Allocation{UID: string(n.UID), ID: id, Subnets: subnets}
	}
}

// edit vandalises a node's annotations, or has the liar say what another says.
func (v *vandal) edit() {
	names := v.names()
	if len(names) == 0 {
		return
	}
	victim, other := names[v.dice.IntN(len(names))], names[v.dice.IntN(len(names))]
	n := v.nodes[victim]
	if v.liar != "" && v.nodes[v.liar] != nil {
		// Somebody who can write the Nodes of others, too, needs no liar: see docs/limits.md.
		r := v.runs[other]
		r.UID = string(v.nodes[v.liar].UID)
		v.runs[v.liar] = r
		if v.dice.IntN(2) == 0 {
			v.nodes[v.liar].Annotations[kube.AnnotationNodeSubnets] = "garbage"
		}
		return
	}
	switch v.dice.IntN(5) {
	case 0:
		n.Annotations[kube.AnnotationNodeSubnets] = "garbage"
	case 1:
		n.Annotations[kube.AnnotationNodeSubnets] = v.nodes[other].Annotations[kube.AnnotationNodeSubnets]
	case 2:
		n.Annotations[kube.AnnotationNodeSubnets] = subnet(fmt.Sprintf("10.244.%d.0/24", v.dice.IntN(256)))
	case 3:
		n.Annotations[kube.AnnotationNodeID] = v.nodes[other].Annotations[kube.AnnotationNodeID]
	case 4:
		clear(n.Annotations)
	}
}

func (v *vandal) names() []string {
	var out []string
	for name := range v.nodes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// check compares what annotations say with what agents live with.
func (v *vandal) check() {
	v.t.Helper()
	held := map[string]string{}
	for _, name := range v.names() {
		n, r := v.nodes[name], v.runs[name]
		for _, text := range []string{n.Annotations[kube.AnnotationNodeID], n.Annotations[kube.AnnotationNodeSubnets]} {
			if other, is := held[text]; is {
				v.t.Errorf("%s and %s both have %s", other, name, text)
			}
			held[text] = name
		}
		if name == v.liar {
			continue
		}
		if got, want := n.Annotations[kube.AnnotationNodeSubnets], kube.FormatNodeSubnets(r.Subnets); got != want {
			v.t.Errorf("%s has subnets %s, its pods live with %s", name, got, want)
		}
		if got, want := n.Annotations[kube.AnnotationNodeID], fmt.Sprint(r.ID); got != want {
			v.t.Errorf("%s has id %s, it runs with %s", name, got, want)
		}
	}
}
