package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/inspect"
)

func cluster() []answered {
	shared := inspect.Problem{Object: "Pod/demo/web", Field: "spec", Severity: "warning", Message: "odd", Age: 5}
	older := shared
	older.Age = 300
	return []answered{
		{Node: "a", Status: &inspect.Status{
			Identity: inspect.Identity{Process: "portolan-node", Version: "v1", Node: "a", Zone: "a", Datapath: "netdev", Mode: "native"},
			Ready:    true, Databases: []inspect.Database{{Name: "OVS", Up: true}, {Name: "NB", Up: true}},
			Problems: []inspect.Problem{shared},
		}},
		{Node: "b", Status: &inspect.Status{
			Identity: inspect.Identity{Process: "portolan-node", Version: "v1", Node: "b", Zone: "b"},
			NotReady: "no subnet", Databases: []inspect.Database{{Name: "NB", Error: "refused"}},
			Problems: []inspect.Problem{older, {Object: "Node/b", Severity: "error", Message: "two\nlines"}},
			Groups:   []inspect.Group{{Name: "pod/demo/x", Database: "NB", Waiting: []string{"NB:Logical_Switch(b)"}, Age: 12}},
		}},
		{Node: "c", Error: "pod crashed", LastWords: "Refused: NIC eth0 has a DHCP lease"},
	}
}

func TestProblemsAreFolded(t *testing.T) {
	list := fold(cluster())
	var b bytes.Buffer
	printProblems(&b, list, 3)
	want := `error    Node/b  (on b)
         no pod can start there: no subnet
error    Node/b  (on b)
         two
         lines
error    Node/c  (on c)
         its agent does not answer: pod crashed; its last words: Refused: NIC eth0 has a DHCP lease
warning  Pod/demo/web  spec  for 5m  (on a, b)
         odd
waiting  Pod/demo/x  for 12s  (on b)
         not written to NB: waiting for NB:Logical_Switch(b)
`
	if b.String() != want {
		t.Errorf("found\n%s wanted\n%s", b.String(), want)
	}
	b.Reset()
	printProblems(&b, fold(cluster()[:0]), 0)
	if b.String() != "no problems (0 asked)\n" {
		t.Errorf("found %q", b.String())
	}
}

// TestPoolsThatAreNotReady: each is told once, whether an agent tells it or the pool's
// status alone.
func TestPoolsThatAreNotReady(t *testing.T) {
	told := []trouble{{Object: "DevicePool/fast", Field: "spec", Severity: "warning", Message: "Waiting: for a pod", Nodes: []string{"a"}}}
	pool := func(name, reason, message string, nodes ...v1alpha1.DevicePoolNode) *v1alpha1.DevicePool {
		c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: 1}
		if reason == "Ready" {
			c.Status = metav1.ConditionTrue
		}
		return &v1alpha1.DevicePool{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}, Status: v1alpha1.DevicePoolStatus{Nodes: nodes, Conditions: []metav1.Condition{c}}}
	}
	node := func(name, message string) v1alpha1.DevicePoolNode {
		return v1alpha1.DevicePoolNode{Node: name, Message: message}
	}
	dry, edited := pool("dry", v1alpha1.PoolDryRun, "dry run", node("a", "DryRun: 2 steps")), pool("edited", "Ready", "")
	dry.Spec.DryRun, edited.Generation = true, 2
	list := slices.Clone(told)
	for _, p := range []*v1alpha1.DevicePool{
		pool("fast", "NodesNotReady", "ready on 1/6 nodes", node("a", "Waiting: for a pod"), node("b", "NoNIC: no NIC of this node"), node("c", "NoNIC: no NIC of this node"),
			node("d", "Configuring: NIC x is being configured"), node("e", "the node's agent has not said anything of it yet")),
		pool("well", "Ready", ""), dry, edited, pool("bad", v1alpha1.ReasonInvalid, "spec.nodeSelector: no"), pool("none", "NoNode", "spec.nodeSelector selects no node"),
	} {
		list = append(list, poolTroubles(p, told)...)
	}
	var b bytes.Buffer
	printProblems(&b, ordered(list), 3)
	want := `error    DevicePool/bad  (on portolan-manager)
         spec.nodeSelector: no
warning  DevicePool/fast  (on b, c)
         NoNIC: no NIC of this node
warning  DevicePool/fast  spec  (on a)
         Waiting: for a pod
warning  DevicePool/none  (on portolan-manager)
         spec.nodeSelector selects no node
waiting  DevicePool/edited  (on portolan-manager)
         portolan-manager has not said how generation 2 of it stands
waiting  DevicePool/fast  (on d)
         Configuring: NIC x is being configured
waiting  DevicePool/fast  (on e)
         the node's agent has not said anything of it yet
`
	if b.String() != want {
		t.Errorf("found\n%s wanted\n%s", b.String(), want)
	}
}

func TestStatusTable(t *testing.T) {
	var b bytes.Buffer
	printStatus(&b, cluster(), false)
	want := `NODE  READY    ZONE  DATAPATH  MODE    DATABASES  NETWORKS  WAITING  PROBLEMS      VERSION
a     yes      a     netdev    native  up         0         0        1 (0 errors)  v1
b     no       b     -         -       NB down    0         1        2 (1 errors)  v1
c     unknown  -     -         -       -          -         -        -             -
a: 1 problems with objects: portolan problems shows them
b: not ready: no subnet
b: database NB is down: refused
b: 2 problems with objects: portolan problems shows them
c: no answer: pod crashed
  its last words: Refused: NIC eth0 has a DHCP lease
`
	if b.String() != want {
		t.Errorf("found\n%s wanted\n%s", b.String(), want)
	}
	b.Reset()
	printStatus(&b, cluster()[1:2], true)
	for _, want := range []string{"DATABASE  UP", "pod/demo/x  NB        12s  NB:Logical_Switch(b)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
