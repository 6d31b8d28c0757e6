package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// adoptAfter is how long an annotation must name other subnets before the agent
// starts anew with them: the allocator sets one that was edited back within seconds.
const adoptAfter = 20 * time.Second

// holding is the id and the subnets that this node's pods have their addresses
// from. They stay in force while the agent lives, whatever the annotation says.
type holding struct {
	mu      sync.Mutex // guards the rest
	node    *intent.Node
	claimed []netip.Prefix // what the annotation says instead; nil: the same
	gone    bool           // the Node has been deleted since: what a new one is given is no edit
}

// ownNode tells a holding of the end of the node's own Node.
type ownNode struct {
	ovsdb.Sink
	key  intent.Key
	held *holding
}

// Delete takes an object's end.
func (o ownNode) Delete(k intent.Key) {
	if k == o.key {
		o.held.mu.Lock()
		o.held.gone = true
		o.held.mu.Unlock()
	}
	o.Sink.Delete(k)
}

// hold fixes what the node has.
func (h *holding) hold(n *intent.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.node = n
}

// apply gives a node what is held in place of what its annotations say.
func (h *holding) apply(n *intent.Node) *intent.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claimed = nil
	if h.node == nil {
		return n
	}
	if len(n.Subnets) > 0 && !slices.Equal(n.Subnets, h.node.Subnets) {
		h.claimed = n.Subnets
	}
	out := *n
	out.Subnets, out.ID = h.node.Subnets, h.node.ID
	return &out
}

// problems says what the annotation says instead.
func (h *holding) problems() []rows.Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.claimed == nil {
		return nil
	}
	return []rows.Problem{{
		Object: h.node.Key().String(), Field: "metadata.annotations[" + kube.AnnotationNodeSubnets + "]", Severity: rows.Error,
		Message: fmt.Sprintf("the annotation says %s, and the node's pods have addresses of %s, which stay in force; portolan-manager sets an edited annotation back; one that stands for %s is adopted by a new start of the agent",
			h.claimed, h.node.Subnets, adoptAfter),
	}}
}

// watch ends with an error once other subnets have stood for a while, or are those
// of a Node that was added anew.
func (h *holding) watch(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var since time.Time
	var last []netip.Prefix
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		h.mu.Lock()
		claimed, gone := h.claimed, h.gone
		h.mu.Unlock()
		if claimed == nil || !slices.Equal(claimed, last) {
			since, last = time.Now(), claimed
		}
		if claimed != nil && (gone || time.Since(since) >= adoptAfter) {
			return fmt.Errorf("the node's subnets are %s now: starting anew with them", claimed)
		}
	}
}
