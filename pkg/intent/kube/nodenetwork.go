package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// NodeNetworks is the API server's resource nodenetworks.
type NodeNetworks struct{ client dynamic.Interface }

// NewNodeNetworks takes them from a client of any resources.
func NewNodeNetworks(client dynamic.Interface) NodeNetworks { return NodeNetworks{client} }

func (n NodeNetworks) resource() dynamic.ResourceInterface {
	return n.client.Resource(NodeNetworkResource())
}

// NodeNetworkResource names the resource.
func NodeNetworkResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: "nodenetworks"}
}

// ConnectNodeNetworks makes a client of nodenetworks. It does not touch the network.
func (c ClientConfig) ConnectNodeNetworks() (NodeNetworks, error) {
	cfg, err := c.restConfig()
	if err != nil {
		return NodeNetworks{}, err
	}
	client, err := dynamic.NewForConfig(cfg)
	return NodeNetworks{client}, err
}

// ConnectResources makes a client of any resources, with this many requests a
// second and twice that in a burst. It does not touch the network.
func (c ClientConfig) ConnectResources(qps float32) (dynamic.Interface, error) {
	c.QPS, c.Burst = qps, int(2*qps)
	cfg, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(cfg)
}

// ListNodeNetworks reads all of them.
func ListNodeNetworks(ctx context.Context, networks NodeNetworks) ([]*v1alpha1.NodeNetwork, error) {
	list, err := networks.resource().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list nodenetworks: %w", err)
	}
	out := make([]*v1alpha1.NodeNetwork, 0, len(list.Items))
	for i := range list.Items {
		n, err := nodeNetworkOf(&list.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// NewNodeNetworkInformer makes an informer whose handler gets *v1alpha1.NodeNetwork;
// node is the one to watch, "" for all.
func NewNodeNetworkInformer(networks NodeNetworks, node string, handler cache.ResourceEventHandler) (cache.Store, cache.Controller) {
	lw := &cache.ListWatch{}
	lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(networks.resource().List, networks.resource().Watch, func(o *metav1.ListOptions) {
		if node != "" {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", node).String()
		}
	})
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, networks.client), ObjectType: &unstructured.Unstructured{}, Handler: handler,
		Transform: func(o any) (any, error) {
			if u, ok := o.(*unstructured.Unstructured); ok {
				return nodeNetworkOf(u)
			}
			return o, nil
		},
	})
}

func nodeNetworkOf(u *unstructured.Unstructured) (*v1alpha1.NodeNetwork, error) {
	n := &v1alpha1.NodeNetwork{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, n); err != nil {
		return nil, fmt.Errorf("NodeNetwork %s: %w", u.GetName(), err)
	}
	n.ManagedFields = nil
	return n, nil
}

// writePause is the least time between two writes of one NodeNetwork.
const writePause = 5 * time.Second

// NodeNetworkWriter keeps one node's NodeNetwork as declared. Nothing is written
// that is there already; what a write must not change is kept: since when a unit
// waits, when a condition last changed, and what the node has been given.
type NodeNetworkWriter struct {
	networks NodeNetworks
	nodes    Client // to own the object by its Node
	node     string
	log      *slog.Logger
	now      func() time.Time
	bell     chan struct{} // holds one ring

	mu   sync.Mutex // guards want
	want *v1alpha1.NodeNetworkStatus
}

// NewNodeNetworkWriter makes a writer for a node; nothing is written until Run or Write.
func NewNodeNetworkWriter(networks NodeNetworks, nodes Client, node string, log *slog.Logger) *NodeNetworkWriter {
	return &NodeNetworkWriter{networks: networks, nodes: nodes, node: node, log: log, now: time.Now, bell: make(chan struct{}, 1)}
}

// Declare says what the NodeNetwork is to hold; it does not block. Times in it
// count only where the object has none yet.
func (w *NodeNetworkWriter) Declare(s v1alpha1.NodeNetworkStatus) {
	w.mu.Lock()
	w.want = &s
	w.mu.Unlock()
	w.ring()
}

func (w *NodeNetworkWriter) ring() {
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// Run writes what is declared, at most once in 5 s, and again when somebody else
// has changed or deleted it, until ctx ends.
func (w *NodeNetworkWriter) Run(ctx context.Context) error {
	_, informer := NewNodeNetworkInformer(w.networks, w.node, cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { w.ring() },
		UpdateFunc: func(any, any) { w.ring() },
		DeleteFunc: func(any) { w.ring() },
	})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { informer.RunWithContext(ctx) })
	failing := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.bell:
		}
		w.mu.Lock()
		want := w.want
		w.mu.Unlock()
		if want == nil {
			continue
		}
		wrote, err := w.write(ctx, *want)
		if err != nil && !failing && ctx.Err() == nil {
			w.log.Warn("NodeNetwork not written, will retry", "node", w.node, "err", err)
		}
		if failing = err != nil; failing {
			w.ring()
		}
		if !wrote && !failing {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(writePause):
		}
	}
}

// Write writes a status now, once, if it differs.
func (w *NodeNetworkWriter) Write(ctx context.Context, s v1alpha1.NodeNetworkStatus) error {
	_, err := w.write(ctx, s)
	return err
}

// write brings the object to a status and says whether that took a write. It reads
// first, so that what is compared, and kept, is what the server has.
func (w *NodeNetworkWriter) write(ctx context.Context, s v1alpha1.NodeNetworkStatus) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	u, err := w.networks.resource().Get(ctx, w.node, metav1.GetOptions{})
	created := apierrors.IsNotFound(err)
	if created {
		u, err = w.create(ctx)
	}
	if err != nil {
		return created, err
	}
	have, err := nodeNetworkOf(u)
	if err != nil {
		return created, err
	}
	next := carry(have.Status, s, w.now())
	same, err := sameStatus(have.Status, next)
	if err != nil || same && !created {
		return created, err
	}
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&next)
	if err != nil {
		return created, fmt.Errorf("NodeNetwork %s: %w", w.node, err)
	}
	u.Object["status"] = status
	_, err = w.networks.resource().UpdateStatus(ctx, u, metav1.UpdateOptions{})
	return true, err
}

// create makes the object without a status, owned by its Node.
func (w *NodeNetworkWriter) create(ctx context.Context) (*unstructured.Unstructured, error) {
	node, err := w.nodes.CoreV1().Nodes().Get(ctx, w.node, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetAPIVersion(v1alpha1.APIVersion)
	u.SetKind(v1alpha1.KindNodeNetwork)
	u.SetName(w.node)
	u.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}})
	return w.networks.resource().Create(ctx, u, metav1.CreateOptions{})
}

// carry takes from the status that is there the times that go on, and the allocation
// while the agent does not know it: a start, or a refusal, must not lose it.
func carry(have, want v1alpha1.NodeNetworkStatus, now time.Time) v1alpha1.NodeNetworkStatus {
	waiting := make([]v1alpha1.WaitingUnit, len(want.Waiting))
	for i, u := range want.Waiting {
		if u.Since.IsZero() {
			u.Since = metav1.NewTime(now)
		}
		for _, old := range have.Waiting {
			if old.Unit == u.Unit && old.Database == u.Database {
				u.Since = old.Since
			}
		}
		waiting[i] = u
	}
	conditions := make([]metav1.Condition, len(want.Conditions))
	for i, c := range want.Conditions {
		c.LastTransitionTime = metav1.NewTime(now)
		for _, old := range have.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		conditions[i] = c
	}
	want.Waiting, want.Conditions = waiting, conditions
	if want.Allocation == nil {
		want.Allocation = have.Allocation
	}
	return want
}

// sameStatus compares what would be stored: JSON has no empty lists here, and no
// parts of a second.
func sameStatus(a, b v1alpha1.NodeNetworkStatus) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, fmt.Errorf("encode NodeNetwork: %w", err)
	}
	y, err := json.Marshal(b)
	if err != nil {
		return false, fmt.Errorf("encode NodeNetwork: %w", err)
	}
	return string(x) == string(y), nil
}
