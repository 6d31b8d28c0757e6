package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	mgr "github.com/portolan-cni/portolan/cmd/portolan-manager/networks"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// thousand creates 1,000 definitions at once. Each becomes a network with an id of its
// own, by one request that makes it and one that says its status; and to write the next
// definition takes the API server no longer than to write the first.
func thousand(t *testing.T, c *cluster, requests *tally) {
	const n = 1000
	first := c.definitionTime(t)
	before := requests.copy()
	all := c.follow(t)
	definitions := c.as(tenant).Resource(mgr.Definitions()).Namespace("wired")
	begin := time.Now()
	var wg sync.WaitGroup
	for w := range 50 { // more under way at once, and a busy server ends connections
		wg.Go(func() {
			for i := w; i < n; i += 50 {
				if _, err := definitions.Create(t.Context(), many(i), metav1.CreateOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	created := time.Since(begin)
	ids := all.ready(t, n)
	t.Logf("%d definitions were written in %v, and were ready networks %v after the first", n, created.Round(100*time.Millisecond), time.Since(begin).Round(100*time.Millisecond))
	if len(ids) != n {
		t.Errorf("%d networks have %d ids", n, len(ids))
	}
	wrote := map[string]int{}
	for what, count := range requests.copy() {
		if !strings.HasPrefix(what, "GET") && count > before[what] {
			wrote[what] = count - before[what]
		}
	}
	t.Logf("portolan-manager's requests: %v; the Lease was written %d times", wrote, requests.leases())
	again := n / 20 // of those that a busy server has not answered in time
	for what, count := range wrote {
		if what != "POST networks" && what != "PATCH networks/status" || count > n+again {
			t.Errorf("%d requests %s, want one to make each of %d networks, and one to say its status", count, what, n)
		}
	}
	if most := 1 + n/60; requests.leases() > most {
		t.Errorf("the Lease was written %d times, want at most %d", requests.leases(), most)
	}
	last := c.definitionTime(t)
	t.Logf("a definition is taken in %v, and beside %d networks in %v", first, n, last)
	if last > 6*first {
		t.Error("that grows with the number of networks: an admission policy looks at each?")
	}
}

func many(i int) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": map[string]any{"name": fmt.Sprintf("many%d", i)},
		"spec": map[string]any{"config": fmt.Sprintf(`{"cniVersion":"1.0.0","type":"portolan","netAttachDefName":"wired/many%d","name":"many%d","topology":"layer2","subnets":"11.%d.0.0/24"}`, i, i, i%250)},
	}}
}

// definitionTime is how long the API server takes to say yes to a definition: the median.
func (c *cluster) definitionTime(t *testing.T) time.Duration {
	t.Helper()
	r := c.as(tenant).Resource(mgr.Definitions()).Namespace("wired")
	var took []time.Duration
	for range 50 {
		begin := time.Now()
		if _, err := r.Create(t.Context(), many(100000), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// follower hears of networks.
type follower struct {
	events <-chan *unstructured.Unstructured
}

// follow watches networks from now on.
func (c *cluster) follow(t *testing.T) follower {
	t.Helper()
	r := c.as(admin).Resource(schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "networks"})
	w, err := r.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan *unstructured.Unstructured, 10000)
	go func() {
		for e := range w.ResultChan() {
			if u, ok := e.Object.(*unstructured.Unstructured); ok {
				events <- u
			}
		}
	}()
	t.Cleanup(w.Stop)
	return follower{events}
}

// ready waits for the networks many…, and gives their ids, with the network that has each.
func (f follower) ready(t *testing.T, n int) map[int64]string {
	t.Helper()
	ids, names := map[int64]string{}, map[string]struct{}{}
	late := time.After(3 * time.Minute)
	for len(names) < n {
		select {
		case u := <-f.events:
			conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
			if !strings.HasPrefix(u.GetName(), "many") || len(conditions) == 0 || conditions[0].(map[string]any)["status"] != "True" {
				continue
			}
			id, _, _ := unstructured.NestedInt64(u.Object, "spec", "id")
			if other := ids[id]; other != "" && other != u.GetName() {
				t.Errorf("%s and %s have id %d", other, u.GetName(), id)
			}
			ids[id], names[u.GetName()] = u.GetName(), struct{}{}
		case <-late:
			t.Fatalf("%d of %d networks are ready", len(names), n)
		}
	}
	return ids
}

// tally counts a client's requests by method and resource.
type tally struct {
	next http.RoundTripper

	mu     sync.Mutex // guards counts
	counts map[string]int
}

// RoundTrip counts a request, and makes it.
func (c *tally) RoundTrip(r *http.Request) (*http.Response, error) {
	words := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // apis GROUP VERSION [namespaces NAME] RESOURCE [NAME [SUB]]
	if words = words[min(3, len(words)):]; len(words) > 2 && words[0] == "namespaces" {
		words = words[2:]
	}
	what := r.Method
	if len(words) > 0 {
		what += " " + words[0]
	}
	if len(words) > 2 {
		what += "/" + words[2]
	}
	c.add(what)
	return c.next.RoundTrip(r)
}

func (c *tally) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

func (c *tally) copy() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// leaseWritten stands for a write of the Lease, which the keeper leaves to others.
const leaseWritten = "GET lease"

func (c *tally) leases() int { return c.copy()[leaseWritten] }

// keeper runs portolan-manager's part for networks as portolan-manager, with as many
// requests a second as that has.
func (c *cluster) keeper(t *testing.T) (*mgr.Keeper, *tally) {
	t.Helper()
	plan, problems := kube.ParseCluster(&v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{
		ClusterSubnets: []string{"10.244.0.0/16/24"}, ServiceSubnets: []string{"10.96.0.0/16"}, MTU: 1400,
	}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	requests := &tally{counts: map[string]int{}}
	config := c.configOf(manager)
	config.QPS, config.Burst = mgr.QPS, 2*mgr.QPS
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { requests.next = next; return requests })
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	k := mgr.New(mgr.Config{
		Client: client, Plan: plan, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Timeout: 5 * time.Second,
		Recall: func(context.Context) uint64 { return 0 }, Keep: func(context.Context, uint64) error { requests.add(leaseWritten); return nil }, Found: func([]mgr.Found) {},
	})
	for _, n := range []string{"n1", "n2"} {
		k.Put(&intent.Node{Name: n})
	}
	for _, s := range []kube.Source{kube.Pods, kube.Namespaces, kube.Nodes} {
		k.Synced(s)
	}
	k.Put(&intent.Namespace{Name: "wired", Labels: map[string]string{"wire": "yes"}})
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	watch := &kube.Watch{Dynamic: client, Sink: k, Sources: []kube.Source{kube.Networks, kube.PhysicalNetworks}, Taps: k.Taps()}
	parts.Go(func() { _ = watch.Run(ctx) })
	parts.Go(func() { k.Run(ctx) })
	t.Cleanup(func() { cancel(); parts.Wait() })
	return k, requests
}
