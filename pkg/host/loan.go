package host

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"
)

// loan gives the NIC what it had while the bridge has no link, or one without
// carrier, and takes it back. The userspace datapath's links end with vswitchd, and
// a node without an address would never hear from the API server that vswitchd is to
// be started again. It asks the kernel alone: a vswitchd that is away may have its
// database away with it, and then nothing that reads that goes on.
type loan struct {
	kernel *Kernel
	keeper *Keeper
	log    *slog.Logger

	mu      sync.Mutex // guards the rest
	gateway Gateway
	config  Config    // what the keeper keeps when nothing is lent
	known   bool      // both were declared
	lacking time.Time // since when the bridge has had no carrier; zero: it has
	lent    bool
}

// The times of a loan. A vswitchd that is started again has its links back sooner.
const (
	lendAfter = 3 * time.Second
	lendPace  = 500 * time.Millisecond
)

// declare gives what the keeper is to keep, now or when the loan ends.
func (l *loan) declare(g Gateway, c Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gateway, l.config, l.known = g, c, true
	if !l.lent {
		l.keeper.Declare(c)
	}
}

// run looks at the bridge's link until ctx ends. A loan under way stays.
func (l *loan) run(ctx context.Context) {
	tick := time.NewTicker(lendPace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.look()
		}
	}
}

func (l *loan) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known || l.gateway.Foreign != "" {
		return
	}
	link, err := l.kernel.nl.LinkByName(l.gateway.Bridge)
	// A new link is down until it is declared; one that vswitchd has left is up.
	if err == nil && link.Attrs().Flags&(net.FlagUp|net.FlagRunning) != net.FlagUp {
		l.lacking = time.Time{}
		if l.lent {
			l.lent = false
			l.log.Info("the bridge is back and takes the node's addresses", "bridge", l.gateway.Bridge)
			l.keeper.Declare(l.config)
		}
		return
	}
	if l.lacking.IsZero() {
		l.lacking = time.Now()
	}
	if time.Since(l.lacking) < lendAfter {
		return
	}
	if !l.lent {
		l.lent = true
		l.log.Warn("the bridge has no carrier; the NIC gets the node's addresses back until it has", "bridge", l.gateway.Bridge, "nic", l.gateway.NIC)
		l.keeper.Declare(Config{HideAttachments: l.config.HideAttachments})
	}
	if err := l.kernel.restore(l.gateway); err != nil {
		l.log.Error("NIC not restored", "nic", l.gateway.NIC, "error", err)
	}
}
