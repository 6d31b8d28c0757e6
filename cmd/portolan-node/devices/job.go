package devices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
)

// job is a change of a NIC on its way.
type job struct {
	done chan struct{} // closed when it has ended
	err  error         // of it; read after done
	key  string
}

// failure is why a NIC is not as it is to be, and when that is tried again.
type failure struct {
	err   error
	key   string // what was wanted: other wishes are tried at once
	until time.Time
	pause time.Duration
}

// keyOf is what is wanted, as text.
func keyOf(w nic.Wanted) string {
	parts := []string{fmt.Sprint(w.VFs, w.Mode, w.MTU)}
	for _, vf := range slices.Sorted(maps.Keys(w.Drivers)) {
		parts = append(parts, fmt.Sprint(vf, w.Drivers[vf]))
	}
	return strings.Join(parts, " ")
}

// errHeld ends a job: somebody has got a function meanwhile.
var errHeld = errors.New("functions are in use")

// start changes a NIC, beside the rounds.
func (d *Devices) start(ctx context.Context, p *planned) {
	j := &job{done: make(chan struct{}), key: p.key}
	d.jobs[p.nic.PF.ID] = j
	pf, want := p.nic.PF, p.wanted
	d.work.Go(func() {
		defer d.ring()
		defer close(j.done)
		j.err = d.config.NICs.Apply(ctx, pf.Bus, pf.ID, want, func(s nic.Step) error { return d.may(ctx, pf, s) })
		if j.err != nil && !errors.Is(j.err, errHeld) && ctx.Err() == nil {
			d.log.Warn("a NIC is not as pools ask for", "pf", pf.ID, "err", j.err)
		}
	})
}

// may asks once more before a step, when nobody new can be given a function.
func (d *Devices) may(ctx context.Context, pf sriov.PF, s nic.Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	all, vf := s.Takes()
	if !all && vf < 0 {
		return nil
	}
	ids, err := d.config.Inventory.VFs(pf)
	if err != nil {
		return err
	}
	h := d.holders(ctx)
	for n, id := range ids {
		if who := d.who(h, id); who != "" && (all || n == vf) {
			return fmt.Errorf("%w: %s of %s", errHeld, id, who)
		}
	}
	if !all {
		return nil
	}
	for _, f := range d.scalables()[pf.ID] {
		if who := d.who(h, f.ID); who != "" {
			return fmt.Errorf("%w: %s of %s", errHeld, f.ID, who)
		}
	}
	return nil
}

// reap takes the end of jobs.
func (d *Devices) reap() {
	for id, j := range d.jobs {
		select {
		case <-j.done:
		default:
			continue
		}
		delete(d.jobs, id)
		if j.err == nil || errors.Is(j.err, errHeld) {
			delete(d.failed, id)
			continue
		}
		pause := firstRetry
		if f := d.failed[id]; f.key == j.key {
			pause = min(2*f.pause, lastRetry)
		}
		d.failed[id] = failure{j.err, j.key, d.config.Now().Add(pause), pause}
	}
}
