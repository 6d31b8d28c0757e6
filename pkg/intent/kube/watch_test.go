package kube

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/pkg/intent"
)

func testPod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: "u1", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

func testNode(name string, annotations map[string]string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "u", ResourceVersion: "1", Annotations: annotations}}
}

func TestWatch(t *testing.T) {
	ctx := context.Background()
	client := fake.NewClientset(
		testNode("node1", nil), testPod("web", "node1"),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}},
	)
	sink := newRecordingSink(t)
	w := &Watch{Client: client, Sink: sink, Problems: sink.problems}
	running(t, w.Run)
	sink.wait("the first list", func() bool { return len(sink.synced) == 3 && sink.has("Namespace/a Node/node1 Pod/a/web")() })

	bad := testNode("node1", map[string]string{AnnotationNodeID: "x"})
	if _, err := client.CoreV1().Nodes().Update(ctx, bad, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	key := intent.Key{Kind: intent.KindNode, Name: "node1"}
	sink.wait("a Problem", func() bool { return sink.bad[key] != "" })
	good := testNode("node1", map[string]string{AnnotationNodeID: "4"})
	if _, err := client.CoreV1().Nodes().Update(ctx, good, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.wait("its end", func() bool { return sink.bad[key] == "" && sink.objects[key].(*intent.Node).ID == 4 })

	done := testPod("web", "node1")
	done.Status.Phase = corev1.PodSucceeded
	if _, err := client.CoreV1().Pods("a").Update(ctx, done, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.wait("a completed pod to go", sink.has("Namespace/a Node/node1"))
	if err := client.CoreV1().Nodes().Delete(ctx, "node1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.wait("the node to go", sink.has("Namespace/a"))
}

// TestWatchClosesGaps ends the first watch while objects change unseen: the new
// list must deliver what came and what went.
func TestWatchClosesGaps(t *testing.T) {
	client := fake.NewClientset(testPod("old", "node1"), testPod("stays", "node1"))
	cut := watch.NewFake()
	first := true
	client.PrependWatchReactor("pods", func(ktesting.Action) (bool, watch.Interface, error) {
		if !first {
			return false, nil, nil
		}
		first = false
		return true, cut, nil
	})
	sink := newRecordingSink(t)
	w := &Watch{Client: client, Sink: sink, Sources: []Source{Pods}}
	running(t, w.Run)
	sink.wait("the first list", func() bool { return sink.synced[Pods] == 2 })

	pods := client.CoreV1().Pods("a")
	if err := pods.Delete(context.Background(), "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Create(context.Background(), testPod("new", "node1"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	cut.Error(&metav1.Status{Status: metav1.StatusFailure, Code: 410, Reason: metav1.StatusReasonExpired})
	sink.wait("the gap to close", sink.has("Pod/a/new Pod/a/stays"))
}

func TestWatchSelectsPods(t *testing.T) {
	for node, want := range map[string]string{"": "spec.nodeName!=", "node1": "spec.nodeName=node1"} {
		client := fake.NewClientset()
		w := &Watch{Client: client, Sink: newRecordingSink(t), Sources: []Source{Pods}, Node: node}
		sink := w.Sink.(*recordingSink)
		running(t, w.Run)
		sink.wait("sync", func() bool { return len(sink.synced) == 1 })
		for _, a := range client.Actions() {
			if l, ok := a.(ktesting.ListAction); ok && l.GetListRestrictions().Fields.String() != want {
				t.Errorf("listed %q, want %q", l.GetListRestrictions().Fields, want)
			}
		}
	}
}

func TestTrimKeepsWhatIsRead(t *testing.T) {
	n := testNode("node1", map[string]string{AnnotationNodeID: "4", "volumes.kubernetes.io/controller-managed-attach-detach": "true"})
	n.Labels = map[string]string{"rack": "a"}
	n.Status = corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.18.0.2"}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady}},
	}
	p := testPod("web", "node1")
	for _, o := range []any{n, p} {
		small, err := trim(o)
		if err != nil {
			t.Fatal(err)
		}
		var before, after intent.Object
		switch o := o.(type) {
		case *corev1.Node:
			before, _ = ParseNode(o, ZonePerNode)
			after, _ = ParseNode(small.(*corev1.Node), ZonePerNode)
			if len(small.(*corev1.Node).Status.Conditions) != 0 || len(small.(*corev1.Node).Annotations) != 1 {
				t.Error("a node keeps what nobody reads")
			}
		case *corev1.Pod:
			before, _ = ParsePod(o)
			after, _ = ParsePod(small.(*corev1.Pod))
			if len(small.(*corev1.Pod).Spec.Containers) != 0 {
				t.Error("a pod keeps what nobody reads")
			}
		}
		if !before.Equal(after) {
			t.Errorf("%s changed by trimming", before.Key())
		}
	}
}
