package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// putRuns has the agent of a Node with UID u say what it runs with.
func putRuns(t *testing.T, networks *dynamicfake.FakeDynamicClient, name string, id int, subnet string) {
	t.Helper()
	put(t, networks, v1alpha1.NodeNetwork{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     v1alpha1.NodeNetworkStatus{Allocation: &v1alpha1.NodeAllocation{NodeUID: "u", NodeID: id, Subnets: []string{subnet}}},
	})
}

// TestEditedWhileNobodyLed has garbage, another node's subnet and a removed annotation
// meet a leader that begins: each node has what its agent runs with again, Events say
// so, a node whose agent claims another's gets none of it, and the next leader writes nothing.
func TestEditedWhileNobodyLed(t *testing.T) {
	me := "me"
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "portolan", Name: leaseName}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &me}}
	w := &world{t: t, networks: newNetworks(), client: fake.NewClientset(lease,
		testNode("garbage", 9, "2", "garbage"), testNode("others", 8, "4", subnet("10.244.3.0/24")), testNode("gone", 7, "", ""),
		testNode("honest", 6, "5", subnet("10.244.3.0/24")), testNode("liar", 10, "6", "garbage"))}
	for name, id := range map[string]int{"garbage": 2, "others": 4, "gone": 3, "honest": 5} {
		putRuns(t, w.networks, name, id, map[int]string{2: "10.244.0.0/24", 3: "10.244.1.0/24", 4: "10.244.2.0/24", 5: "10.244.3.0/24"}[id])
	}
	putRuns(t, w.networks, "liar", 5, "10.244.3.0/24")
	putRuns(t, w.networks, "nobody", 9, "10.244.9.0/24") // its Node has gone
	told, stop := w.lead()
	w.wait(told,
		`Node//garbage NodeAnnotationRestored: annotation k8s.ovn.org/node-subnets was "garbage" and is set back to [10.244.0.0/24], which this node has`,
		"Node//others NodeAnnotationRestored: annotation k8s.ovn.org/node-subnets",
		"Node//liar NodeAllocationMoved: its NodeNetwork says subnets [10.244.3.0/24], which it cannot have: node honest has them: this node is given [10.244.4.0/24] instead")
	for name, want := range map[string]string{"garbage": "2 10.244.0.0", "gone": "3 10.244.1.0", "others": "4 10.244.2.0", "honest": "5 10.244.3.0", "liar": "6 10.244.4.0"} {
		id, prefix, _ := strings.Cut(want, " ")
		has := (&started{client: w.client}).has(name, id, subnet(prefix+"/24"))
		for end := time.After(30 * time.Second); !has(); {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-end:
				t.Fatalf("%s never has %s", name, want)
			}
		}
	}
	stop()
	w.client.ClearActions()
	told, stop = w.lead()
	<-told
	stop()
	for _, action := range w.client.Actions() {
		if action.GetVerb() == "patch" && action.GetResource().Resource == "nodes" {
			t.Errorf("the next leader writes %v", action)
		}
	}
}

// TestWhatAgentsRunWithIsWaitedFor: an answer that fails is asked again, for a minute; a
// kind that is not there, or may not be read, is none.
func TestWhatAgentsRunWithIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newNetworks()
		putRuns(t, client, "n", 2, "10.244.1.0/24")
		var answers []error
		client.PrependReactor("list", "nodenetworks", func(ktesting.Action) (bool, runtime.Object, error) {
			if len(answers) == 0 {
				return false, nil, nil
			}
			err := answers[0]
			answers = answers[1:]
			return true, nil, err
		})
		e := election{networks: kube.NewNodeNetworks(client), log: slog.New(slog.DiscardHandler)}
		away := errors.New("server is away")
		resource := kube.NodeNetworkResource().GroupResource()
		for _, test := range []struct {
			answers []error
			nodes   int
			after   time.Duration
		}{
			{nil, 1, 0},
			{[]error{away, away}, 1, 2 * retryPeriod},
			{[]error{apierrors.NewNotFound(resource, "")}, 0, 0},
			{[]error{apierrors.NewForbidden(resource, "", away)}, 0, 0},
		} {
			answers = test.answers
			began := time.Now()
			if got := e.runs(t.Context()); len(got) != test.nodes || time.Since(began) != test.after {
				t.Errorf("%v: %v after %v", test.answers, got, time.Since(began))
			}
		}
		for range 100 {
			answers = append(answers, away)
		}
		began := time.Now()
		if got := e.runs(t.Context()); got != nil || time.Since(began) < patience || time.Since(began) > patience+retryPeriod {
			t.Errorf("%v after %v", got, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := e.runs(ctx); got != nil {
			t.Errorf("%v at the end", got)
		}
	})
}
