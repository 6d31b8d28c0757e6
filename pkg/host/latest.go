package host

import "sync"

// latest hands the newest of many values to one receiver.
type latest[T any] struct {
	bell chan struct{}

	mu    sync.Mutex // guards the rest
	value T
	set   bool
}

func newLatest[T any]() *latest[T] { return &latest[T]{bell: make(chan struct{}, 1)} }

// put stores a value and rings.
func (l *latest[T]) put(v T) {
	l.mu.Lock()
	l.value, l.set = v, true
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// get returns the newest value; false before the first put.
func (l *latest[T]) get() (T, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.set
}

// changed is ready when there was a put since it was last received from.
func (l *latest[T]) changed() <-chan struct{} { return l.bell }
