package faults

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// Fault is one thing that goes wrong.
type Fault struct {
	Name string
	// Do does it, and returns when it is done.
	Do func(ctx context.Context, r *Rig) error
	// Bounded says that packets may be lost. Without it none may.
	Bounded bool
	// Most is the longest gap that a bounded fault may make; 0: it is only printed.
	Most time.Duration
	// Patience is how long all may take to be well again; 0: 90 s.
	Patience time.Duration
	// Reboots says that the node's network goes with the fault: there is no bare
	// bridge on it, and the paths are of other nodes.
	Reboots bool
}

// Counted is what one path lost.
type Counted struct {
	Path string
	packets.Steady
}

// Result is what a fault came to.
type Result struct {
	Fault Fault
	Flows []Counted
	Bare  packets.Steady // on the node that was hit
	// Elsewhere is the most that the bare bridge of another node lost.
	Elsewhere int
	Talk      packets.Talked
	Opened    packets.Opened
	Took      time.Duration                 // until all was well again
	Rows      map[string][]state.Difference // by node: what then was different
	Err       error                         // it could not be done, or all was not well in time
}

// Different counts the rows that were different in the end.
func (r Result) Different() int {
	n := 0
	for _, d := range r.Rows {
		n += len(d)
	}
	return n
}

// Lost is the most that any path lost.
func (r Result) Lost() int {
	most := 0
	for _, f := range r.Flows {
		most = max(most, f.Lost)
	}
	return most
}

// Disturbed says that the run proves nothing: no path of OVN's is between the ends
// of the bare bridge, and yet it lost.
func (r Result) Disturbed() bool {
	return !r.Fault.Bounded && r.Bare.Lost+r.Elsewhere > 0
}

// Wrong lists what is not as it must be.
func (r Result) Wrong() []string {
	var out []string
	if r.Err != nil {
		out = append(out, r.Err.Error())
	}
	for _, f := range r.Flows {
		switch {
		case !r.Fault.Bounded && f.Lost > 0:
			out = append(out, fmt.Sprintf("%s: %v, want none; lost were %s", f.Path, f.Steady, holes(f.Steady)))
		case r.Fault.Most > 0 && f.Gap > r.Fault.Most:
			out = append(out, fmt.Sprintf("%s: %v, want no longer gap than %v", f.Path, f.Steady, r.Fault.Most))
		}
		if f.Duplicated > 0 {
			out = append(out, fmt.Sprintf("%s: %d datagrams came twice", f.Path, f.Duplicated))
		}
	}
	if r.Talk.Err != nil && r.gap() < talkSurvives {
		out = append(out, "TCP stream: "+r.Talk.String())
	}
	if !r.Fault.Bounded && r.Opened.Failed > 0 {
		out = append(out, fmt.Sprintf("new connections: %v (%v)", r.Opened, r.Opened.Err))
	}
	for name, diff := range r.Rows {
		if len(diff) > 0 {
			out = append(out, fmt.Sprintf("%s: %d rows are different:\n%s", name, len(diff), state.Text(diff)))
		}
	}
	return out
}

// talkSurvives is how long a gap a TCP stream gets over in the time that Stop gives
// it: it repeats itself ever more seldom.
const talkSurvives = 5 * time.Second

// gap is the longest on any path.
func (r Result) gap() time.Duration {
	var most time.Duration
	for _, f := range r.Flows {
		most = max(most, f.Gap)
	}
	return most
}

// holes tells when packets were lost, for a look into the logs.
func holes(s packets.Steady) string {
	var parts []string
	for _, h := range s.Holes {
		parts = append(parts, fmt.Sprintf("%d at %s", h.Count, h.At.UTC().Format("15:04:05.000")))
	}
	return strings.Join(parts, ", ")
}

// String is the result in a line.
func (r Result) String() string {
	var b strings.Builder
	for _, f := range r.Flows {
		fmt.Fprintf(&b, "%s: %v; ", f.Path, f.Steady)
	}
	fmt.Fprintf(&b, "bare bridge: %v, elsewhere %d; TCP: %v; %v; %d rows different; well after %v", r.Bare, r.Elsewhere, r.Talk, r.Opened, r.Different(), r.Took.Round(10*time.Millisecond))
	return b.String()
}

// linger is how long packets are counted before the fault, and after all is well.
const linger = time.Second

// Run does a fault once while the meters run.
func (r *Rig) Run(ctx context.Context, f Fault) Result {
	res := Result{Fault: f, Rows: map[string][]state.Difference{}}
	if res.Err = until(ctx, 60*time.Second, func() error { return r.live(ctx) }); res.Err != nil {
		return res
	}
	before, err := r.Take(ctx)
	if err != nil {
		res.Err = err
		return res
	}
	m, err := r.start(ctx, f)
	if err != nil {
		res.Err = err
		return res
	}
	rest(ctx, linger)
	begin := time.Now()
	r.logf("%s at %s", f.Name, begin.UTC().Format("15:04:05.000"))
	if res.Err = f.Do(ctx, r); res.Err == nil {
		res.Err = r.recover(ctx, f, before, &res)
	}
	res.Took = time.Since(begin)
	rest(ctx, linger)
	if err := m.stop(ctx, r, &res); err != nil && res.Err == nil {
		res.Err = err
	}
	return res
}

// recover waits until all is well: everything at work, and every node as it was.
func (r *Rig) recover(ctx context.Context, f Fault, before map[string]state.State, res *Result) error {
	patience := f.Patience
	if patience == 0 {
		patience = 90 * time.Second
	}
	var last error
	err := until(ctx, patience, func() error {
		if last = r.live(ctx); last != nil {
			return last
		}
		now, err := r.Take(ctx)
		if last = err; err != nil {
			return err
		}
		different := 0
		for _, n := range r.nodes() {
			res.Rows[n] = state.Diff(before[n], now[n])
			different += len(res.Rows[n])
		}
		if different > 0 {
			return fmt.Errorf("%d rows are different", different)
		}
		return nil
	})
	if last == nil {
		return nil // all is at work; what is different is in Rows
	}
	return err
}

func (r *Rig) logf(format string, args ...any) {
	if r.Log != nil {
		r.Log(format, args...)
	}
}

// rest lets time pass in which nothing but packets moves.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
