package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// Target is the object that a writer writes to.
type Target struct {
	Namespace string // "" for a node or a pool
	Name      string
	UID       string // the object meant: one that took its place under its name is left alone; "" for any
	Kind      string // "": Pod, or without a namespace Node
}

// kindDefinition is the kind of network attachment definitions, of k8s.cni.cncf.io/v1.
const kindDefinition = "NetworkAttachmentDefinition"

// DefinitionTarget is one network attachment definition; only a Teller has a use for it.
func DefinitionTarget(namespace, name, uid string) Target {
	return Target{Namespace: namespace, Name: name, UID: uid, Kind: kindDefinition}
}

// PoolTarget is one DevicePool; only a Teller has a use for it.
func PoolTarget(name, uid string) Target {
	return Target{Name: name, UID: uid, Kind: v1alpha1.KindDevicePool}
}

// NodeTarget is a node, whichever has the name.
func NodeTarget(name string) Target { return Target{Name: name} }

// PodTarget is one pod.
func PodTarget(namespace, name, uid string) Target {
	return Target{Namespace: namespace, Name: name, UID: uid}
}

// String is the target's text form: Node/n or Pod/ns/name.
func (t Target) String() string {
	if t.Kind == v1alpha1.KindDevicePool {
		return t.Kind + "/" + t.Name
	}
	if t.Kind != "" {
		return t.Kind + "/" + t.Namespace + "/" + t.Name
	}
	if t.Namespace == "" {
		return "Node/" + t.Name
	}
	return "Pod/" + t.Namespace + "/" + t.Name
}

// patchWorkers is how many objects are written at once: enough to hide the API
// server's latency while a node full of pods starts.
const patchWorkers = 8

// patchTimeout bounds one request, so that a hanging server is retried.
const patchTimeout = 20 * time.Second

// Patcher writes annotations. The last value of a key wins, several keys of one
// object go in one request, and what fails is retried from 100 ms to 30 s apart
// until it succeeds or the object is gone.
type Patcher struct {
	// Observe gets the kind of object (node, pod) and the result of each request:
	// written, gone or failed. It is set before Run; nil: nobody does.
	Observe func(kind, result string)

	client Client
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[Target]

	mu      sync.Mutex // guards what follows
	pending map[Target]*patch
	seq     uint64        // of the latest Annotate
	changed chan struct{} // closed and replaced whenever a target leaves pending
}

// patch is what is still to be written to one target.
type patch struct {
	values map[string]*string // nil: remove the key
	first  uint64             // sequence number of the oldest value that is not written
}

// NewPatcher makes a Patcher; nothing is written until Run.
func NewPatcher(client Client, log *slog.Logger) *Patcher {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[Target](100*time.Millisecond, 30*time.Second)
	return &Patcher{
		client: client, log: log, queue: workqueue.NewTypedRateLimitingQueue(limit),
		pending: map[Target]*patch{}, changed: make(chan struct{}),
	}
}

// Annotate sets annotations, soon. It does not block.
func (p *Patcher) Annotate(t Target, values map[string]string) {
	m := make(map[string]*string, len(values))
	for k, v := range values {
		m[k] = &v
	}
	p.add(t, m)
}

// Remove removes annotations, soon. It does not block.
func (p *Patcher) Remove(t Target, keys ...string) {
	m := make(map[string]*string, len(keys))
	for _, k := range keys {
		m[k] = nil
	}
	p.add(t, m)
}

func (p *Patcher) add(t Target, values map[string]*string) {
	if len(values) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seq++
	e := p.pending[t]
	if e == nil {
		e = &patch{values: map[string]*string{}, first: p.seq}
		p.pending[t] = e
	}
	for k, v := range values {
		e.values[k] = v
	}
	p.queue.Add(t)
}

// Flush waits until all that was annotated before the call is written, or its
// object gone.
func (p *Patcher) Flush(ctx context.Context) error {
	p.mu.Lock()
	until := p.seq
	p.mu.Unlock()
	for {
		p.mu.Lock()
		left, changed := p.unwritten(until), p.changed
		p.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("annotations of %d objects not written: %w", left, ctx.Err())
		}
	}
}

// unwritten counts targets with a value that is not newer than seq.
func (p *Patcher) unwritten(seq uint64) (n int) {
	for _, e := range p.pending {
		if e.first <= seq {
			n++
		}
	}
	return n
}

// Run writes until ctx ends. What is then unwritten is lost: writers say what
// they have to say again when they start.
func (p *Patcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.queue.ShutDown)
	defer stop()
	var wg sync.WaitGroup
	for range patchWorkers {
		wg.Go(func() {
			for p.next(ctx) {
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// next writes one target; false once the queue is shut down.
func (p *Patcher) next(ctx context.Context) bool {
	t, shutdown := p.queue.Get()
	if shutdown {
		return false
	}
	defer p.queue.Done(t)
	values, seq := p.snapshot(t)
	if len(values) == 0 {
		return true
	}
	err := p.write(ctx, t, values)
	var gone *goneError
	switch {
	case err == nil:
		p.observe(t, "written")
		p.queue.Forget(t)
	case errors.As(err, &gone):
		p.observe(t, "gone")
		p.log.Info("annotations dropped, object is gone", "object", t.String(), "err", err)
		p.queue.Forget(t)
	default:
		p.observe(t, "failed")
		if p.queue.NumRequeues(t) == 0 {
			p.log.Warn("annotations not written, will retry", "object", t.String(), "err", err)
		}
		p.queue.AddRateLimited(t)
		return true
	}
	p.written(t, values, seq)
	return true
}

func (p *Patcher) observe(t Target, result string) {
	if p.Observe == nil {
		return
	}
	kind := "pod"
	if t.Namespace == "" {
		kind = "node"
	}
	p.Observe(kind, result)
}

// snapshot copies what is to be written to a target, and when the copy was made.
func (p *Patcher) snapshot(t Target) (map[string]*string, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.pending[t]
	if e == nil {
		return nil, 0
	}
	values := make(map[string]*string, len(e.values))
	for k, v := range e.values {
		values[k] = v
	}
	return values, p.seq
}

// written forgets values, but for those that were replaced since the snapshot:
// Add has queued the target again for them.
func (p *Patcher) written(t Target, values map[string]*string, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.pending[t]
	for k, v := range values {
		if e.values[k] == v {
			delete(e.values, k)
		}
	}
	e.first = seq + 1
	if len(e.values) == 0 {
		delete(p.pending, t)
	}
	close(p.changed)
	p.changed = make(chan struct{})
}

// goneError says that a target exists no more.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// mergePatch is a JSON merge patch of an object's annotations (RFC 7396).
type mergePatch struct {
	Metadata patchMeta `json:"metadata"`
}

type patchMeta struct {
	UID             string             `json:"uid,omitempty"`             // a precondition: the server refuses to change it (422)
	ResourceVersion string             `json:"resourceVersion,omitempty"` // a precondition likewise
	Annotations     map[string]*string `json:"annotations"`
}

func (p *Patcher) write(ctx context.Context, t Target, values map[string]*string) error {
	ctx, cancel := context.WithTimeout(ctx, patchTimeout)
	defer cancel()
	body, err := json.Marshal(mergePatch{patchMeta{UID: t.UID, Annotations: values}})
	if err != nil {
		return fmt.Errorf("encode patch of %s: %w", t, err)
	}
	core := p.client.CoreV1()
	if t.Namespace == "" {
		_, err = core.Nodes().Patch(ctx, t.Name, types.MergePatchType, body, metav1.PatchOptions{})
	} else {
		_, err = core.Pods(t.Namespace).Patch(ctx, t.Name, types.MergePatchType, body, metav1.PatchOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		return &goneError{err}
	case (apierrors.IsConflict(err) || apierrors.IsInvalid(err)) && t.UID != "" && p.replaced(ctx, t):
		return &goneError{fmt.Errorf("another object has taken its name: %w", err)}
	}
	return err
}

// replaced tells whether an object of another UID has the target's name. The server
// does not say so itself: it answers Invalid, for the UID cannot be changed, or the
// same Conflict as for a lost race.
func (p *Patcher) replaced(ctx context.Context, t Target) bool {
	var uid types.UID
	if t.Namespace == "" {
		n, err := p.client.CoreV1().Nodes().Get(ctx, t.Name, metav1.GetOptions{})
		if err != nil {
			return apierrors.IsNotFound(err)
		}
		uid = n.UID
	} else {
		pod, err := p.client.CoreV1().Pods(t.Namespace).Get(ctx, t.Name, metav1.GetOptions{})
		if err != nil {
			return apierrors.IsNotFound(err)
		}
		uid = pod.UID
	}
	return string(uid) != t.UID
}

// AnnotateNode writes annotations of a node if it is still the version that the
// caller has seen; a Conflict means it is not. Unlike a Patcher, it waits.
func AnnotateNode(ctx context.Context, client Client, seen *corev1.Node, values map[string]string) error {
	m := make(map[string]*string, len(values))
	for k, v := range values {
		m[k] = &v
	}
	body, err := json.Marshal(mergePatch{patchMeta{
		UID: string(seen.UID), ResourceVersion: seen.ResourceVersion, Annotations: m,
	}})
	if err != nil {
		return fmt.Errorf("encode patch of node %s: %w", seen.Name, err)
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, seen.Name, types.MergePatchType, body, metav1.PatchOptions{})
	return err
}
