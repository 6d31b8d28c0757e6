package kube

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// fakeNetworks is an API server that has nodenetworks and a Node n.
func fakeNetworks() (*dynamicfake.FakeDynamicClient, *fake.Clientset) {
	networks := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{NodeNetworkResource(): "NodeNetworkList"})
	return networks, fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "node-uid"}})
}

// testWriter writes the NodeNetwork of the Node n by a clock of the test's.
func testWriter(networks *dynamicfake.FakeDynamicClient, nodes Client, now *time.Time) *NodeNetworkWriter {
	w := NewNodeNetworkWriter(NewNodeNetworks(networks), nodes, "n", slog.New(slog.DiscardHandler))
	if now != nil {
		w.now = func() time.Time { return *now }
	}
	return w
}

// writes counts what has been sent that changes something.
func writes(networks *dynamicfake.FakeDynamicClient) (n int) {
	for _, a := range networks.Actions() {
		switch a.GetVerb() {
		case "create", "update", "patch", "delete":
			n++
		}
	}
	return n
}

func status(ready bool, waiting ...string) v1alpha1.NodeNetworkStatus {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonStarting, Message: "starting"}
	if ready {
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonReady, ""
	}
	s := v1alpha1.NodeNetworkStatus{Zone: "n", Datapath: "netdev", Conditions: []metav1.Condition{c}, WaitingCount: len(waiting)}
	for _, u := range waiting {
		s.Waiting = append(s.Waiting, v1alpha1.WaitingUnit{Unit: u, Database: "NB", Cause: "waiting on x"})
	}
	return s
}

func read1(t *testing.T, w *NodeNetworkWriter) *v1alpha1.NodeNetwork {
	t.Helper()
	u, err := w.networks.resource().Get(context.Background(), "n", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := nodeNetworkOf(u)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNodeNetworkIsOwnedAndARestartWritesNothing(t *testing.T) {
	networks, nodes := fakeNetworks()
	now := time.Unix(1e9, 0)
	if err := testWriter(networks, nodes, &now).Write(t.Context(), status(true, "pod/a/b")); err != nil {
		t.Fatal(err)
	}
	w := testWriter(networks, nodes, &now)
	n := read1(t, w)
	if o := n.OwnerReferences; len(o) != 1 || o[0].UID != "node-uid" || o[0].Kind != "Node" {
		t.Errorf("owners %+v", o)
	}
	before := writes(networks)
	if before != 2 {
		t.Errorf("%d writes for a new object and its status", before)
	}
	now = now.Add(time.Hour)
	if err := w.Write(t.Context(), status(true, "pod/a/b")); err != nil {
		t.Fatal(err)
	}
	if got := writes(networks); got != before {
		t.Errorf("a restart an hour later wrote %d times", got-before)
	}
}

func TestTimesGoOn(t *testing.T) {
	networks, nodes := fakeNetworks()
	now := time.Unix(1e9, 0)
	w := testWriter(networks, nodes, &now)
	for _, s := range []v1alpha1.NodeNetworkStatus{status(false, "pod/a/b"), status(true, "pod/a/b", "pod/c/d")} {
		if err := w.Write(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	got := read1(t, w).Status
	if s := got.Waiting[0].Since.Unix(); s != 1e9 {
		t.Errorf("the unit that waited before waits since %d", s)
	}
	if s := got.Waiting[1].Since.Unix(); s != 1e9+60 {
		t.Errorf("the new one waits since %d", s)
	}
	if c := got.Conditions[0]; c.LastTransitionTime.Unix() != 1e9+60 || c.Status != metav1.ConditionTrue {
		t.Errorf("%+v", c)
	}
	if s := status(true); w.Write(t.Context(), s) != nil || len(read1(t, w).Status.Waiting) != 0 {
		t.Error("what waits no more is still listed")
	}
}

func TestNodeNetworkIsWrittenAtMostOnceInFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		networks, nodes := fakeNetworks()
		w := testWriter(networks, nodes, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		for i := range 50 { // a change every 100 ms for five seconds
			w.Declare(status(i%2 == 0))
			<-time.After(100 * time.Millisecond)
		}
		w.Declare(status(true))
		<-time.After(6 * time.Second)
		if n := writes(networks); n > 4 { // create and status, then one more, and the last
			t.Errorf("%d writes in 11 s", n)
		}
		if c := read1(t, w).Status.Conditions[0]; c.Status != metav1.ConditionTrue {
			t.Errorf("the last declaration is not what is there: %+v", c)
		}
		if err := w.networks.resource().Delete(ctx, "n", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-time.After(6 * time.Second)
		if c := read1(t, w).Status.Conditions[0]; c.Status != metav1.ConditionTrue {
			t.Errorf("not made again after its deletion: %+v", c)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestListNodeNetworks(t *testing.T) {
	networks, nodes := fakeNetworks()
	w := testWriter(networks, nodes, nil)
	if err := w.Write(t.Context(), status(true)); err != nil {
		t.Fatal(err)
	}
	list, err := ListNodeNetworks(t.Context(), w.networks)
	if err != nil || len(list) != 1 || list[0].Name != "n" || list[0].Status.Zone != "n" {
		t.Errorf("%+v, %v", list, err)
	}
}
