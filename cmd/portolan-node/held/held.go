// Package held answers with which id and which subnets a node's agent runs, whatever
// the Node's annotations say.
//
//	NodeNetwork: what it ran with ─┐
//	Node, as the door reads it ────┴─> Holding ──> the Node as the agent takes it,
//	                                     └──> what the NodeNetwork is to say; Problems; the end of the process
//
// Invariants: what is held does not change while the process lives; a start goes on
// with what the process before it held for the same Node; something else is adopted, by
// ending, only when a manager that leads has let it stand, or the Node was added anew.
package held

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// adoptAfter is how long an annotation must say something else, while a manager
// leads, before the agent starts anew with that: the allocator sets one that was
// edited back within seconds. A leader renews its term several times in termPoll.
const (
	adoptAfter = 20 * time.Second
	termPoll   = 5 * time.Second
)

// Holding is the id and the subnets that this node's pods live with. They stay in
// force whatever the annotations say, also over a restart of the agent: its
// NodeNetwork Remembers them.
type Holding struct {
	stand stand // of Look

	mu      sync.Mutex // guards the rest
	ran     kube.Allocation
	node    *intent.Node    // nil: nothing is held yet
	claimed kube.Allocation // what the annotations say instead; zero: the same
	gone    bool            // the Node has been deleted since: what a new one is given is no edit
	adopted kube.Allocation // what the next start is to run with; zero: what is held
}

// Ended notes that the Node has been deleted.
func (h *Holding) Ended() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
}

// Remember says what the agent ran with before it was started anew.
func (h *Holding) Remember(ran kube.Allocation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ran = ran
}

// Hold fixes what the node has.
func (h *Holding) Hold(n *intent.Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.node = n
}

// Apply gives a node what is held in place of what its annotations say.
func (h *Holding) Apply(n *intent.Node) *intent.Node {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.claimed = kube.Allocation{}
	if h.node == nil && h.ran.UID != "" && h.ran.UID == n.UID {
		held := *n
		if !h.ran.Within(n) {
			held.ID, held.Subnets = h.ran.ID, h.ran.Subnets
		}
		h.node = &held
	}
	if h.node == nil {
		return n
	}
	claimed := kube.Allocation{UID: n.UID, ID: n.ID, Subnets: n.Subnets}
	if n.ID == 0 {
		claimed.ID = h.node.ID
	}
	if len(n.Subnets) == 0 {
		claimed.Subnets = h.node.Subnets
	}
	switch {
	case claimed.ID != h.node.ID || !slices.Equal(claimed.Subnets, h.node.Subnets):
		h.claimed = claimed
	case h.node.UID != n.UID && n.ID != 0 && len(n.Subnets) > 0: // given anew what it had
		held := *h.node
		held.UID = n.UID
		h.node, h.gone = &held, false
	}
	out := *n
	out.Subnets, out.ID = h.node.Subnets, h.node.ID
	return &out
}

// Allocation is what the NodeNetwork is to say; zero while nothing is held.
func (h *Holding) Allocation() kube.Allocation {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.adopted.UID != "" {
		return h.adopted
	}
	if h.node == nil {
		return kube.Allocation{}
	}
	return kube.AllocationOf(h.node)
}

// Problems says what the annotations say instead.
func (h *Holding) Problems() []rows.Problem {
	h.mu.Lock()
	defer h.mu.Unlock()
	annotation, says, has := kube.AnnotationNodeSubnets, fmt.Sprint(h.claimed.Subnets), ""
	switch {
	case len(h.claimed.Subnets) == 0:
		return nil
	case !slices.Equal(h.claimed.Subnets, h.node.Subnets):
		has = fmt.Sprintf("the node's pods have addresses of %s, which stay in force", h.node.Subnets)
	default:
		annotation, says = kube.AnnotationNodeID, fmt.Sprint(h.claimed.ID)
		has = fmt.Sprintf("the node runs with %d, which stays in force", h.node.ID)
	}
	return []rows.Problem{{
		Object: h.node.Key().String(), Field: "metadata.annotations[" + annotation + "]", Severity: rows.Error,
		Message: fmt.Sprintf("the annotation says %s, and %s; portolan-manager sets an edited annotation back; one that stands for %s while a manager leads is adopted by a new start of the agent",
			says, has, adoptAfter),
	}}
}

// Term is what the managers' Lease says: it changes while one leads. Without a leader
// nobody sets an edited annotation back. A nil Term: there are no managers.
type Term func(context.Context) (string, error)

// Watch ends with Look's error, or with ctx.
func (h *Holding) Watch(ctx context.Context, term Term) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := h.Look(ctx, term, time.Now()); err != nil {
			return err
		}
	}
}

// Look is an error once something else has stood for a while, or is what a Node was
// given that was added anew: the process is to end, and the next runs with that. It is
// for one goroutine.
func (h *Holding) Look(ctx context.Context, term Term, now time.Time) error {
	h.mu.Lock()
	claimed, gone := h.claimed, h.gone
	h.mu.Unlock()
	if len(claimed.Subnets) == 0 {
		h.stand = stand{}
		return nil
	}
	if !gone && !h.stand.stood(ctx, claimed, term, now) {
		return nil
	}
	h.mu.Lock()
	h.adopted = claimed
	h.mu.Unlock()
	return fmt.Errorf("the node has id %d and subnets %s now: starting anew with them", claimed.ID, claimed.Subnets)
}

// stand is how long annotations have said something else under a manager that leads.
type stand struct {
	what   string
	since  time.Time // zero: none is known to lead
	polled time.Time
	seen   string // what term said then
	failed bool
}

// stood reports whether what is claimed has stood long enough.
func (s *stand) stood(ctx context.Context, claimed kube.Allocation, term Term, now time.Time) bool {
	if what := fmt.Sprint(claimed); what != s.what {
		*s = stand{what: what}
		if term == nil {
			s.since = now
		}
	}
	if term != nil && now.Sub(s.polled) >= termPoll {
		is, err := term(ctx)
		if err != nil && !s.failed {
			slog.Warn("whether a portolan-manager leads is not known: what the node's annotations say is not adopted", "says", s.what, "err", err)
		}
		switch s.failed = err != nil; {
		case s.failed || s.seen == "" || is == s.seen:
			s.since = time.Time{}
		case s.since.IsZero():
			s.since = now
		}
		s.seen, s.polled = is, now
	}
	return !s.since.IsZero() && now.Sub(s.since) >= adoptAfter
}
