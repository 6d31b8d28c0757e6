package kube

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
)

// patches lists the bodies of the patches a client has sent.
func patches(client *fake.Clientset) (out []string) {
	for _, a := range client.Actions() {
		if p, ok := a.(ktesting.PatchAction); ok {
			out = append(out, string(p.GetPatch()))
		}
	}
	return out
}

func TestPatcherCoalesces(t *testing.T) {
	client := fake.NewClientset(testNode("node1", map[string]string{"old": "x"}))
	p := NewPatcher(client, slog.New(slog.DiscardHandler))
	p.Annotate(NodeTarget("node1"), map[string]string{"a": "1", "b": "1"})
	p.Annotate(NodeTarget("node1"), map[string]string{"a": "2"})
	p.Remove(NodeTarget("node1"), "old")
	running(t, p.Run)
	if err := p.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := patches(client); len(got) != 1 || got[0] != `{"metadata":{"annotations":{"a":"2","b":"1","old":null}}}` {
		t.Errorf("patches %q", got)
	}
	n, err := client.CoreV1().Nodes().Get(context.Background(), "node1", metav1.GetOptions{})
	if err != nil || len(n.Annotations) != 2 || n.Annotations["a"] != "2" {
		t.Errorf("node has %v, %v", n.Annotations, err)
	}
}

func TestPatcherRetriesAndDoesNotDelayOthers(t *testing.T) {
	client := fake.NewClientset(testNode("node1", nil), testNode("node2", nil))
	failures := 3
	blocked := make(chan struct{})
	client.PrependReactor("patch", "nodes", func(a ktesting.Action) (bool, runtime.Object, error) {
		if a.(ktesting.PatchAction).GetName() == "node1" && failures > 0 {
			failures--
			if failures == 0 {
				<-blocked
			}
			return true, nil, errors.New("server is away")
		}
		return false, nil, nil
	})
	p := NewPatcher(client, slog.New(slog.DiscardHandler))
	running(t, p.Run)
	p.Annotate(NodeTarget("node1"), map[string]string{"a": "1"})
	p.Annotate(NodeTarget("node2"), map[string]string{"a": "1"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Flush(ctx); err == nil {
		t.Error("Flush did not end with its context")
	}
	close(blocked)
	if err := p.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node1", "node2"} {
		if n, err := client.CoreV1().Nodes().Get(context.Background(), name, metav1.GetOptions{}); err != nil || n.Annotations["a"] != "1" {
			t.Errorf("%s has %v, %v", name, n.Annotations, err)
		}
	}
}

func TestPatcherLeavesAReplacedPodAlone(t *testing.T) {
	now := testPod("web", "node1")
	now.UID = "new"
	client := fake.NewClientset(now)
	client.PrependReactor("patch", "pods", func(a ktesting.Action) (bool, runtime.Object, error) {
		if strings.Contains(string(a.(ktesting.PatchAction).GetPatch()), `"uid":"old"`) {
			// As kube-apiserver 1.34 answers.
			return true, nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "web", field.ErrorList{
				field.Invalid(field.NewPath("metadata", "uid"), "old", "field is immutable"),
			})
		}
		return false, nil, nil
	})
	p := NewPatcher(client, slog.New(slog.DiscardHandler))
	running(t, p.Run)
	p.Annotate(PodTarget("a", "web", "old"), map[string]string{"k": "old"})
	p.Annotate(PodTarget("a", "gone", "x"), map[string]string{"k": "v"})
	if err := p.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.Annotate(PodTarget("a", "web", "new"), map[string]string{"k": "new"})
	if err := p.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("a").Get(context.Background(), "web", metav1.GetOptions{})
	if err != nil || pod.Annotations["k"] != "new" {
		t.Errorf("pod has %v, %v", pod.Annotations, err)
	}
}

func TestClientConfigNeverGuesses(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	for _, c := range []ClientConfig{{}, {APIServer: "172.18.0.3:6443"}, {APIServer: "http://172.18.0.3"}, {APIServer: "https://"}, {Kubeconfig: "/nonexistent"}} {
		if _, err := c.Connect(); err == nil {
			t.Errorf("%+v connects", c)
		}
	}
	cfg, err := ClientConfig{APIServer: "https://172.18.0.3:6443", TokenFile: "/t", UserAgent: "x"}.restConfig()
	if err != nil || cfg.Host != "https://172.18.0.3:6443" || cfg.BearerTokenFile != "/t" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
