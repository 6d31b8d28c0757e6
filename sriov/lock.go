package sriov

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// locks are one a device: of this process a turn, which is waited for in order, and then
// the file's, which keeps other processes out and ends with this one.
type locks struct {
	dir string

	mu    sync.Mutex // guards turns
	turns map[string]*turn
}

type turn struct {
	token chan struct{} // holds one token while the device is free
	users int           // holder and waiters; at 0 the entry goes
}

// lockPause is how often a file is tried that another process has locked.
const lockPause = 5 * time.Millisecond

func (l *locks) lock(ctx context.Context, id string) (unlock func(), err error) {
	l.mu.Lock()
	t := l.turns[id]
	if t == nil {
		t = &turn{token: make(chan struct{}, 1)}
		t.token <- struct{}{}
		l.turns[id] = t
	}
	t.users++
	l.mu.Unlock()
	select {
	case <-t.token:
	case <-ctx.Done():
		l.leave(id, t)
		return nil, fmt.Errorf("device %s: another call is still working on it: %w", id, context.Cause(ctx))
	}
	f, err := l.file(ctx, id)
	if err != nil {
		t.token <- struct{}{}
		l.leave(id, t)
		return nil, err
	}
	return func() {
		f.Close()
		t.token <- struct{}{}
		l.leave(id, t)
	}, nil
}

func (l *locks) leave(id string, t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(l.turns, id)
	}
}

// file locks a device's file. It is never removed: somebody may be waiting for it.
func (l *locks) file(ctx context.Context, id string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.dir, id+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking device %s: %w", id, err)
	}
	again := time.NewTicker(lockPause)
	defer again.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking device %s: %w", id, err), f.Close())
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("device %s: another process is still working on it: %w", id, context.Cause(ctx)), f.Close())
		}
	}
}
