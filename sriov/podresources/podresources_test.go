package podresources_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/sriov/plugin/plugintest"
	"github.com/portolan-cni/portolan/sriov/podresources"
)

func client(t *testing.T, k *plugintest.Kubelet) *podresources.Client {
	t.Helper()
	c, err := podresources.New(k.PodResources())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOf(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	c := client(t, k)
	k.Set("demo", "a", "portolan.io/fast", "soft-a-1", "soft-a-0")
	k.Set("demo", "a", "portolan.io/slow", "soft-b-0")
	k.Set("other", "a", "portolan.io/fast", "soft-a-2")
	got, err := c.Of(t.Context(), "demo", "a")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]string{"portolan.io/fast": {"soft-a-1", "soft-a-0"}, "portolan.io/slow": {"soft-b-0"}}, got); diff != "" {
		t.Error(diff)
	}
	if got, err := c.Of(t.Context(), "demo", "b"); err != nil || len(got) != 0 {
		t.Errorf("of a pod without devices: %v, %v", got, err)
	}
	all, err := c.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Errorf("all: %v, %v", all, err)
	}
}

// TestTwoOfOneName: which of them is asked for cannot be known.
func TestTwoOfOneName(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	c := client(t, k)
	k.Set("demo", "a", "portolan.io/fast", "soft-a-0")
	k.Twin("demo", "a", "portolan.io/fast", "soft-a-1")
	_, err := c.Of(t.Context(), "demo", "a")
	if ambiguous, ok := errors.AsType[*podresources.AmbiguousError](err); !ok || ambiguous.Pod != "demo/a" {
		t.Errorf("error %v", err)
	}
	k.Remove("demo", "a")
	if _, err := c.Of(t.Context(), "demo", "a"); err != nil {
		t.Error(err)
	}
}

// TestKubeletAway says so, and answers again when it is back.
func TestKubeletAway(t *testing.T) {
	k := plugintest.New(t)
	c := client(t, k)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.Of(ctx, "demo", "a"); err == nil || !strings.Contains(err.Error(), "look whether the kubelet runs") {
		t.Errorf("error %v", err)
	}
	k.Start()
	k.Set("demo", "a", "portolan.io/fast", "soft-a-0")
	for deadline := time.Now().Add(20 * time.Second); ; {
		got, err := c.Of(t.Context(), "demo", "a")
		if err == nil && len(got) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v, %v", got, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}
