package sriov

import (
	"context"

	"github.com/vishvananda/netlink"
)

// Watch rings when a network device of the calling process's namespace has changed that
// is one to hear of, until ctx ends. The kernel may drop notices, and tells nothing of
// drivers: whoever watches looks now and then, too. A bell that never rings is what a
// kernel gives that lets nobody listen.
func Watch(ctx context.Context, about func(name string) bool) <-chan struct{} {
	bell := make(chan struct{}, 1)
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return bell
	}
	context.AfterFunc(ctx, func() { close(done) })
	go func() { // ends when the subscription has closed its channel
		for u := range updates {
			if !about(u.Attrs().Name) {
				continue
			}
			select {
			case bell <- struct{}{}:
			default:
			}
		}
	}()
	return bell
}
