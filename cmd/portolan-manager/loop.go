package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// loop brings nodes' annotations to what the assigner decides: one goroutine, one
// node at a time, so that the assigner needs no lock. A node that cannot be
// written is tried again later and delays no other.
type loop struct {
	client   kube.Client
	assigner *assigner
	log      *slog.Logger
	queue    workqueue.TypedRateLimitingInterface[string]
	nodes    cache.Store
	informer cache.Controller

	said map[string]time.Time // when a node's finding was last told, by node and reason
	now  func() time.Time

	event  func(node string, f finding)           // called when a finding is new, and again while it lasts
	recall func(context.Context) []resting        // what an earlier leader put to rest
	keep   func(context.Context, []resting) error // tells the next leader what rests
	synced func()                                 // called when the existing allocations are known
	done   func(result string)                    // called after each node: "written", "conflict", "failed", or "" for nothing to write
}

// newLoop makes a loop whose callbacks do nothing.
func newLoop(client kube.Client, a *assigner, log *slog.Logger) *loop {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, time.Minute)
	l := &loop{
		client: client, assigner: a, log: log, queue: workqueue.NewTypedRateLimitingQueue(limit),
		said: map[string]time.Time{}, now: time.Now,
		recall: func(context.Context) []resting { return nil }, keep: func(context.Context, []resting) error { return nil },
		event: func(string, finding) {}, synced: func() {}, done: func(string) {},
	}
	l.nodes, l.informer = kube.NewNodeInformer(client, cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if !initial { // the first ones are taken in order of age, in run
				l.queue.Add(o.(*corev1.Node).Name)
			}
		},
		UpdateFunc: func(_, o any) { l.queue.Add(o.(*corev1.Node).Name) },
		DeleteFunc: func(o any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				l.queue.Add(key)
			}
		},
	})
	return l
}

// run allocates until ctx ends.
func (l *loop) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.informer.RunWithContext(ctx) })
	defer context.AfterFunc(ctx, l.queue.ShutDown)()
	select {
	case <-l.informer.HasSyncedChecker().Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	l.takeOver(ctx)
	l.synced()
	for {
		name, shutdown := l.queue.Get()
		if shutdown {
			return ctx.Err()
		}
		l.reconcile(ctx, name)
		l.queue.Done(name)
	}
}

// takeOver reserves what every node has before any node is given something new.
func (l *loop) takeOver(ctx context.Context) {
	var nodes []*corev1.Node
	for _, o := range l.nodes.List() {
		nodes = append(nodes, o.(*corev1.Node))
	}
	slices.SortFunc(nodes, olderFirst)
	for _, n := range nodes {
		l.assigner.reserve(n)
	}
	l.assigner.resume(l.recall(ctx))
	for _, n := range nodes {
		l.queue.Add(n.Name)
	}
}

// reconcile brings one node to what it should be.
func (l *loop) reconcile(ctx context.Context, name string) {
	o, exists, err := l.nodes.GetByKey(name)
	if err != nil || !exists {
		l.forget(ctx, name)
		return
	}
	node := o.(*corev1.Node)
	d := l.assigner.assign(node)
	l.tell(name, d.findings)
	result := l.write(ctx, node, d.annotations)
	switch {
	case result == "failed" || result == "conflict":
		l.queue.AddRateLimited(name)
	case d.retry > 0:
		l.queue.AddAfter(name, d.retry)
		fallthrough
	default:
		l.queue.Forget(name)
	}
	l.done(result)
}

// forget puts to rest what a deleted node had. The next leader is told before
// anybody is given anything of it, in all likelihood: the rest is five minutes.
func (l *loop) forget(ctx context.Context, name string) {
	l.assigner.forget(name)
	l.tell(name, nil)
	l.log.Info("node gone, its id and subnets rest", "node", name)
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := l.keep(ctx, l.assigner.resting()); err != nil {
		l.log.Warn("rest not recorded, will retry", "node", name, "err", err)
		l.queue.AddRateLimited(name)
	} else {
		l.queue.Forget(name)
	}
	for _, other := range l.assigner.troubled() {
		l.queue.Add(other)
	}
	l.done("")
}

// tellAgain is how often a finding that lasts is told: Events are kept for an
// hour, and a node is looked at whenever its kubelet reports.
const tellAgain = 10 * time.Minute

// tell makes Events and log lines of a node's findings, each once in a while.
func (l *loop) tell(name string, findings []finding) {
	for _, reason := range []string{reasonNoID, reasonNoSubnet, reasonIDTaken, reasonSubnetTaken, reasonOutside, reasonRestored} {
		key := name + " " + reason
		i := slices.IndexFunc(findings, func(f finding) bool { return f.reason == reason })
		if i < 0 {
			delete(l.said, key)
			continue
		}
		if last, ok := l.said[key]; ok && l.now().Sub(last) < tellAgain {
			continue
		}
		l.said[key] = l.now()
		l.log.Warn("node not allocated as it should be", "node", name, "reason", reason, "cause", findings[i].message)
		l.event(name, findings[i])
	}
}

// write patches a node and says how it went. The patch holds the version that the
// decision was made for: on a Conflict the informer brings the newer one.
func (l *loop) write(ctx context.Context, node *corev1.Node, annotations map[string]string) string {
	if len(annotations) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := kube.AnnotateNode(ctx, l.client, node, annotations)
	switch {
	case err == nil:
		l.log.Info("node allocated", "node", node.Name,
			"id", annotations[kube.AnnotationNodeID], "subnets", annotations[kube.AnnotationNodeSubnets])
		return "written"
	case apierrors.IsNotFound(err):
		return "" // its deletion is on the way
	case apierrors.IsConflict(err):
		return "conflict"
	}
	l.log.Warn("node not written, will retry", "node", node.Name, "err", err)
	return "failed"
}
