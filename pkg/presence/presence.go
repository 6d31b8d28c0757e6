// Package presence knows which networks are used on which nodes: it stands before a
// sink of intent, counts the attachments of the pods that pass, and puts a Presence
// for each network and node that has any.
//
//	door ──Pod, Network──> Counter ──Presence, then Pod──> driver
//
// Invariants: a Presence goes in before the pod that needs it, in one batch with it;
// it goes 120 s after the last such pod, so that a pod that is replaced does not take
// the network's rows down and up again. The linger is not kept over a restart: a
// network that nobody uses may go then, one that is used never does. What passes is
// passed on unchanged and in order.
package presence

import (
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// Linger is how long a network stays on a node that no pod uses it on any more, as
// OVN-Kubernetes' --udn-deletion-grace-period.
const Linger = 120 * time.Second

// Sink is where intent goes.
type Sink interface {
	Put(intent.Object)
	Delete(intent.Key)
}

// place is a network, or a definition, on a node.
type place struct{ of, node string }

// Counter is the sink before the sink. It is safe for concurrent use; its sink is
// called by one goroutine at a time.
type Counter struct {
	mu       sync.Mutex // guards the rest, and calls of sink
	sink     Sink
	networks map[string]*intent.Network
	claims   map[string]string                 // definition -> network
	pods     map[intent.Key]map[place]struct{} // definitions that a pod uses
	uses     map[string]map[string]int         // definition -> node -> pods
	stated   map[intent.Key]place              // by files, without pods
	present  map[place]*time.Timer             // networks; nil: used, else when it goes
	after    func(time.Duration, func()) *time.Timer
}

// New makes a Counter before a sink.
func New(sink Sink) *Counter {
	return &Counter{
		sink: sink, networks: map[string]*intent.Network{}, claims: map[string]string{},
		pods: map[intent.Key]map[place]struct{}{}, uses: map[string]map[string]int{}, stated: map[intent.Key]place{},
		present: map[place]*time.Timer{}, after: time.AfterFunc,
	}
}

// Put passes an object on, after the Presences that it needs.
func (c *Counter) Put(o intent.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch o := o.(type) {
	case *intent.Network:
		c.network(o.Name, o)
	case *intent.Pod:
		now := map[place]struct{}{}
		for _, a := range o.Attachments {
			if a.Network != intent.DefaultNetwork {
				now[place{intent.DefinitionOf(a.Network), o.Node}] = struct{}{}
			}
		}
		c.pod(o.Key(), now)
	case *intent.Presence:
		c.stated[o.Key()] = place{o.Network, o.Node}
		c.look(o.Network, o.Node)
		return
	}
	c.sink.Put(o)
}

// Delete passes an object's end on.
func (c *Counter) Delete(k intent.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch k.Kind {
	case intent.KindPresence:
		if at, ok := c.stated[k]; ok {
			delete(c.stated, k)
			c.look(at.of, at.node)
		}
		return
	case intent.KindPod:
		c.sink.Delete(k)
		c.pod(k, nil)
		return
	case intent.KindNetwork:
		c.network(k.Name, nil)
	}
	c.sink.Delete(k)
}

// network notes which definitions a network has now; nil for none.
func (c *Counter) network(name string, now *intent.Network) {
	var affected []string
	if old := c.networks[name]; old != nil {
		affected = append(affected, old.Definitions...)
		for _, d := range old.Definitions {
			if c.claims[d] == name {
				delete(c.claims, d)
			}
		}
	}
	delete(c.networks, name)
	if now != nil {
		c.networks[name] = now
		affected = append(affected, now.Definitions...)
		for _, d := range now.Definitions {
			c.claims[d] = name
		}
	}
	for _, d := range affected {
		for node := range c.uses[d] {
			c.look(name, node)
		}
	}
}

// pod notes which definitions a pod uses now.
func (c *Counter) pod(key intent.Key, now map[place]struct{}) {
	was := c.pods[key]
	for p := range now {
		if _, had := was[p]; had {
			continue
		}
		if c.uses[p.of] == nil {
			c.uses[p.of] = map[string]int{}
		}
		c.uses[p.of][p.node]++
	}
	for p := range was {
		if _, has := now[p]; has {
			continue
		}
		if c.uses[p.of][p.node]--; c.uses[p.of][p.node] == 0 {
			delete(c.uses[p.of], p.node)
		}
		if len(c.uses[p.of]) == 0 {
			delete(c.uses, p.of)
		}
	}
	if c.pods[key] = now; len(now) == 0 {
		delete(c.pods, key)
	}
	for _, set := range []map[place]struct{}{now, was} {
		for p := range set {
			if network, ok := c.claims[p.of]; ok {
				c.look(network, p.node)
			}
		}
	}
}

// used reports whether anybody needs a network on a node.
func (c *Counter) used(network, node string) bool {
	if _, ok := c.stated[intent.PresenceKey(network, node)]; ok {
		return true
	}
	if n := c.networks[network]; n != nil {
		for _, d := range n.Definitions {
			if c.uses[d][node] > 0 {
				return true
			}
		}
	}
	return false
}

// look brings one Presence up to what is used.
func (c *Counter) look(network, node string) {
	at := place{network, node}
	going, present := c.present[at]
	switch used := c.used(network, node); {
	case used && !present:
		c.present[at] = nil
		c.sink.Put(&intent.Presence{Network: network, Node: node})
	case used && going != nil:
		going.Stop()
		c.present[at] = nil
	case !used && present && going == nil:
		var mine *time.Timer
		mine = c.after(Linger, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.present[at] == mine && mine != nil {
				delete(c.present, at)
				c.sink.Delete(intent.PresenceKey(network, node))
			}
		})
		c.present[at] = mine
	}
}
