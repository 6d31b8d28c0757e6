package sriov

import (
	"context"

	"github.com/vishvananda/netlink"
)

// Watch rings until ctx ends when a network device of the calling process's namespace has
// changed that is one to hear of, and when a NIC or a function has come, gone, or been
// bound to a driver or unbound. The kernel may drop notices: whoever watches looks now and
// then, too. A bell that never rings is what a kernel gives that lets nobody listen.
func Watch(ctx context.Context, about func(name string) bool) <-chan struct{} {
	bell := make(chan struct{}, 1)
	ring := func() {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
	_ = Uevents(ctx, func(u Uevent) {
		if u.Action == "" || u.OfFunction() {
			ring()
		}
	})
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return bell
	}
	context.AfterFunc(ctx, func() { close(done) })
	go func() { // ends when the subscription has closed its channel
		for u := range updates {
			if about(u.Attrs().Name) {
				ring()
			}
		}
	}()
	return bell
}
