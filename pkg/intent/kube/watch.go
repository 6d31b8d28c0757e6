package kube

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Sink receives intent. Its methods are called from one goroutine at a time, in
// the order of changes of each object; a call that blocks delays the watch, which
// is how a slow consumer is felt.
type Sink interface {
	// Put is an object that came or changed; equal ones may be repeated.
	Put(intent.Object)
	// Delete is an object that went, or has no intent any more; it may be unknown.
	Delete(intent.Key)
	// Synced comes once for each source, after every object it held at the start.
	Synced(Source)
}

// Source names where objects come from.
type Source string

// The sources of a Watch; a WatchDir has one.
const (
	Nodes      Source = "nodes"
	Namespaces Source = "namespaces"
	Pods       Source = "pods"
	Directory  Source = "directory"
)

// ProblemFunc receives all that is wrong with an object whenever it changes: an
// empty list once nothing is. It is called as a Sink's methods are, before them.
type ProblemFunc func(intent.Key, []rows.Problem)

// Watch follows the API server. A gap in the watch (a restart of the API server, an
// expired version) is closed by a new list, whose differences reach the Sink.
type Watch struct {
	Client   Client
	Sink     Sink
	Problems ProblemFunc // may be nil
	Zoning   Zoning
	Sources  []Source // which to follow; nil: Nodes, Namespaces and Pods
	Node     string   // pods of this node only; "": of all

	mu sync.Mutex // serialises calls of Sink and Problems
}

// Run follows until ctx ends, and returns once no call into the Sink is left.
func (w *Watch) Run(ctx context.Context) error {
	sources := w.Sources
	if sources == nil {
		sources = []Source{Nodes, Namespaces, Pods}
	}
	var controllers []cache.Controller
	for _, s := range sources {
		c, err := w.informer(s)
		if err != nil {
			return err
		}
		controllers = append(controllers, c)
	}
	var wg sync.WaitGroup
	for i, c := range controllers {
		wg.Go(func() { c.RunWithContext(ctx) })
		wg.Go(func() {
			select {
			case <-c.HasSyncedChecker().Done():
				w.mu.Lock()
				defer w.mu.Unlock()
				w.Sink.Synced(sources[i])
			case <-ctx.Done():
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// informer makes the one informer of a source.
func (w *Watch) informer(s Source) (cache.Controller, error) {
	lw := &cache.ListWatch{}
	core := w.Client.CoreV1()
	var object runtime.Object
	var parse parseFunc
	switch s {
	case Nodes:
		object = &corev1.Node{}
		parse = func(o any) (intent.Object, []rows.Problem) { return ParseNode(o.(*corev1.Node), w.Zoning) }
		lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(core.Nodes().List, core.Nodes().Watch, nil)
	case Namespaces:
		object = &corev1.Namespace{}
		parse = func(o any) (intent.Object, []rows.Problem) { return ParseNamespace(o.(*corev1.Namespace)), nil }
		lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(core.Namespaces().List, core.Namespaces().Watch, nil)
	case Pods:
		object, parse = &corev1.Pod{}, podObject
		pods := core.Pods(metav1.NamespaceAll)
		lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(pods.List, pods.Watch, w.podOptions)
	default:
		return nil, fmt.Errorf("unknown source %q", s)
	}
	_, c := newInformer(w.Client, lw, object, w.handler(parse))
	return c, nil
}

// parseFunc makes the intent of one of a source's objects; nil if it has none.
type parseFunc func(any) (intent.Object, []rows.Problem)

// podObject is ParsePod with an untyped nil for a pod without intent.
func podObject(o any) (intent.Object, []rows.Problem) {
	if p, problems := ParsePod(o.(*corev1.Pod)); p != nil {
		return p, problems
	}
	return nil, nil
}

// podOptions selects the pods of one node, or all that have a node: what is not
// bound has no intent, and the server need not send it.
func (w *Watch) podOptions(o *metav1.ListOptions) {
	if w.Node != "" {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", w.Node).String()
		return
	}
	o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
}

// NewNodeInformer makes an informer of nodes, trimmed as Watch does, for the
// allocator, which needs what intent leaves out: versions, ages, and annotations
// as they are written.
func NewNodeInformer(client Client, handler cache.ResourceEventHandler) (cache.Store, cache.Controller) {
	lw := &cache.ListWatch{}
	nodes := client.CoreV1().Nodes()
	lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(nodes.List, nodes.Watch, nil)
	return newInformer(client, lw, &corev1.Node{}, handler)
}

// newInformer never resyncs: a consumer that loses what it was told is a bug that
// repetition would hide.
func newInformer(client Client, lw *cache.ListWatch, object runtime.Object, handler cache.ResourceEventHandler) (cache.Store, cache.Controller) {
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, client),
		ObjectType:    object, Transform: trim, Handler: handler,
	})
}

// listWatch adapts a typed client's List and Watch.
func listWatch[L runtime.Object](
	list func(context.Context, metav1.ListOptions) (L, error),
	watchFn func(context.Context, metav1.ListOptions) (watch.Interface, error),
	tweak func(*metav1.ListOptions),
) (cache.ListWithContextFunc, cache.WatchFuncWithContext) {
	if tweak == nil {
		tweak = func(*metav1.ListOptions) {}
	}
	return func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			tweak(&o)
			return list(ctx, o)
		}, func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			tweak(&o)
			return watchFn(ctx, o)
		}
}

// handler turns one informer's events into calls of the Sink.
func (w *Watch) handler(parse parseFunc) cache.ResourceEventHandler {
	put := func(object any) {
		o, problems := parse(object)
		w.mu.Lock()
		defer w.mu.Unlock()
		key, ok := keyOf(object)
		if !ok {
			return
		}
		if w.Problems != nil {
			w.Problems(key, problems)
		}
		if o == nil {
			w.Sink.Delete(key)
			return
		}
		w.Sink.Put(o)
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    put,
		UpdateFunc: func(_, object any) { put(object) },
		DeleteFunc: func(object any) {
			key, ok := keyOf(object)
			if !ok {
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.Problems != nil {
				w.Problems(key, nil)
			}
			w.Sink.Delete(key)
		},
	}
}

// keyOf is the intent key of an object of a source, also of one whose deletion was
// missed and is known only from a new list.
func keyOf(object any) (intent.Key, bool) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	switch o := object.(type) {
	case *corev1.Node:
		return intent.Key{Kind: intent.KindNode, Name: o.Name}, true
	case *corev1.Namespace:
		return intent.Key{Kind: intent.KindNamespace, Name: o.Name}, true
	case *corev1.Pod:
		return intent.Key{Kind: intent.KindPod, Name: o.Namespace + "/" + o.Name}, true
	}
	return intent.Key{}, false
}
