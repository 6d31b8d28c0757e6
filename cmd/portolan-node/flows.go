package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/portolan-cni/portolan/pkg/daemon"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The times of keepFlows.
const (
	stepPace = 50 * time.Millisecond // how often it is looked whether northd has caught up
	mostHeld = 30 * time.Second      // how long ovn-controller waits for northd once all is written
)

// keepFlows keeps the node's flows while a database of its zone is away: what comes
// back may be empty, or old, and ovn-controller would carry that out, packet for
// packet (decision 33, ADR 0019). From the moment when a connection breaks it is
// held, until both databases are back, hold all that the engine wants, and northd
// has carried it over.
//
//	NB or SB away ──> hold ──> both up ──> engine settled ──> SB's nb_cfg = NB's ──> release
//
// northd and ovn-controller wait a second before they connect again; this end of
// the broken connection knows at once.
func (a *agent) keepFlows(ctx context.Context) error {
	controller := host.NewController(daemon.OVNRun)
	held := controller.Paused(ctx) // an earlier agent may have ended between hold and release
	for ctx.Err() == nil {
		nb, nbMoved := a.conns[rows.NB].Moved()
		sb, sbMoved := a.conns[rows.SB].Moved()
		var again <-chan time.Time
		switch {
		case held && (!nb.Up || !sb.Up):
		case !nb.Up || !sb.Up:
			if err := controller.Hold(ctx); err != nil {
				slog.Error("ovn-controller not held; it may take flows away", "err", err)
				again = time.After(stepPace)
				break
			}
			held = true
			slog.Info("a database of the zone is away: flows stay as they are", "nb", nb.Err, "sb", sb.Err)
		case held:
			away, stop := either(ctx, nbMoved, sbMoved)
			err := a.release(away, controller)
			if held = err != nil; held && away.Err() == nil {
				slog.Error("ovn-controller not released; trying again", "err", err)
				again = time.After(time.Second)
			}
			stop()
		}
		select {
		case <-ctx.Done():
		case <-nbMoved:
		case <-sbMoved:
		case <-again:
		}
	}
	return nil
}

// measurePace is how often ovn-controller is asked how long it computes.
const measurePace = 10 * time.Second

// measure keeps ovn-ofctrl-wait-before-clear at what this node's ovn-controller
// needs, in whatever zone it is.
func (a *agent) measure(ctx context.Context) error {
	controller := host.NewController(daemon.OVNRun)
	tick := time.NewTicker(measurePace)
	defer tick.Stop()
	told := a.facts.wait
	for {
		took, err := controller.Computation(ctx)
		if err != nil {
			slog.Debug("ovn-controller not measured", "err", err)
		}
		now := time.Duration(told) * time.Millisecond
		if wait := host.WaitBeforeClear(took, now); wait != now {
			told = int(wait.Milliseconds())
			a.machine.change(func(h *intent.Host) { h.WaitBeforeClear = told })
			slog.Info("an ovn-controller that starts keeps the flows that it finds", "for", wait, "longest_computation", took)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// either gives a context that ends when one of two channels is closed.
func either(ctx context.Context, one, two <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the context
		select {
		case <-one:
		case <-two:
		case <-ctx.Done():
		}
		cancel()
	}()
	return ctx, cancel
}

// release lets ovn-controller work once the southbound database is what the zone
// wants. It gives up when a connection breaks (ctx), and does not wait for ever: a
// northd that does not come back must not keep pods from starting on a node whose
// databases were not lost.
func (a *agent) release(ctx context.Context, controller *host.Controller) error {
	began := time.Now()
	tick := time.NewTicker(stepPace)
	defer tick.Stop()
	for {
		ok, err := a.inStep(ctx)
		if err != nil {
			return err
		}
		late := time.Since(began) > mostHeld
		if late && !ok {
			slog.Error("northd has not caught up; ovn-controller goes on with what there is", "waited", mostHeld)
		}
		if ok || late {
			if err := controller.Release(ctx); err != nil {
				return err
			}
			slog.Info("flows follow the zone's databases", "after", time.Since(began).Round(time.Millisecond))
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// inStep reports whether the engine has written all it can and northd has carried
// it over. The engine is asked first: what it writes raises nb_cfg.
func (a *agent) inStep(ctx context.Context) (bool, error) {
	settled := false
	if err := a.driver.Do(ctx, func() { settled = a.engine.Settled() }); err != nil || !settled {
		return false, err
	}
	nb, errNB := a.conns[rows.NB].NbCfg(ctx)
	sb, errSB := a.conns[rows.SB].NbCfg(ctx)
	return nb >= 0 && nb == sb, errors.Join(errNB, errSB)
}
