package fold

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func network(name string, notReady string, problems ...v1alpha1.ObjectProblem) *v1alpha1.NodeNetwork {
	n := &v1alpha1.NodeNetwork{Status: v1alpha1.NodeNetworkStatus{Problems: problems, ProblemCount: len(problems)}}
	n.Name = name
	if n.Status.SetReady(); notReady != "" {
		n.Status.SetNotReady(v1alpha1.ReasonRefused, notReady)
	}
	return n
}

func wrong(object, message string) v1alpha1.ObjectProblem {
	return v1alpha1.ObjectProblem{Object: object, Severity: v1alpha1.SeverityError, Message: message}
}

// texts renders statements, one a line.
func texts(list []Statement) string {
	var out []string
	for _, s := range list {
		out = append(out, strings.TrimSpace(s.Object.String()+" "+s.Reason+": "+s.Message))
	}
	return strings.Join(out, "\n")
}

func TestPlacesFoldIntoOneStatement(t *testing.T) {
	b := NewBoard()
	for i := range 7 {
		b.SetNode(network(fmt.Sprintf("n%d", i), "", wrong("Pod/a/p", "its port has no room")))
	}
	b.SetNode(network("n7", "", wrong("Pod/a/p", "something else"), wrong("Cluster/.", "name held")))
	b.SetNode(network("n8", "NIC eth0 is not taken over"))
	want := `Node/n7 NetworkProblem: Cluster/.: name held
Node/n8 NetworkNotReady: no pod can start here, portolan-node says: NIC eth0 is not taken over
Pod/a/p NetworkProblem: on 7 of 9 nodes (n0, n1, n2, n3, n4 and 2 more): its port has no room; on node n7: something else`
	if diff := cmp.Diff(want, texts(b.Take())); diff != "" {
		t.Error(diff)
	}
	if got := b.Take(); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
	b.SetNode(network("n8", "NIC eth0 is not taken over")) // the same
	if got := b.Take(); len(got) != 0 {
		t.Errorf("told again: %v", got)
	}
	b.SetNode(network("n8", ""))
	b.DropNode("n7")
	want = `Node/n7 :
Node/n8 :
Pod/a/p NetworkProblem: on 7 of 8 nodes (n0, n1, n2, n3, n4 and 2 more): its port has no room`
	if diff := cmp.Diff(want, texts(b.Take())); diff != "" {
		t.Error(diff)
	}
}

// TestPoolsAreToldOfEachNode: what keeps a pool from a node is an Event of that Node, beside
// the pool's own, which is one for all nodes.
func TestPoolsAreToldOfEachNode(t *testing.T) {
	b := NewBoard()
	pool := wrong("DevicePool/fast", "NIC ens1f0: no link")
	pool.Field = "spec"
	b.SetNode(network("n1", "", pool))
	b.SetNode(network("n2", "", pool, wrong("PhysicalNetwork/lan", "NIC eth1 is not there")))
	b.Set("devicepools", []Found{{Object: intent.Key{Kind: intent.KindDevicePool, Name: "fast"}, Reason: OfPool + v1alpha1.PoolFailed, Message: "node n1: NIC ens1f0: no link"}})
	want := `DevicePool/fast DevicePoolFailed: node n1: NIC ens1f0: no link
Node/n1 NetworkProblem: DevicePool/fast spec: NIC ens1f0: no link
Node/n2 NetworkProblem: DevicePool/fast spec: NIC ens1f0: no link; PhysicalNetwork/lan: NIC eth1 is not there`
	if diff := cmp.Diff(want, texts(b.Take())); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTheManagerFindsHoldsEverywhere(t *testing.T) {
	b := NewBoard()
	p := rows.Problem{Object: "Node/a", Field: "metadata.annotations[x]", Severity: rows.Error, Message: "bad"}
	for i := range 3 {
		o := wrong(p.Object, p.Message)
		o.Field = p.Field
		b.SetNode(network(fmt.Sprintf("n%d", i), "", o))
	}
	b.Take()
	b.Set("units", OfProblems([]rows.Problem{p, {Object: "document 3", Message: "no object"}}))
	if diff := cmp.Diff("Node/a NetworkInputInvalid: metadata.annotations[x]: bad", texts(b.Take())); diff != "" {
		t.Error(diff)
	}
	b.Set("allocation/a", []Found{{Object: intent.Key{Kind: intent.KindNode, Name: "a"}, Reason: "NodeIDConflict", Message: "held by b"}})
	if diff := cmp.Diff("Node/a NodeIDConflict: held by b; metadata.annotations[x]: bad", texts(b.Take())); diff != "" {
		t.Error(diff)
	}
}

// TestOrderDoesNotMatter plays one end in many orders: the statements are the same.
func TestOrderDoesNotMatter(t *testing.T) {
	acts := []func(*Board){
		func(b *Board) { b.SetNode(network("a", "", wrong("Pod/x/y", "1"), wrong("Pod/x/y", "2"))) },
		func(b *Board) { b.SetNode(network("b", "", wrong("Pod/x/y", "2"))) },
		func(b *Board) { b.SetNode(network("c", "not here", wrong("Pod/x/y", "2"))) },
		func(b *Board) { b.Set("units", OfProblems([]rows.Problem{{Object: "Pod/x/y", Message: "1"}})) },
	}
	want := ""
	for seed := range uint64(200) {
		b := NewBoard()
		for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(acts)) {
			acts[i](b)
			if seed%2 == 0 {
				b.Take()
			}
		}
		b.Take()
		got := texts(b.Statements())
		if want == "" {
			want = got
		}
		if got != want {
			t.Fatalf("seed %d:\n%s\nand before:\n%s", seed, got, want)
		}
	}
	if !strings.Contains(want, "Pod/x/y NetworkInputInvalid: 1; on 3 of 3 nodes (a, b, c): 2") {
		t.Error(want)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	b := NewBoard()
	var list []rows.Problem
	for i := range 100 {
		list = append(list, rows.Problem{Object: "Pod/a/b", Message: fmt.Sprintf("%03d %s", i, strings.Repeat("x", 90))})
	}
	b.Set("units", OfProblems(list))
	m := b.Take()[0].Message
	if len(m) > longest+100 || !strings.HasSuffix(m, "more problems, see portolan problems") {
		t.Errorf("%d bytes: …%s", len(m), m[len(m)-60:])
	}
}
