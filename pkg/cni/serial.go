package cni

import (
	"context"
	"fmt"
	"sync"
)

// keyed is a lock per key. A waiter gives up with its context: a runtime that
// has gone away must not leave a queue behind.
type keyed struct {
	mu   sync.Mutex // guards held
	held map[string]*turn
}

type turn struct {
	token chan struct{} // holds one token while the key is free
	users int           // holder and waiters; at 0 the entry goes
}

func newKeyed() *keyed { return &keyed{held: make(map[string]*turn)} }

// lock waits for the key and returns what gives it back.
func (k *keyed) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	t := k.held[key]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		t.token <- struct{}{}
		k.held[key] = t
	}
	t.users++
	k.mu.Unlock()
	select {
	case <-t.token:
		return func() { t.token <- struct{}{}; k.leave(key, t) }, nil
	case <-ctx.Done():
		k.leave(key, t)
		return nil, fmt.Errorf("another call is still working on it: %w", context.Cause(ctx))
	}
}

func (k *keyed) leave(key string, t *turn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(k.held, key)
	}
}
