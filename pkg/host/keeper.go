package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// Times of the keeper.
const (
	keepEvery  = 30 * time.Second      // what sends no event (sysctls, nftables) is looked at this often
	settle     = 10 * time.Millisecond // events come in bursts: a tap returns with several
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
)

// Keeper keeps the kernel as declared: at once when it is declared, within a
// moment when an event says that something of ours has changed (vswitchd's taps
// go and come back bare with it), and now and then.
type Keeper struct {
	// Done, if set, is told of each Set's result, in the keeper's goroutine.
	Done func(Report, error)

	kernel   *Kernel
	log      *slog.Logger
	declared *latest[Config]
	wires    *latest[Config] // beside it; may stay unsaid
	tunnels  *latest[Config] // as wires
	indexes  map[int]bool    // of the declared links, as of the last Set
	missing  []string        // declared links, as of the last Set
}

// NewKeeper makes a keeper; Run starts it.
func NewKeeper(k *Kernel, log *slog.Logger) *Keeper {
	return &Keeper{kernel: k, log: log, declared: newLatest[Config](), wires: newLatest[Config](), tunnels: newLatest[Config]()}
}

// Declare gives the whole desired state; it returns at once.
func (k *Keeper) Declare(c Config) { k.declared.put(c) }

// DeclareWires gives what is to be kept beside that, whole: the NICs of physical
// networks.
func (k *Keeper) DeclareWires(c Config) { k.wires.put(c) }

// DeclareTunnels gives what is to be kept beside that, whole: the ways of tunnel addresses.
func (k *Keeper) DeclareTunnels(c Config) { k.tunnels.put(c) }

// Run keeps the kernel as declared until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := k.watch(ctx); err != nil {
			k.log.Warn("netlink events lost", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(retryFirst):
			}
		}
	}
}

// events are the kernel's notices; lost says that some were dropped.
type events struct {
	links  chan netlink.LinkUpdate
	addrs  chan netlink.AddrUpdate
	routes chan netlink.RouteUpdate
	lost   chan error
}

// subscribe opens the event sockets in the kernel's namespace.
func subscribe(done <-chan struct{}) (*events, error) {
	e := &events{make(chan netlink.LinkUpdate), make(chan netlink.AddrUpdate), make(chan netlink.RouteUpdate), make(chan error, 3)}
	lost := func(err error) {
		select {
		case e.lost <- err:
		default:
		}
	}
	if err := netlink.LinkSubscribeWithOptions(e.links, done, netlink.LinkSubscribeOptions{ErrorCallback: lost}); err != nil {
		return nil, err
	}
	if err := netlink.AddrSubscribeWithOptions(e.addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: lost}); err != nil {
		return nil, err
	}
	err := netlink.RouteSubscribeWithOptions(e.routes, done, netlink.RouteSubscribeOptions{ErrorCallback: lost})
	return e, err
}

// watch applies what is declared and waits for reasons to do it again, until ctx
// ends or events were lost. It starts by applying all: nothing may have been
// missed while nobody listened.
func (k *Keeper) watch(ctx context.Context) error {
	done := make(chan struct{})
	defer close(done)
	ev, err := subscribe(done)
	if err != nil {
		return err
	}
	defer ev.drain()
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var soon, retry <-chan time.Time
	backoff := retryFirst
	full := true
	for {
		if soon == nil {
			if k.apply(ctx, full || len(k.missing) > 0) == nil {
				retry, backoff, full = nil, retryFirst, false
			} else {
				retry, backoff, full = time.After(backoff), min(2*backoff, retryMost), true
			}
		}
		wake, err := k.next(ctx, ev, wakes{soon, retry, tick.C})
		if err != nil || ctx.Err() != nil {
			return err
		}
		soon = nil
		switch wake {
		case onEvent:
			soon = time.After(settle)
		case onDeclared, onTime:
			full = true
		}
	}
}

// wake is why the keeper looks again.
type wake int

const (
	onSettled wake = iota
	onEvent
	onDeclared
	onTime
)

type wakes struct{ soon, retry, tick <-chan time.Time }

// next waits for one reason to look again. Once an event is waited out, further
// events do not prolong it.
func (k *Keeper) next(ctx context.Context, ev *events, w wakes) (wake, error) {
	for {
		event := false
		select {
		case <-ctx.Done():
			return 0, nil
		case err := <-ev.lost:
			return 0, err
		case u := <-ev.links:
			event = u.Link != nil && k.minds(u.Attrs())
		case u := <-ev.addrs:
			event = k.indexes[u.LinkIndex]
		case u := <-ev.routes:
			event = u.Protocol == Protocol || u.Type == unix.RTM_NEWROUTE && k.indexes[u.LinkIndex]
		case <-k.declared.changed():
			return onDeclared, nil
		case <-k.wires.changed():
			return onDeclared, nil
		case <-k.tunnels.changed():
			return onDeclared, nil
		case <-w.retry:
			return onTime, nil
		case <-w.tick:
			return onTime, nil
		case <-w.soon:
			return onSettled, nil
		}
		if event && w.soon == nil {
			return onEvent, nil
		}
	}
}

// minds reports whether something is declared of a link.
func (k *Keeper) minds(l *netlink.LinkAttrs) bool {
	c, _ := k.declared.peek()
	wires, _ := k.wires.peek()
	_, ok := c.link(l.Name)
	tunnels, _ := k.tunnels.peek()
	_, wire := wires.link(l.Name)
	_, tunnel := tunnels.link(l.Name)
	return ok || wire || tunnel || c.RefuseAdvertisements && l.Group == intent.AttachmentGroup
}

// apply sets what is declared.
func (k *Keeper) apply(ctx context.Context, nft bool) error {
	c, version := k.declared.get()
	wires, _ := k.wires.get()
	if version == 0 {
		return nil
	}
	tunnels, _ := k.tunnels.get()
	c = c.plus(wires).plus(tunnels)
	report, err := k.kernel.set(ctx, c, nft)
	k.missing = report.Missing
	if ctx.Err() != nil {
		return nil // interrupted; the next run starts from what is there
	}
	k.indexes = map[int]bool{}
	for _, l := range c.Links {
		if n, err := k.kernel.nl.LinkByName(l.Name); err == nil {
			k.indexes[n.Attrs().Index] = true
		}
	}
	switch {
	case err != nil:
		k.log.Error("host state not as declared", "error", err)
	case report.Changes > 0:
		k.log.Info("host state set", "changes", report.Changes, "waiting_for", report.Missing)
	}
	if k.Done != nil {
		k.Done(report, err)
	}
	return err
}

// drain lets the subscriptions' goroutines end, which may be sending.
func (e *events) drain() {
	go func() { // ends when the subscriptions have closed their channels
		for range e.links {
		}
	}()
	go func() {
		for range e.addrs {
		}
	}()
	go func() {
		for range e.routes {
		}
	}()
}
