package main

import (
	"log/slog"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestIsolationIsOneSwitch has the ConfigMap follow the Cluster file, and nothing
// written where it does.
func TestIsolationIsOneSwitch(t *testing.T) {
	client := fake.NewClientset()
	objects := client.CoreV1().ConfigMaps("portolan")
	i := &isolator{client: client, namespace: "portolan", on: true, shared: []string{"a", "b"}, log: slog.New(slog.DiscardHandler)}
	round := func(writes int) {
		t.Helper()
		client.ClearActions()
		if err := i.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(client.Actions()) - 1; n != writes {
			t.Errorf("%d writes, want %d: %v", n, writes, client.Actions())
		}
	}
	for _, shared := range [][]string{{"a", "b"}, {"a"}, nil} {
		i.shared = shared
		round(1)
		round(0)
	}
	m, err := objects.Get(t.Context(), isolationName, metav1.GetOptions{})
	if err != nil || m.Data["sharedNamespaces"] != "" {
		t.Errorf("%v, %v", m, err)
	}
	i.on = false
	round(1)
	round(0)
	if _, err := objects.Get(t.Context(), isolationName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}
