// Package door joins, in a node's agent, what the API server says of the node's
// pods with what the agent has allocated to them, and hands both on: to the
// engine as intent, to the CNI server as pods to prepare, to the API server as
// annotations.
//
//	watch ──> Door ──> driver (intent)
//	           │ ^
//	           v └──── allocations
//	         cni.Agent
//
// Invariants: the allocation in memory goes before the annotation; a pod of
// another UID under a known name is the end of the one before.
package door

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// Driver is what the door delivers intent to.
type Driver interface {
	Put(intent.Object)
	Delete(intent.Key)
	Synced()
	// Withdrawn calls done once what was put and deleted before the call is installed
	// for a group.
	Withdrawn(group string, done func())
}

// Annotator persists allocations beside the path.
type Annotator interface {
	Annotate(kube.Target, map[string]string)
}

// Networks learns of what networks are made of. Its methods do not block.
type Networks interface {
	Put(intent.Object)
	Delete(intent.Key)
}

// Config is what a Door is made from.
type Config struct {
	Node      string                          // this node's name
	Driver    Driver                          // required
	Annotator Annotator                       // nil: nobody persists allocations but OVS
	Networks  Networks                        // told of every object; nil: nobody is
	Tunnels   func([]netip.Addr)              // told of the tunnel addresses that interfaces here have, sorted; must not call back; nil: nobody is
	Own       func(*intent.Node) *intent.Node // adds what the agent knows of this node; nil: nothing
	Log       *slog.Logger                    // nil: slog.Default
}

// Door is the way in. It is safe for concurrent use.
type Door struct {
	cfg  Config
	pods *cni.PodStore
	log  *slog.Logger

	mu       sync.Mutex // guards what follows
	seen     map[string]*intent.Pod
	attached map[string][]intent.Attachment // by pod UID
	synced   map[kube.Source]bool
	agent    *cni.Agent   // nil until the node has subnets
	self     *intent.Node // nil until the API server has said it
	said     *intent.Node // self, as the API server said it
	changed  chan struct{}
	doubts   map[string]bool   // by pod UID: its annotation differed at the last Compare
	declared map[string]string // annotations of this node; nil: nothing yet

	declaredIn func(*intent.Node) bool // whether a Node says what is declared
}

// New makes a Door; nothing has come through it yet.
func New(c Config) *Door {
	if c.Own == nil {
		c.Own = func(n *intent.Node) *intent.Node { return n }
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Door{
		cfg: c, pods: cni.NewPodStore(), log: c.Log,
		seen: map[string]*intent.Pod{}, attached: map[string][]intent.Attachment{},
		synced: map[kube.Source]bool{}, changed: make(chan struct{}),
	}
}

// Pods is where the CNI server finds this node's pods.
func (d *Door) Pods() *cni.PodStore { return d.pods }

// Put takes an object from the API server.
func (d *Door) Put(o intent.Object) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Networks != nil {
		d.cfg.Networks.Put(o)
	}
	switch o := o.(type) {
	case *intent.Network, *intent.Definition, *intent.PhysicalNetwork:
		d.cfg.Driver.Put(o)
		d.waiting()
	case *intent.Claim: // for Networks alone
		d.waiting()
	case *intent.Node:
		if o.Name == d.cfg.Node {
			d.said = o
			o = d.cfg.Own(o)
			d.self = o
			d.declare() // it may have been deleted and come back
			d.wake()
		}
		d.cfg.Driver.Put(o)
	case *intent.Cluster:
		// The plan is the agent's own file; a directory of intent may hold it too.
	case *intent.Pod:
		key := o.Key().Name
		old := d.seen[key]
		d.seen[key] = o
		d.put(o)
		if old != nil && old.UID != o.UID {
			d.gone(old) // after the driver knows: see Released
		}
		if o.Node != d.cfg.Node {
			return
		}
		d.publish(o)
		p := PodOf(o)
		d.pods.Set(p)
		if d.agent != nil {
			d.agent.Bound(p)
		}
	case *intent.Namespace:
		d.cfg.Driver.Put(o)
		d.waiting() // it may be let in now
	default:
		d.cfg.Driver.Put(o)
	}
}

// waiting has the pods prepared that name networks: one of them may be known now;
// d.mu is held.
func (d *Door) waiting() {
	if d.agent == nil {
		return
	}
	for _, p := range d.pods.List() {
		if p.Selection != "" {
			d.agent.Bound(p)
		}
	}
}

// Declare writes what others have to know of this node, now and whenever its Node
// comes without: said tells whether it is there.
func (d *Door) Declare(annotations map[string]string, said func(*intent.Node) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.declared, d.declaredIn = annotations, said
	d.declare()
}

// declare writes what was declared, unless the Node says it; d.mu is held.
func (d *Door) declare() {
	if d.cfg.Annotator != nil && d.declared != nil && d.said != nil && !d.declaredIn(d.said) {
		d.cfg.Annotator.Annotate(kube.NodeTarget(d.cfg.Node), d.declared)
	}
}

// Delete takes an object's end.
func (d *Door) Delete(k intent.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cfg.Networks != nil {
		d.cfg.Networks.Delete(k)
	}
	d.cfg.Driver.Delete(k)
	if k.Kind == intent.KindPod {
		if old := d.seen[k.Name]; old != nil {
			delete(d.seen, k.Name)
			d.gone(old) // after the driver knows: see Released
		}
	}
}

// Complete reports whether every source has delivered what it had.
func Complete(synced map[kube.Source]bool) bool {
	return synced[kube.Directory] || !slices.ContainsFunc(kube.Sources(), func(s kube.Source) bool { return !synced[s] })
}

// Moved reports whether a node has other subnets than it had. One that has none, or
// is deleted, may come back with those it had.
func Moved(had []netip.Prefix, self *intent.Node) bool {
	return self != nil && len(self.Subnets) > 0 && !slices.Equal(self.Subnets, had)
}

// Synced notes that a source has delivered what it had.
func (d *Door) Synced(s kube.Source) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.synced[s] = true
	d.wake()
}

// gone tells the CNI server that a pod will not come back.
func (d *Door) gone(p *intent.Pod) {
	if p.Node != d.cfg.Node {
		return
	}
	d.pods.Delete(p.Namespace, p.Name, p.UID)
	if d.agent != nil {
		d.agent.Gone(PodOf(p))
	}
}

// put hands a pod on with the attachments that count.
func (d *Door) put(p *intent.Pod) {
	q := *p
	q.Notes = p.Noted().WithoutStatus().Keep()
	if local := d.attached[p.UID]; local != nil && !slices.EqualFunc(local, p.Attachments, intent.Attachment.Equal) {
		q.Attachments = local
	}
	d.cfg.Driver.Put(&q)
}

// Attached is cni.Publisher's: this is what a pod has been given.
func (d *Door) Attached(p cni.Pod, all []cni.Attachment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.attach(p, all)
}

// attach makes intent and annotation of what a pod has; d.mu is held.
func (d *Door) attach(pod cni.Pod, all []cni.Attachment) {
	list := make([]intent.Attachment, len(all))
	for i, a := range all {
		list[i] = intent.Attachment{Network: a.Key, MAC: a.MAC.String(), Addresses: a.Addresses, Gateways: a.Gateways, TunnelKey: a.TunnelKey, Encap: a.Encap, Bandwidth: intent.Limits(intent.Bandwidth(a.Bandwidth))}
	}
	slices.SortFunc(list, func(a, b intent.Attachment) int { return strings.Compare(a.Network, b.Network) })
	d.attached[pod.UID] = list
	d.tellTunnels()
	p := d.seen[pod.String()]
	if p == nil || p.UID != pod.UID {
		return
	}
	d.put(p)
	d.publish(p)
}

// tellTunnels tells by which tunnel addresses packets of pods leave; d.mu is held.
func (d *Door) tellTunnels() {
	if d.cfg.Tunnels == nil {
		return
	}
	used := map[netip.Addr]struct{}{}
	for _, list := range d.attached {
		for _, a := range list {
			if a.Encap.IsValid() {
				used[a.Encap] = struct{}{}
			}
		}
	}
	d.cfg.Tunnels(slices.SortedFunc(maps.Keys(used), netip.Addr.Compare))
}

// publish writes a pod's annotation where it is not what the pod has: the first
// time, and when somebody else has changed it. In a global zone the controller
// believes it.
func (d *Door) publish(p *intent.Pod) {
	if !d.differs(p) {
		return
	}
	d.cfg.Annotator.Annotate(kube.PodTarget(p.Namespace, p.Name, p.UID),
		map[string]string{kube.AnnotationPodNetworks: kube.FormatPodNetworks(d.attached[p.UID])})
}

// Compare writes the annotations of pods again that do not say what the pods have, and
// names those pods. What has just been written may be on its way back: a pod counts from
// the second comparison on.
func (d *Door) Compare() (repaired []cni.Pod) {
	d.mu.Lock()
	defer d.mu.Unlock()
	doubts := map[string]bool{}
	for _, p := range d.pods.List() {
		seen := d.seen[p.String()]
		if seen == nil || !d.differs(seen) {
			continue
		}
		if d.doubts[p.UID] {
			d.publish(seen)
			repaired = append(repaired, p)
			continue
		}
		doubts[p.UID] = true
	}
	d.doubts = doubts
	return repaired
}

// differs reports whether a pod's annotation does not say what it has; d.mu is held.
func (d *Door) differs(p *intent.Pod) bool {
	list := d.attached[p.UID]
	return d.cfg.Annotator != nil && list != nil && !slices.EqualFunc(list, p.Attachments, intent.Attachment.Equal)
}

// Released is cni.Publisher's: a pod is gone, or has less than it had. What it has
// lost is free when the zone has no row of it any more. A pod that is gone is known here
// by its name: the rows of one that has taken its place are another pod's.
func (d *Door) Released(p cni.Pod, left []cni.Attachment, done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(left) > 0 {
		d.attach(p, left)
	} else {
		delete(d.attached, p.UID)
		d.tellTunnels()
	}
	d.cfg.Driver.Withdrawn("pod/"+p.String(), done)
}

// Serve gives the door the CNI server, and the server every pod that is here.
func (d *Door) Serve(a *cni.Agent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.agent = a
	for _, p := range d.pods.List() {
		a.Bound(p)
	}
}

// Known lists this node's pods and the allocations that their annotations hold.
func (d *Door) Known() ([]cni.Pod, []cni.Attachment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var pods []cni.Pod
	var attached []cni.Attachment
	for _, key := range slices.Sorted(maps.Keys(d.seen)) {
		p := d.seen[key]
		if p.Node != d.cfg.Node {
			continue
		}
		pods = append(pods, PodOf(p))
		for _, a := range p.Attachments {
			attached = append(attached, cni.Attachment{
				Pod: PodOf(p), Key: a.Network, Grant: cni.Grant{Addresses: a.Addresses, TunnelKey: a.TunnelKey, Encap: a.Encap},
			})
		}
	}
	return pods, attached
}

// Wait returns this node once ok holds for what has been delivered. It is woken
// by every change, never by time.
func (d *Door) Wait(ctx context.Context, ok func(self *intent.Node, synced map[kube.Source]bool) bool) (*intent.Node, error) {
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

// wake rings everybody in Wait; d.mu is held.
func (d *Door) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// PodOf is a pod as the CNI server knows it.
func PodOf(p *intent.Pod) cni.Pod {
	n := p.Noted()
	return cni.Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Mirror: n.Mirror, Selection: n.Selection, Instead: n.Instead}
}
