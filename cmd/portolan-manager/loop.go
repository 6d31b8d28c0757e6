package main

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/workqueue"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// loop brings nodes' annotations to what the assigner decides: one goroutine, one
// node at a time, so that the assigner needs no lock. A node that cannot be
// written is tried again later and delays no other. It hears of nodes by its tap.
type loop struct {
	client   kube.Client
	assigner *assign.Assigner
	log      *slog.Logger
	queue    workqueue.TypedRateLimitingInterface[string]
	all      chan struct{} // closed when every node there was is known

	mu    sync.Mutex // guards nodes
	nodes map[string]*corev1.Node

	said map[string]map[assign.Finding]time.Time // when a node's finding was last told, by node
	now  func() time.Time

	found  func(node string, list []assign.Finding)         // called with all that is wrong with a node whenever it was looked at
	event  func(node string, f assign.Finding)              // called once in a while for what has been done to a node
	kept   assign.Record                                    // what the next leader knows
	recall func(context.Context) assign.Record              // what an earlier leader left
	runs   func(context.Context) map[string]kube.Allocation // what agents say that they run with, by node
	keep   func(context.Context, assign.Record) error       // tells the next leader; fails for who leads no more
	synced func()                                           // called when the existing allocations are known
	looked func()                                           // called once, when every node there was at the start has been looked at
	done   func(result string)                              // called after each node: "written", "conflict", "failed", or "" for nothing to write
}

// newLoop makes a loop whose callbacks do nothing.
func newLoop(client kube.Client, a *assign.Assigner, log *slog.Logger) *loop {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[string](200*time.Millisecond, time.Minute)
	l := &loop{
		client: client, assigner: a, log: log, queue: workqueue.NewTypedRateLimitingQueue(limit),
		all: make(chan struct{}), nodes: map[string]*corev1.Node{},
		said: map[string]map[assign.Finding]time.Time{}, now: time.Now,
		recall: func(context.Context) assign.Record { return assign.Record{} },
		runs:   func(context.Context) map[string]kube.Allocation { return nil },
		keep:   func(context.Context, assign.Record) error { return nil },
		found:  func(string, []assign.Finding) {}, event: func(string, assign.Finding) {}, synced: func() {}, looked: func() {}, done: func(string) {},
	}
	return l
}

// tap is how the loop hears of nodes. The first ones are taken in order of age, in run.
func (l *loop) tap() kube.Tap {
	know := func(o any, there bool) {
		n := o.(*corev1.Node)
		l.mu.Lock()
		defer l.mu.Unlock()
		if there {
			l.nodes[n.Name] = n
		} else {
			delete(l.nodes, n.Name)
		}
		select {
		case <-l.all:
			l.queue.Add(n.Name)
		default:
		}
	}
	return kube.Tap{
		Put: func(o any) { know(o, true) }, Drop: func(o any) { know(o, false) }, Synced: func() { close(l.all) },
	}
}

func (l *loop) node(name string) *corev1.Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[name]
}

// run allocates until ctx ends.
func (l *loop) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, l.queue.ShutDown)()
	select {
	case <-l.all:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.takeOver(ctx)
	l.synced()
	for first := true; ; {
		if first && l.queue.Len() == 0 {
			l.looked()
			first = false
		}
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
	runs, left := l.runs(ctx), l.recall(ctx)
	l.mu.Lock()
	nodes := slices.Collect(maps.Values(l.nodes))
	l.mu.Unlock()
	l.assigner.TakeOver(nodes, runs, left)
	l.kept = l.assigner.Record() // what nodes have, the next leader sees by itself
	for _, n := range nodes {
		l.queue.Add(n.Name)
	}
}

// reconcile brings one node to what it should be.
func (l *loop) reconcile(ctx context.Context, name string) {
	node := l.node(name)
	if node == nil {
		l.forget(ctx, name)
		return
	}
	d := l.assigner.Assign(node)
	l.tell(name, d.Findings)
	result := l.write(ctx, node, d.Annotations)
	switch {
	case result == "failed" || result == "conflict":
		l.queue.AddRateLimited(name)
	case d.Retry > 0:
		l.queue.AddAfter(name, d.Retry)
		fallthrough
	default:
		l.queue.Forget(name)
	}
	l.done(result)
}

// forget puts to rest what a deleted node had. The next leader is told before
// anybody is given anything of it, in all likelihood: the rest is five minutes.
func (l *loop) forget(ctx context.Context, name string) {
	l.assigner.Forget(name)
	l.tell(name, nil)
	l.log.Info("node gone, its id and subnets rest", "node", name)
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	record := l.assigner.Record()
	if err := l.keep(ctx, record); err != nil {
		l.log.Warn("rest not recorded, will retry", "node", name, "err", err)
		l.queue.AddRateLimited(name)
	} else {
		l.kept = record
		l.queue.Forget(name)
	}
	for _, other := range l.assigner.Troubled() {
		l.queue.Add(other)
	}
	l.done("")
}

// tellAgain is how often a finding that lasts is logged, and how often it is told
// that the same was done again: a node is looked at whenever its kubelet reports.
const tellAgain = 10 * time.Minute

// tell hands a node's findings on, and makes log lines of them, each once in a while.
func (l *loop) tell(name string, findings []assign.Finding) {
	l.found(name, findings)
	said := map[assign.Finding]time.Time{}
	for f, at := range l.said[name] {
		lasts := f.Done() || slices.Contains(findings, f)
		if lasts && l.now().Sub(at) < tellAgain {
			said[f] = at
		}
	}
	for _, f := range findings {
		if _, ok := said[f]; ok {
			continue
		}
		said[f] = l.now()
		l.log.Warn("node not allocated as it should be", "node", name, "reason", f.Reason, "cause", f.Message)
		if f.Done() {
			l.event(name, f)
		}
	}
	if l.said[name] = said; len(said) == 0 {
		delete(l.said, name)
	}
}

// write patches a node, the next leader being told first, and says how it went. The patch holds the version that the
// decision was made for: on a Conflict the informer brings the newer one.
func (l *loop) write(ctx context.Context, node *corev1.Node, annotations map[string]string) string {
	if len(annotations) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if record := l.assigner.Record(); !l.kept.Covers(record) {
		if err := l.keep(ctx, record); err != nil {
			l.log.Warn("allocation not recorded on the Lease, will retry", "node", node.Name, "err", err)
			return "failed"
		}
		l.kept = record
	}
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
