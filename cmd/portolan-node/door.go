package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// driver is what the door delivers to.
type driver interface {
	Put(intent.Object)
	Delete(intent.Key)
	Synced()
}

// annotator persists allocations beside the path.
type annotator interface {
	Annotate(kube.Target, map[string]string)
}

// door joins what the API server says of this node's pods with what the agent
// has allocated to them, and hands both on: to the engine as intent, to the CNI
// server as pods to prepare. The allocation in memory goes before the annotation.
type door struct {
	node    string
	driver  driver
	patcher annotator                       // nil: nobody persists allocations but OVS
	own     func(*intent.Node) *intent.Node // adds what the agent knows of this node
	pods    *cni.PodStore
	log     *slog.Logger

	mu       sync.Mutex // guards what follows
	seen     map[string]*intent.Pod
	attached map[string][]intent.Attachment // by pod UID
	synced   map[kube.Source]bool
	agent    *cni.Agent   // nil until the node has subnets
	self     *intent.Node // nil until the API server has said it
	changed  chan struct{}
}

func newDoor(node string, d driver, a annotator, own func(*intent.Node) *intent.Node) *door {
	return &door{
		node: node, driver: d, patcher: a, own: own, pods: cni.NewPodStore(), log: slog.Default(),
		seen: map[string]*intent.Pod{}, attached: map[string][]intent.Attachment{},
		synced: map[kube.Source]bool{}, changed: make(chan struct{}),
	}
}

// Put takes an object from the API server.
func (d *door) Put(o intent.Object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch o := o.(type) {
	case *intent.Node:
		if o.Name == d.node {
			o = d.own(o)
			d.self = o
			d.wake()
		}
		d.driver.Put(o)
	case *intent.Cluster:
		// The plan is the agent's own file; a directory of intent may hold it too.
	case *intent.Pod:
		key := o.Key().Name
		if old := d.seen[key]; old != nil && old.UID != o.UID {
			d.gone(old)
		}
		d.seen[key] = o
		d.put(o)
		if o.Node != d.node {
			return
		}
		p := podOf(o)
		d.pods.Set(p)
		if d.agent != nil {
			d.agent.Bound(p)
		}
	default:
		d.driver.Put(o)
	}
}

// Delete takes an object's end.
func (d *door) Delete(k intent.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if k.Kind == intent.KindPod {
		if old := d.seen[k.Name]; old != nil {
			delete(d.seen, k.Name)
			d.gone(old)
		}
	}
	d.driver.Delete(k)
}

// complete reports whether every source has delivered what it had.
func complete(synced map[kube.Source]bool) bool {
	return synced[kube.Directory] || synced[kube.Nodes] && synced[kube.Pods] && synced[kube.Namespaces]
}

// Synced notes that a source has delivered what it had.
func (d *door) Synced(s kube.Source) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced[s] = true
	d.wake()
}

// gone tells the CNI server that a pod will not come back.
func (d *door) gone(p *intent.Pod) {
	if p.Node != d.node {
		return
	}
	d.pods.Delete(p.Namespace, p.Name, p.UID)
	if d.agent != nil {
		d.agent.Gone(podOf(p))
	}
}

// put hands a pod on with the attachments that count.
func (d *door) put(p *intent.Pod) {
	if local := d.attached[p.UID]; local != nil && !slices.EqualFunc(local, p.Attachments, intent.Attachment.Equal) {
		q := *p
		q.Attachments = local
		p = &q
	}
	d.driver.Put(p)
}

// Attached is cni.Publisher's: a pod has been given addresses.
func (d *door) Attached(a cni.Attachment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []intent.Attachment{{Network: a.Network, MAC: a.MAC, Addresses: a.Addresses, Gateways: a.Gateways}}
	d.attached[a.Pod.UID] = list
	p := d.seen[a.Pod.String()]
	if p == nil || p.UID != a.Pod.UID {
		return
	}
	d.put(p)
	if d.patcher != nil && !slices.EqualFunc(list, p.Attachments, intent.Attachment.Equal) {
		d.patcher.Annotate(kube.PodTarget(p.Namespace, p.Name, p.UID),
			map[string]string{kube.AnnotationPodNetworks: kube.FormatPodNetworks(list)})
	}
}

// Released is cni.Publisher's: a pod's addresses are free.
func (d *door) Released(a cni.Attachment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.attached, a.Pod.UID)
}

// serve gives the door the CNI server, and the server every pod that is here.
func (d *door) serve(a *cni.Agent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agent = a
	for _, p := range d.pods.List() {
		a.Bound(p)
	}
}

// known lists this node's pods and the allocations that their annotations hold.
func (d *door) known() ([]cni.Pod, []cni.Attachment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var pods []cni.Pod
	var attached []cni.Attachment
	for _, p := range d.seen {
		if p.Node != d.node {
			continue
		}
		pods = append(pods, podOf(p))
		for _, a := range p.Attachments {
			attached = append(attached, cni.Attachment{
				Pod: podOf(p), Network: a.Network, MAC: a.MAC, Addresses: a.Addresses, Gateways: a.Gateways,
			})
		}
	}
	return pods, attached
}

// wait returns this node once ok holds for what has been delivered. It is woken
// by every change, never by time.
func (d *door) wait(ctx context.Context, ok func(self *intent.Node, synced map[kube.Source]bool) bool) (*intent.Node, error) {
	for {
		d.mu.Lock()
		self, done, changed := d.self, ok(d.self, d.synced), d.changed
		d.mu.Unlock()
		if done {
			return self, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// wake rings everybody in wait; d.mu is held.
func (d *door) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func podOf(p *intent.Pod) cni.Pod {
	return cni.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Mirror: p.Mirror}
}
