package kube

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// annotated is a Node as its agent and the allocator have annotated it.
func annotated(name, subnet string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Annotations: map[string]string{
		AnnotationNodeID: "5", AnnotationNodeSubnets: `{"default":["` + subnet + `"]}`, AnnotationChassisID: "chassis-" + name,
		AnnotationEncapIPs: `["172.18.0.9"]`, AnnotationMgmtMACs: "0a:58:0a:f4:01:02",
		AnnotationGateway: `{"default":{"mode":"shared","bridge-id":"br-ex","mac-address":"02:00:00:00:00:02","ip-addresses":["172.18.0.9/24"]}}`,
	}}}
}

// TestEditedAnnotationsCutNobodyOff edits each annotation of a node to garbage, and
// removes it: what the node said before stays in force, and the problem names the annotation.
func TestEditedAnnotationsCutNobodyOff(t *testing.T) {
	for _, annotation := range []string{AnnotationNodeID, AnnotationNodeSubnets, AnnotationChassisID, AnnotationEncapIPs, AnnotationMgmtMACs, AnnotationGateway} {
		s := NewPast(ZonePerNode)
		before, _ := s.Node(annotated("a", "10.244.1.0/24"))
		n := annotated("a", "10.244.1.0/24")
		n.Annotations[annotation] = "{garbage"
		if annotation == AnnotationChassisID {
			n.Annotations[annotation] = "two words"
		}
		after, list := s.Node(n)
		if !after.Equal(before) {
			t.Errorf("%s edited to garbage: %+v\nwas %+v", annotation, after, before)
		}
		if len(list) != 1 || list[0].Field != "metadata.annotations["+annotation+"]" || !strings.Contains(list[0].Message, "correct it") {
			t.Errorf("%s: %+v", annotation, list)
		}
		delete(n.Annotations, annotation)
		if after, list = s.Node(n); !after.Equal(before) || len(list) != 0 {
			t.Errorf("%s removed: %+v, %v\nwas %+v", annotation, after, list, before)
		}
		n.UID = "another"
		if after, _ = s.Node(n); after.Equal(before) {
			t.Errorf("%s: another machine of the name has its past", annotation)
		}
	}
}

// TestAnotherNodesSubnetIsNotTaken has a node's annotation say another node's subnet.
func TestAnotherNodesSubnetIsNotTaken(t *testing.T) {
	s := NewPast(ZonePerNode)
	put := func(name, subnet string) (string, string) {
		t.Helper()
		n, list := s.Node(annotated(name, subnet))
		messages := ""
		for _, p := range list {
			messages += p.Message
		}
		return fmt.Sprint(n.Subnets), messages
	}
	put("a", "10.244.1.0/24")
	put("b", "10.244.2.0/24")
	if got, why := put("a", "10.244.2.0/24"); got != "[10.244.1.0/24]" || !strings.Contains(why, "subnet 10.244.2.0/24 is node b's") {
		t.Errorf("a has %s: %s", got, why)
	}
	if got, why := put("b", "10.244.2.0/24"); got != "[10.244.2.0/24]" || why != "" {
		t.Errorf("b has %s: %s", got, why)
	}
	if got, why := put("a", "10.244.3.0/24"); got != "[10.244.3.0/24]" || why != "" { // the allocator's, for all that is known here
		t.Errorf("a has %s: %s", got, why)
	}
	// Two that claim one from the beginning: the second gets it when the first lets go.
	put("d", "10.244.2.0/24")
	if len(s.Again()) != 0 {
		t.Error("d is to be looked at while b has its subnet")
	}
	s.Forget("b")
	again := s.Again()
	if len(again) != 1 || again[0].Name != "d" {
		t.Fatalf("to be looked at: %v", again)
	}
	if n, list := s.Node(again[0]); fmt.Sprint(n.Subnets) != "[10.244.2.0/24]" || len(list) != 0 {
		t.Errorf("d has %s, %v", n.Subnets, list)
	}
	if len(s.Again()) != 0 {
		t.Error("still to be looked at")
	}
}

// TestAStartFollowsNoEdit begins with what a node is known to run with: its annotation
// that is garbage, removed or another node's counts as that, in whatever order Nodes come.
func TestAStartFollowsNoEdit(t *testing.T) {
	ran := ParseAllocation(&v1alpha1.NodeAllocation{NodeUID: "a", NodeID: 5, Subnets: []string{"10.244.1.0/24"}})
	begin := func(annotation string) (*Past, *corev1.Node) {
		s := NewPast(ZonePerNode)
		s.Pin("a", ran)
		n := annotated("a", "10.244.1.0/24")
		n.Annotations[AnnotationNodeSubnets] = annotation
		return s, n
	}
	for _, bad := range []string{"garbage", `{"default":[]}`} {
		s, n := begin(bad)
		n.Annotations[AnnotationNodeID] = "garbage"
		if out, list := s.Node(n); fmt.Sprint(out.ID, out.Subnets) != "5 [10.244.1.0/24]" || len(list) == 0 {
			t.Errorf("%s: %+v, %v", bad, out, list)
		}
	}
	const others = `{"default":["10.244.2.0/24"]}`
	s, n := begin(others)
	s.Node(n) // b is not known yet
	if b, list := s.Node(annotated("b", "10.244.2.0/24")); fmt.Sprint(b.Subnets) != "[10.244.2.0/24]" || len(list) != 0 {
		t.Errorf("b has %s, %v", b.Subnets, list)
	}
	if out, _ := s.Node(n); fmt.Sprint(out.Subnets) != "[10.244.1.0/24]" {
		t.Errorf("a has %s once b is known", out.Subnets)
	}
	if b, list := s.Node(annotated("b", "10.244.1.0/24")); fmt.Sprint(b.Subnets) != "[10.244.2.0/24]" || len(list) != 1 {
		t.Errorf("b takes what a runs with: %s, %v", b.Subnets, list)
	}
	s, n = begin(`{"default":["10.244.1.0/24","fd00::/64"]}`)
	if out, _ := s.Node(n); len(out.Subnets) != 2 {
		t.Errorf("a family more is not taken: %s", out.Subnets)
	}
	s, n = begin(others)
	n.UID = "another"
	if s.Node(n); fmt.Sprint(s.nodes["a"].held.Subnets) != "[10.244.2.0/24]" {
		t.Errorf("another machine of the name is held to %s", s.nodes["a"].held.Subnets)
	}
}

// BenchmarkPast hears of 5,000 nodes, as an agent that starts does.
func BenchmarkPast(b *testing.B) {
	nodes := make([]*corev1.Node, 5000)
	for i := range nodes {
		nodes[i] = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i), UID: types.UID(fmt.Sprint(i)), Annotations: map[string]string{
			AnnotationNodeID: fmt.Sprint(i + 2), AnnotationNodeSubnets: fmt.Sprintf(`{"default":["10.%d.%d.0/24"]}`, i/256, i%256)}}}
	}
	for b.Loop() {
		s := NewPast(ZonePerNode)
		for _, n := range nodes {
			if _, problems := s.Node(n); len(problems) > 0 && strings.Contains(fmt.Sprint(problems), "subnet") {
				b.Fatal(problems)
			}
		}
	}
}
