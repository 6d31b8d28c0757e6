package kube

import (
	"context"
	"fmt"
	"sync"

	ipamclaims "github.com/k8snetworkplumbingwg/ipamclaims/pkg/crd/ipamclaims/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
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

	Networks         Source = "networks"
	AddressBlocks    Source = "addressblocks"
	PhysicalNetworks Source = "physicalnetworks"
	Definitions      Source = "network-attachment-definitions"
	DevicePools      Source = "devicepools"
	Claims           Source = "ipamclaims"
)

// Tap is told of a source's objects as the API server has them, trimmed, before intent
// is made of them: for who needs what intent leaves out, such as versions, ages and
// status, and is to hear no watch of its own. Each may be nil. For one source the calls
// are made one at a time; an object must not be changed.
type Tap struct {
	Put    func(object any) // *corev1.Node, *v1alpha1.Network …
	Drop   func(object any) // as it was last known
	Synced func()           // every object there was has been put; never for a kind that is absent
}

func (t Tap) put(o any) {
	if t.Put != nil {
		t.Put(o)
	}
}

func (t Tap) drop(o any) {
	if t.Drop != nil {
		t.Drop(o)
	}
}

// Sources are all that a zone is rendered from.
func Sources() []Source {
	return []Source{Nodes, Namespaces, Pods, Networks, AddressBlocks, PhysicalNetworks, Definitions}
}

// NodeSources are those of a node's agent, which also gives addresses and devices.
func NodeSources() []Source { return append(Sources(), Claims, DevicePools) }

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
	Dynamic  Dynamic  // for the sources besides Nodes, Namespaces and Pods
	Sources  []Source // which to follow; nil: all, or without Dynamic those three
	Node     string   // pods of this node only; "": of all
	Taps     map[Source]Tap

	// Ran is what Node ran with before this process began: an annotation that is
	// malformed now counts as that. Zero: not known.
	Ran Allocation

	mu     sync.Mutex // serialises calls of Sink and Problems
	synced map[Source]bool
}

// Run follows until ctx ends, and returns once no call into the Sink is left.
func (w *Watch) Run(ctx context.Context) error {
	sources := w.Sources
	if sources == nil {
		if sources = Sources(); w.Dynamic == nil {
			sources = []Source{Nodes, Namespaces, Pods}
		}
	}
	w.synced = map[Source]bool{}
	kinds := customs()
	var parts []func()
	for _, s := range sources {
		if c, ok := kinds[s]; ok && w.Dynamic != nil {
			parts = append(parts, func() { w.runCustom(ctx, s, c) })
			continue
		}
		c, err := w.informer(s)
		if err != nil {
			return err
		}
		parts = append(parts, func() { w.follow(ctx, s, c) })
	}
	var wg sync.WaitGroup
	for _, part := range parts {
		wg.Go(part)
	}
	wg.Wait()
	return ctx.Err()
}

// follow runs a source's informer, and tells when all it held has been delivered.
func (w *Watch) follow(ctx context.Context, s Source, c cache.Controller) {
	var wg sync.WaitGroup
	wg.Go(func() { c.RunWithContext(ctx) })
	select {
	case <-c.HasSyncedChecker().Done():
		if tap := w.Taps[s]; tap.Synced != nil {
			tap.Synced()
		}
		w.mu.Lock()
		w.sync(s)
		w.mu.Unlock()
	case <-ctx.Done():
	}
	wg.Wait()
}

// sync tells once that a source has delivered what it held; w.mu is held.
func (w *Watch) sync(s Source) {
	if !w.synced[s] {
		w.synced[s] = true
		w.Sink.Synced(s)
	}
}

// informer makes the one informer of a source.
func (w *Watch) informer(s Source) (cache.Controller, error) {
	lw := &cache.ListWatch{}
	core := w.Client.CoreV1()
	var object runtime.Object
	var parse parseFunc
	settle := func(func(any), string) {}
	switch s {
	case Nodes:
		object = &corev1.Node{}
		past := NewPast(w.Zoning)
		past.Pin(w.Node, w.Ran)
		parse = func(o any) (intent.Object, []rows.Problem) { return past.Node(o.(*corev1.Node)) }
		settle = func(put func(any), gone string) {
			if gone != "" {
				past.Forget(gone)
			}
			for _, n := range past.Again() {
				put(n)
			}
		}
		lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(core.Nodes().List, core.Nodes().Watch, nil)
	case Namespaces:
		object = &corev1.Namespace{}
		parse = func(o any) (intent.Object, []rows.Problem) { return ParseNamespace(o.(*corev1.Namespace)), nil }
		lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(core.Namespaces().List, core.Namespaces().Watch, nil)
	case Pods:
		object, parse = &corev1.Pod{}, podObject
		if w.Node == "" {
			parse = func(o any) (intent.Object, []rows.Problem) { return withoutStatus(o.(*corev1.Pod)) }
		}
		pods := core.Pods(metav1.NamespaceAll)
		lw.ListWithContextFunc, lw.WatchFuncWithContext = listWatch(pods.List, pods.Watch, w.podOptions)
	default:
		return nil, fmt.Errorf("unknown source %q", s)
	}
	_, c := newInformer(w.Client, lw, object, w.handler(w.Taps[s], parse, settle))
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

// withoutStatus is podObject for who writes no pod's status.
func withoutStatus(pod *corev1.Pod) (intent.Object, []rows.Problem) {
	o, problems := podObject(pod)
	if p, ok := o.(*intent.Pod); ok {
		p.Notes = p.Noted().WithoutStatus().Keep()
	}
	return o, problems
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

// handler turns one informer's events into calls of the Sink. settle follows each
// of them, and may put objects that have to be looked at again; gone names one that
// has gone.
func (w *Watch) handler(tap Tap, parse parseFunc, settle func(put func(any), gone string)) cache.ResourceEventHandler {
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
		AddFunc: func(object any) {
			tap.put(object)
			put(object)
			settle(put, "")
		},
		UpdateFunc: func(old, object any) {
			tap.put(object)
			before, _ := keyOf(old)
			if now, ok := keyOf(object); ok && now != before {
				w.end(before) // another network's now
			}
			put(object)
			settle(put, "")
		},
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj // its deletion was missed, and is known from a new list
			}
			key, ok := keyOf(object)
			if !ok {
				return
			}
			tap.drop(object)
			w.end(key)
			settle(put, key.Name)
		},
	}
}

// end tells that an object has gone.
func (w *Watch) end(key intent.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.Problems != nil {
		w.Problems(key, nil)
	}
	w.Sink.Delete(key)
}

// keyOf is the intent key of an object of a source.
func keyOf(object any) (intent.Key, bool) {
	switch o := object.(type) {
	case *corev1.Node:
		return intent.Key{Kind: intent.KindNode, Name: o.Name}, true
	case *corev1.Namespace:
		return intent.Key{Kind: intent.KindNamespace, Name: o.Name}, true
	case *corev1.Pod:
		return intent.Key{Kind: intent.KindPod, Name: o.Namespace + "/" + o.Name}, true
	}
	return customKey(object)
}

// customKey is keyOf for custom resources, whose names are not their keys.
func customKey(object any) (intent.Key, bool) {
	switch o := object.(type) {
	case *v1alpha1.Network:
		return intent.Key{Kind: intent.KindNetwork, Name: networkName(o)}, true
	case *v1alpha1.AddressBlock:
		return (&intent.Block{Network: o.Spec.Network, Slot: o.Spec.Slot}).Key(), true
	case *v1alpha1.PhysicalNetwork:
		return intent.Key{Kind: intent.KindPhysicalNetwork, Name: o.Name}, true
	case *v1alpha1.DevicePool:
		return intent.Key{Kind: intent.KindDevicePool, Name: o.Name}, true
	case *Attachment:
		return intent.Key{Kind: intent.KindDefinition, Name: o.Namespace + "/" + o.Name}, true
	case *ipamclaims.IPAMClaim:
		return intent.Key{Kind: intent.KindClaim, Name: o.Namespace + "/" + o.Name}, true
	}
	return intent.Key{}, false
}
