package assign

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// clock is a clock that stands still until it is set.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

// testNode is a node of an age, in hours, with an id and a subnet in annotations; "" is none.
func testNode(name string, age int, id, subnets string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, UID: "u", ResourceVersion: "1", Annotations: map[string]string{},
		CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0).Add(-time.Duration(age) * time.Hour)),
	}}
	if id != "" {
		n.Annotations[kube.AnnotationNodeID] = id
	}
	if subnets != "" {
		n.Annotations[kube.AnnotationNodeSubnets] = subnets
	}
	return n
}

func newTest(t *testing.T, clusterSubnets ...string) (*Assigner, *clock) {
	t.Helper()
	c := &clock{time.Unix(1e9, 0)}
	a, err := New(clusterSubnets, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

// line renders a decision: what is written, then the reasons of findings.
func line(d Decision) string {
	s := strings.TrimSpace(d.Annotations[kube.AnnotationNodeID] + " " + d.Annotations[kube.AnnotationNodeSubnets])
	for _, f := range d.Findings {
		s += " !" + f.Reason
	}
	return strings.TrimSpace(s)
}

// expect decides about a node, checks the decision, and applies it.
func expect(t *testing.T, a *Assigner, n *corev1.Node, want string) Decision {
	t.Helper()
	d := a.Assign(n)
	if got := line(d); got != want {
		t.Errorf("%s: %q, want %q; %+v", n.Name, got, want, d.Findings)
	}
	for k, v := range d.Annotations {
		n.Annotations[k] = v
	}
	return d
}

func subnet(s string) string { return fmt.Sprintf(`{"default":["%s"]}`, s) }

func TestNewNodesGetTheLowestFree(t *testing.T) {
	a, c := newTest(t, "10.244.0.0/16/24")
	n1, n2 := testNode("n1", 2, "", ""), testNode("n2", 1, "", "")
	expect(t, a, n1, `2 {"default":["10.244.0.0/24"]}`)
	expect(t, a, n2, `3 {"default":["10.244.1.0/24"]}`)
	expect(t, a, n1, "")
	a.Forget("n1")
	n3 := testNode("n3", 0, "", "")
	expect(t, a, n3, `4 {"default":["10.244.2.0/24"]}`)
	c.t = c.t.Add(5 * time.Minute)
	expect(t, a, testNode("n4", 0, "", ""), `2 {"default":["10.244.0.0/24"]}`)
}

func TestRestartKeepsWhatNodesHave(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/24")
	fresh := testNode("a", 9, "", "")
	nodes := []*corev1.Node{
		fresh, testNode("b", 2, "2", subnet("10.244.0.0/24")), testNode("c", 1, "4", `{"default":"10.244.1.0/24"}`),
	}
	for _, n := range nodes {
		a.Reserve(n)
	}
	expect(t, a, fresh, `3 {"default":["10.244.2.0/24"]}`)
	expect(t, a, nodes[1], "")
	expect(t, a, nodes[2], "") // the old form is read as what it says and left alone
	for _, n := range nodes {
		expect(t, a, n, "")
	}
}

func TestOfTwoClaimsTheOlderNodeHolds(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/24")
	old, young := testNode("z-old", 5, "2", subnet("10.244.0.0/24")), testNode("a-young", 1, "2", subnet("10.244.0.0/24"))
	for _, n := range []*corev1.Node{old, young} { // as takeOver sorts them
		a.Reserve(n)
	}
	d := expect(t, a, young, "!NodeIDConflict !NodeSubnetConflict")
	if m := d.Findings[0].Message; !strings.Contains(m, "held by z-old") || !strings.Contains(m, "remove its annotation k8s.ovn.org/node-id") {
		t.Errorf("message %q", m)
	}
	if m := d.Findings[1].Message; !strings.Contains(m, "z-old") {
		t.Errorf("message %q", m)
	}
	expect(t, a, old, "")
	if a.Count(ReasonIDTaken) != 1 || len(a.Troubled()) != 1 {
		t.Errorf("counted %d, troubled %v", a.Count(ReasonIDTaken), a.Troubled())
	}
	young.Annotations = map[string]string{} // the user follows the advice
	expect(t, a, young, `3 {"default":["10.244.1.0/24"]}`)
	if len(a.Troubled()) != 0 {
		t.Errorf("troubled %v", a.Troubled())
	}
}

func TestExhaustionHoldsUpNobodyElse(t *testing.T) {
	a, c := newTest(t, "10.244.0.0/23/24")
	n1, n2, n3 := testNode("n1", 3, "", ""), testNode("n2", 2, "", ""), testNode("n3", 1, "", "")
	expect(t, a, n1, `2 {"default":["10.244.0.0/24"]}`)
	expect(t, a, n2, `3 {"default":["10.244.1.0/24"]}`)
	d := expect(t, a, n3, "4 !NodeSubnetsExhausted")
	if d.Retry != exhaustedRetry || !strings.Contains(d.Findings[0].Message, "2 of 2 in use") {
		t.Errorf("retry %s, %+v", d.Retry, d.Findings)
	}
	if a.Count(ReasonNoSubnet) != 1 {
		t.Errorf("counted %d", a.Count(ReasonNoSubnet))
	}
	expect(t, a, n1, "")
	a.Forget("n1")
	c.t = c.t.Add(4*time.Minute + 50*time.Second)
	if d := expect(t, a, n3, "!NodeSubnetsExhausted"); d.Retry != 10*time.Second {
		t.Errorf("retry %s, want the end of the rest", d.Retry)
	}
	c.t = c.t.Add(10 * time.Second)
	expect(t, a, n3, subnet("10.244.0.0/24"))
	if a.Count(ReasonNoSubnet) != 0 {
		t.Error("still counted as exhausted")
	}
}

func TestAnnotationsOfOthersAreSetBack(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/24")
	n := testNode("n", 1, "", "")
	expect(t, a, n, `2 {"default":["10.244.0.0/24"]}`)
	n.Annotations[kube.AnnotationNodeID] = "7"
	n.Annotations[kube.AnnotationNodeSubnets] = subnet("10.244.9.0/24")
	expect(t, a, n, `2 {"default":["10.244.0.0/24"]} !NodeAnnotationRestored !NodeAnnotationRestored`)
	expect(t, a, testNode("m", 1, "nonsense", "{"), `3 {"default":["10.244.1.0/24"]} !NodeAnnotationRestored !NodeAnnotationRestored`)
	delete(n.Annotations, kube.AnnotationNodeID)
	expect(t, a, n, "2")
}

func TestSecondFamilyIsAdded(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/24", "fd00:10:244::/48/64")
	n := testNode("n", 1, "2", subnet("10.244.3.0/24"))
	a.Reserve(n)
	expect(t, a, n, `{"default":["10.244.3.0/24","fd00:10:244::/64"]}`)
	expect(t, a, n, "")
}

func TestSubnetsOfAnEarlierPlanStay(t *testing.T) {
	a, _ := newTest(t, "10.244.0.0/16/25")
	n := testNode("n", 1, "2", subnet("10.244.0.0/24"))
	a.Reserve(n)
	expect(t, a, testNode("m", 0, "", ""), `3 {"default":["10.244.1.0/25"]}`) // not 0.0 or 0.128, which overlap
	expect(t, a, n, "!NodeSubnetOutsidePlan")
}

func TestRestsAreHandedOn(t *testing.T) {
	before, c := newTest(t, "10.244.0.0/16/24")
	expect(t, before, testNode("gone", 2, "", ""), `2 {"default":["10.244.0.0/24"]}`)
	stays := testNode("stays", 1, "", "")
	expect(t, before, stays, `3 {"default":["10.244.1.0/24"]}`)
	before.Forget("gone")
	rests := before.Rests()

	c.t = c.t.Add(time.Minute)
	after, err := New([]string{"10.244.0.0/16/24"}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	after.Reserve(stays)
	after.Resume(rests)
	expect(t, after, testNode("new", 0, "", ""), `4 {"default":["10.244.2.0/24"]}`)
	if n := len(after.Rests()); n != 1 {
		t.Errorf("%d rests handed on again", n)
	}
	c.t = c.t.Add(5 * time.Minute)
	if n := len(after.Rests()); n != 0 {
		t.Errorf("%d rests after they ended", n)
	}
	expect(t, after, testNode("newer", 0, "", ""), `2 {"default":["10.244.0.0/24"]}`)
}

func TestNodeThatComesBackHasWhatItHad(t *testing.T) {
	before, c := newTest(t, "10.244.0.0/16/24")
	expect(t, before, testNode("first", 2, "", ""), `2 {"default":["10.244.0.0/24"]}`)
	expect(t, before, testNode("back", 2, "", ""), `3 {"default":["10.244.1.0/24"]}`)
	before.Forget("back")
	before.Forget("first")
	after, err := New([]string{"10.244.0.0/16/24"}, c.now) // and over a change of the leader
	if err != nil {
		t.Fatal(err)
	}
	after.TakeOver(nil, nil, before.Record())
	for _, a := range []*Assigner{before, after} {
		back := testNode("back", 0, "", "")
		expect(t, a, back, `3 {"default":["10.244.1.0/24"]}`)
		expect(t, a, back, "")
		expect(t, a, testNode("other", 0, "", ""), `4 {"default":["10.244.2.0/24"]}`) // the first one's rests
		if n := len(a.Rests()); n != 1 {
			t.Errorf("%d rest", n)
		}
	}
	c.t = c.t.Add(6 * time.Minute)
	expect(t, before, testNode("first", 0, "", ""), `2 {"default":["10.244.0.0/24"]}`)
}

// TestNodesDeletedWhileNobodyLeads: what they had is not given at once by the next
// leader, though no rest of it is known.
func TestNodesDeletedWhileNobodyLeads(t *testing.T) {
	before, c := newTest(t, "10.244.0.0/16/24")
	stays := testNode("stays", 3, "", "")
	expect(t, before, testNode("low", 4, "", ""), `2 {"default":["10.244.0.0/24"]}`)
	expect(t, before, stays, `3 {"default":["10.244.1.0/24"]}`)
	expect(t, before, testNode("high", 2, "", ""), `4 {"default":["10.244.2.0/24"]}`)
	left := before.Record()
	if !left.Covers(before.Record()) || (Record{}).Covers(left) {
		t.Errorf("%+v does not tell what it covers", left)
	}
	after, err := New([]string{"10.244.0.0/16/24"}, c.now)
	if err != nil {
		t.Fatal(err)
	}
	after.TakeOver([]*corev1.Node{stays}, nil, left)
	expect(t, after, testNode("new", 0, "", ""), `5 {"default":["10.244.3.0/24"]}`)
	c.t = c.t.Add(5 * time.Minute)
	expect(t, after, testNode("newer", 0, "", ""), `2 {"default":["10.244.0.0/24"]}`)
}
