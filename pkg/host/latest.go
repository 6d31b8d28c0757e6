package host

import "sync"

// latest hands the newest of many values to one receiver.
type latest[T any] struct {
	bell chan struct{}

	mu      sync.Mutex // guards the rest
	value   T
	version int // counts puts
}

func newLatest[T any]() *latest[T] { return &latest[T]{bell: make(chan struct{}, 1)} }

// put stores a value and rings.
func (l *latest[T]) put(v T) {
	l.mu.Lock()
	l.value, l.version = v, l.version+1
	l.mu.Unlock()
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

// get returns the newest value and its version, 0 before the first put, and
// quiets the bell: what rang it has been seen.
func (l *latest[T]) get() (T, int) {
	select {
	case <-l.bell:
	default:
	}
	return l.peek()
}

// peek is get without touching the bell.
func (l *latest[T]) peek() (T, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.value, l.version
}

// changed is ready when there was a put since the last get.
func (l *latest[T]) changed() <-chan struct{} { return l.bell }
