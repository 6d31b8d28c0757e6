package networks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// server is an API server of the resources that a Keeper knows: unlike the client's
// own fake it gives versions, refuses writes of old ones, and keeps spec and status
// apart.
type server struct {
	*dynamicfake.FakeDynamicClient

	mu      sync.Mutex // guards what follows, and makes a write one step
	version int
	writes  map[string]int     // by verb and resource
	fail    func(string) error // asked before each write, with "verb resource name"
}

func newServer() *server {
	kinds := map[schema.GroupVersionResource]string{
		Definitions(): "NetworkAttachmentDefinitionList", resource("networks"): "NetworkList",
		userDefinedResource("UserDefinedNetwork"): "UserDefinedNetworkList", userDefinedResource("ClusterUserDefinedNetwork"): "ClusterUserDefinedNetworkList",
		resource("addressblocks"): "AddressBlockList", resource("physicalnetworks"): "PhysicalNetworkList", resource("devicepools"): "DevicePoolList",
		kube.ClaimResource(): "IPAMClaimList",
	}
	s := &server{
		FakeDynamicClient: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds),
		writes:            map[string]int{}, fail: func(string) error { return nil },
	}
	s.PrependReactor("create", "*", s.create)
	s.PrependReactor("update", "*", s.update)
	s.PrependReactor("patch", "*", s.patch)
	s.PrependReactor("delete", "*", s.delete)
	return s
}

func (s *server) begin(verb string, gvr schema.GroupVersionResource, name string) error {
	s.writes[verb+" "+gvr.Resource]++
	return s.fail(verb + " " + gvr.Resource + " " + name)
}

func (s *server) stamp(u *unstructured.Unstructured) {
	s.version++
	u.SetResourceVersion(strconv.Itoa(s.version))
}

func (s *server) create(a ktesting.Action) (bool, runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := a.(ktesting.CreateAction).GetObject().(*unstructured.Unstructured)
	if err := s.begin("create", a.GetResource(), u.GetName()); err != nil {
		return true, nil, err
	}
	s.stamp(u)
	u.SetUID(types.UID(fmt.Sprintf("uid-%06d", s.version)))
	if u.GetCreationTimestamp().Time.IsZero() {
		u.SetCreationTimestamp(metav1.NewTime(time.Unix(1e9, 0)))
	}
	err := s.Tracker().Create(a.GetResource(), u, u.GetNamespace())
	return true, u.DeepCopy(), err
}

func (s *server) update(a ktesting.Action) (bool, runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := a.(ktesting.UpdateAction).GetObject().(*unstructured.Unstructured)
	if err := s.begin("update", a.GetResource(), u.GetName()); err != nil {
		return true, nil, err
	}
	o, err := s.Tracker().Get(a.GetResource(), a.GetNamespace(), u.GetName())
	if err != nil {
		return true, nil, err
	}
	if have := o.(*unstructured.Unstructured); have.GetResourceVersion() != u.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), u.GetName(), errors.New("another version"))
	}
	s.stamp(u)
	err = s.Tracker().Update(a.GetResource(), u, a.GetNamespace())
	return true, u.DeepCopy(), err
}

func (s *server) patch(a ktesting.Action) (bool, runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := a.(ktesting.PatchAction)
	if err := s.begin("patch", a.GetResource(), p.GetName()); err != nil {
		return true, nil, err
	}
	o, err := s.Tracker().Get(a.GetResource(), a.GetNamespace(), p.GetName())
	if err != nil {
		return true, nil, err
	}
	u := o.DeepCopyObject().(*unstructured.Unstructured)
	var body map[string]any
	if err := json.Unmarshal(p.GetPatch(), &body); err != nil {
		return true, nil, err
	}
	meta, _ := body["metadata"].(map[string]any)
	if v, ok := meta["resourceVersion"]; ok && v != u.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), p.GetName(), errors.New("another version"))
	}
	delete(body, "metadata")
	if labels, ok := meta["labels"]; ok {
		body["metadata"] = map[string]any{"labels": labels}
	}
	if a.GetSubresource() == "status" {
		delete(body, "spec")
	} else {
		delete(body, "status")
	}
	merge(u.Object, body)
	s.stamp(u)
	err = s.Tracker().Update(a.GetResource(), u, a.GetNamespace())
	return true, u.DeepCopy(), err
}

func merge(into, from map[string]any) {
	for key, v := range from {
		sub, isMap := v.(map[string]any)
		have, hasMap := into[key].(map[string]any)
		switch {
		case v == nil:
			delete(into, key)
		case isMap && hasMap:
			merge(have, sub)
		case isMap:
			fresh := map[string]any{}
			merge(fresh, sub)
			into[key] = fresh
		default:
			if f, ok := v.(float64); ok && f == float64(int64(f)) {
				v = int64(f)
			}
			into[key] = v
		}
	}
}

func (s *server) delete(a ktesting.Action) (bool, runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := a.(ktesting.DeleteAction)
	if err := s.begin("delete", a.GetResource(), d.GetName()); err != nil {
		return true, nil, err
	}
	o, err := s.Tracker().Get(a.GetResource(), a.GetNamespace(), d.GetName())
	if err != nil {
		return true, nil, err
	}
	pre := d.GetDeleteOptions().Preconditions
	if u := o.(*unstructured.Unstructured); pre != nil && pre.ResourceVersion != nil && *pre.ResourceVersion != u.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(a.GetResource().GroupResource(), d.GetName(), errors.New("another version"))
	}
	return true, nil, s.Tracker().Delete(a.GetResource(), a.GetNamespace(), d.GetName())
}

// count is how many writes of a kind there were.
func (s *server) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes[what]
}

// lab is a Keeper at work on a server.
type lab struct {
	t      *testing.T
	s      *server
	k      *Keeper
	stop   func()
	rounds chan struct{}

	mu     sync.Mutex // guards what follows
	found  map[string]Found
	pools  []PoolFound
	high   *uint64      // as the Lease has it
	leased atomic.Int32 // how often that was written
}

// begin starts a Keeper, as one that has become leader.
func begin(t *testing.T, s *server, high *uint64) *lab {
	t.Helper()
	return beginAt(t, s, high, time.Now)
}

// beginAt is begin with a clock.
func beginAt(t *testing.T, s *server, high *uint64, now func() time.Time) *lab {
	t.Helper()
	l := &lab{t: t, s: s, rounds: make(chan struct{}, 100000), found: map[string]Found{}, high: high}
	plan, problems := kube.ParseCluster(&v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{
		ClusterSubnets: []string{"10.244.0.0/16/24"}, ServiceSubnets: []string{"10.96.0.0/16"}, MTU: 1400,
	}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	l.k = New(Config{
		Client: s, Plan: plan, Log: slog.New(slog.DiscardHandler), Timeout: 5 * time.Second, Now: now,
		Recall: func(context.Context) uint64 { return *high },
		Keep:   func(_ context.Context, h uint64) error { *high = h; l.leased.Add(1); return nil },
		Found: func(list []Found) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.found = map[string]Found{}
			for _, f := range list {
				l.found[f.Definition] = f
			}
			l.rounds <- struct{}{}
		},
		Pools: func(list []PoolFound) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.pools = list
		},
	})
	for _, src := range []kube.Source{kube.Pods, kube.Namespaces, kube.Nodes} {
		l.k.Synced(src)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	watch := &kube.Watch{Dynamic: s, Sink: l.k, Sources: []kube.Source{kube.Networks, kube.PhysicalNetworks, kube.DevicePools}, Taps: l.k.Taps()}
	parts.Go(func() { _ = watch.Run(ctx) })
	parts.Go(func() { l.k.Run(ctx) })
	l.stop = func() { cancel(); parts.Wait() }
	t.Cleanup(l.stop)
	return l
}

// wait waits until ok holds, looking after each round.
func (l *lab) wait(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-l.rounds:
		case <-deadline:
			l.mu.Lock()
			defer l.mu.Unlock()
			l.t.Fatalf("never came: %s; found %+v", what, l.found)
		}
	}
}

// define makes or changes a definition; no text deletes it.
func (l *lab) define(key, text string) {
	l.t.Helper()
	namespace, name, _ := cutKey(key)
	if text != "" {
		text = strings.Replace(text, `"name"`, fmt.Sprintf(`"netAttachDefName":%q,"name"`, key), 1)
	}
	r := l.s.Resource(Definitions()).Namespace(namespace)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"namespace": namespace, "name": name}, "spec": map[string]any{"config": text},
	}}
	var err error
	switch _, getErr := r.Get(l.t.Context(), name, metav1.GetOptions{}); {
	case text == "":
		err = r.Delete(l.t.Context(), name, metav1.DeleteOptions{})
	case getErr == nil:
		body, _ := json.Marshal(map[string]any{"spec": map[string]any{"config": text}})
		_, err = r.Patch(l.t.Context(), name, types.MergePatchType, body, metav1.PatchOptions{})
	default:
		_, err = r.Create(l.t.Context(), u, metav1.CreateOptions{})
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// network is a Network as the server has it; nil: there is none.
func (l *lab) network(name string) *v1alpha1.Network {
	u, err := l.s.Resource(resource("networks")).Get(context.Background(), v1alpha1.NetworkObjectName(name), metav1.GetOptions{})
	if err != nil {
		return nil
	}
	n, err := decode[v1alpha1.Network](u)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// says tells whether a network's condition is such, and its message has a part.
func (l *lab) says(name string, status metav1.ConditionStatus, reason, part string) func() bool {
	return func() bool {
		n := l.network(name)
		if n == nil || len(n.Status.Conditions) != 1 {
			return false
		}
		c := n.Status.Conditions[0]
		return c.Status == status && c.Reason == reason && contains(c.Message, part)
	}
}

// attach puts a pod with an interface by a definition; node "" takes it away.
func (l *lab) attach(pod, node, definition string) {
	namespace, name, _ := cutKey(pod)
	p := &intent.Pod{Namespace: namespace, Name: name, UID: "u", Node: node, Attachments: []intent.Attachment{
		{Network: definition, Addresses: prefixes("10.1.0.5/16")},
	}}
	if node == "" {
		l.k.Delete(p.Key())
		return
	}
	l.k.Put(p)
}
