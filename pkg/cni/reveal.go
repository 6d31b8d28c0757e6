package cni

import (
	"context"
	"slices"
	"sync"
	"time"
)

// revealPause is how long chains of removed devices are gathered: nft rebuilds
// what it changes, however little that is, and pods go in crowds.
const revealPause = time.Second

// names is a list that one goroutine empties.
type names struct {
	mu      sync.Mutex // guards list and taken
	list    []string
	taken   []string      // being worked on
	arrived chan struct{} // holds a token while list may not be empty
}

func newNames() *names { return &names{arrived: make(chan struct{}, 1)} }

func (n *names) put(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, name)
	select {
	case n.arrived <- struct{}{}:
	default:
	}
}

func (n *names) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list, n.taken = nil, n.list
	return n.taken
}

func (n *names) done() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken = nil
}

// has reports whether a name waits or is worked on.
func (n *names) has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.list, name) || slices.Contains(n.taken, name)
}

// revealing removes chains beside the calls that left them, until the context
// ends. What is left then is swept at the next start.
func (a *Agent) revealing(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.concealed.arrived:
		}
		pause := time.NewTimer(revealPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		a.reveal(ctx)
	}
}

// reveal removes the chains of all devices that are gone.
func (a *Agent) reveal(ctx context.Context) {
	devices := a.concealed.take()
	defer a.concealed.done()
	if len(devices) == 0 {
		return
	}
	if err := a.config.Concealer.Reveal(ctx, devices); err != nil && ctx.Err() == nil {
		a.log.Warn("nftables chains of removed veths stay until the next start", "devices", len(devices), "err", err)
	}
}
