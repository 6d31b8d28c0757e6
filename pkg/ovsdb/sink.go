package ovsdb

import (
	"sync"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Sink takes intent from any goroutine and hands it to the Driver's loop in the
// order in which it came. It never blocks.
type Sink struct{ q *queue }

// Put gives an object as it is now.
func (s Sink) Put(o intent.Object) { s.q.push(item{event: engine.Event{Put: o}}) }

// Delete says that an object is gone.
func (s Sink) Delete(k intent.Key) { s.q.push(item{event: engine.Event{Delete: &k}}) }

// Synced says that every source has delivered what it had at start.
func (s Sink) Synced() { s.q.push(item{event: engine.Event{Synced: true}, urgent: true}) }

// Withdrawn calls done, on the Driver's loop, once a group is installed in every
// database. Intent given before the call counts.
func (s Sink) Withdrawn(group string, done func()) {
	s.q.push(item{waiter: &waiter{group: group, mark: Installed, done: make(chan struct{}), call: done}})
}

// item is one thing for the loop. Order among items is kept: a waiter that comes
// after a Put sees its effect.
type item struct {
	event  engine.Event // when any field of it is set
	waiter *waiter
	call   func() // run on the loop between steps
	// urgent items end the batching window.
	urgent bool
}

// queue is an unbounded list with a doorbell.
type queue struct {
	mu    sync.Mutex // guards items and hurry
	items []item
	hurry bool

	bell chan struct{} // holds one ring
}

func newQueue() *queue { return &queue{bell: make(chan struct{}, 1)} }

func (q *queue) push(it item) {
	q.mu.Lock()
	q.items = append(q.items, it)
	q.hurry = q.hurry || it.urgent
	q.mu.Unlock()
	select {
	case q.bell <- struct{}{}:
	default:
	}
}

// take empties the queue.
func (q *queue) take() []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items, q.hurry = nil, false
	return items
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// state reports whether there is anything, and whether it is urgent.
func (q *queue) state() (some, urgent bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) > 0, q.hurry
}
