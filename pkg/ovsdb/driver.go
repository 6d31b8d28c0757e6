package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Engine is what a Driver drives: *engine.Engine.
type Engine interface {
	Step(events []engine.Event) engine.Ready
	Statuses() []engine.Status
	Marks(group string) (committed, installed bool)
	Problems() []rows.Problem
}

// Database is what a Driver writes to: *Conn.
type Database interface {
	DB() rows.DB
	Snapshot(ctx context.Context) (engine.Snapshot, error)
	Apply(ctx context.Context, txn engine.Txn) engine.Result
	Refresh(ctx context.Context) error
	State() State
	Changed() <-chan struct{}
}

// DriverConfig are the Driver's settings; the zero value will do.
type DriverConfig struct {
	// Window is how long intent is gathered before a step, 0: 5 ms; a hundredth or so of it
	// when nothing has been written for that long: a pod that comes alone need not wait for others.
	Window time.Duration
	Check  time.Duration // how often the ledger is compared with the database; 0: 1 h
	Look   time.Duration // how often it is while a stranger's row is in the way; 0: 1 min
	Logger *slog.Logger  // nil: slog.Default()
	// Observe gets each step's figures, Record what goes in and comes out, both on
	// the loop; nil: nobody does.
	Observe func(StepStats)
	Record  Recorder
}

// Recorder keeps what an engine is given and what it answers, step by step.
type Recorder interface {
	Before(events []engine.Event)
	After(ready engine.Ready)
}

// StepStats are the figures of one step of the engine.
type StepStats struct {
	Events   int
	Txns     int
	Duration time.Duration
}

// Mark is how far a group's intent has come.
type Mark uint8

// The marks (decision 9).
const (
	Committed Mark = iota + 1 // the databases hold it
	Installed                 // every chassis of the zone has it in its flows
)

// yields is how often the loop steps aside, without anything having come, before it
// takes a lone pod to be alone: some 50 µs.
const yields = 64

// errEnded is what callers get when the loop has ended under them.
var errEnded = errors.New("driver has ended")

// Report is what the driver and its engine know of themselves.
type Report struct {
	Statuses  []engine.Status
	Problems  []rows.Problem
	Databases map[rows.DB]State
}

// Driver owns an engine: it steps it with what sinks and databases say, carries
// out what it answers, and wakes those who wait. Each database has a goroutine
// for its transactions, so none waits for another.
type Driver struct {
	cfg     DriverConfig
	log     *slog.Logger
	engine  Engine
	targets []*target
	q       *queue
	began   time.Time
	wrote   time.Time // when a step last had something to write
	ended   chan struct{}
	waiters []*waiter
	wake    *time.Timer
}

type waiter struct {
	group string
	mark  Mark
	done  chan struct{}
	call  func() // on the loop, beside closing done; nil: nothing
}

// NewDriver makes a driver; Run starts it. Nobody else may touch the engine
// from then on, but through Do.
func NewDriver(cfg DriverConfig, e Engine, dbs ...Database) *Driver {
	if cfg.Window == 0 {
		cfg.Window = 5 * time.Millisecond
	}
	if cfg.Check == 0 {
		cfg.Check = time.Hour
	}
	if cfg.Look == 0 {
		cfg.Look = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Driver{cfg: cfg, log: cfg.Logger, engine: e, q: newQueue(), ended: make(chan struct{})}
	for _, db := range dbs {
		d.targets = append(d.targets, newTarget(db))
	}
	return d
}

// Sink is where intent goes in.
func (d *Driver) Sink() Sink { return Sink{d.q} }

// Wait returns when a group has reached a mark in every database. Intent put
// before the call counts.
func (d *Driver) Wait(ctx context.Context, group string, mark Mark) error {
	w := &waiter{group: group, mark: mark, done: make(chan struct{})}
	d.q.push(item{waiter: w, urgent: true})
	select {
	case <-w.done:
		return nil
	case <-d.ended:
		return errEnded
	case <-ctx.Done():
	}
	d.q.push(item{call: func() {
		d.waiters = slices.DeleteFunc(d.waiters, func(o *waiter) bool { return o == w })
	}})
	return fmt.Errorf("group %s: %w", group, ctx.Err())
}

// Do runs fn on the loop's goroutine between two steps: it may use the engine.
func (d *Driver) Do(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	d.q.push(item{call: func() { fn(); close(done) }, urgent: true})
	select {
	case <-done:
		return nil
	case <-d.ended:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Report gathers what is not as it should be, and where the databases stand.
func (d *Driver) Report(ctx context.Context) (Report, error) {
	r := Report{Databases: map[rows.DB]State{}}
	err := d.Do(ctx, func() {
		r.Statuses, r.Problems = d.engine.Statuses(), d.engine.Problems()
	})
	for _, t := range d.targets {
		r.Databases[t.db.DB()] = t.db.State()
	}
	return r, err
}

// Run is the loop. It returns when ctx ends, after the databases' goroutines.
// Transactions under way are waited for no longer than ctx.
func (d *Driver) Run(ctx context.Context) error {
	defer close(d.ended)
	d.began = time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	for _, t := range d.targets {
		running.Add(2)
		go func() { defer running.Done(); t.work(ctx, d) }()
		go func() { defer running.Done(); t.listen(ctx, d) }()
	}
	window := time.NewTimer(time.Hour)
	defer window.Stop()
	d.wake = time.NewTimer(time.Hour)
	defer d.wake.Stop()
	look := time.NewTicker(d.cfg.Look)
	defer look.Stop()
	open := false // the window is running
	d.turn(ctx)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.q.bell:
			some, urgent := d.q.state()
			if !some || open && !urgent {
				continue
			}
			if !urgent && !d.lone() {
				window.Reset(d.cfg.Window)
				open = true
				continue
			}
		case <-window.C:
		case <-d.wake.C:
		case <-look.C:
			if !d.lookForStrangers() {
				continue
			}
		}
		open = false
		window.Stop()
		d.turn(ctx)
	}
}

// lone reports whether what has come need not wait for more to come with it: nothing
// has been written for a window, but something once: at the start all comes together. What is on its way at this moment is let in first,
// by stepping aside: the shortest timer is a millisecond.
func (d *Driver) lone() bool {
	if d.wrote.IsZero() || time.Since(d.wrote) <= d.cfg.Window {
		return false
	}
	began, n := time.Now(), d.q.len()
	for still := 0; still < yields && time.Since(began) < d.cfg.Window/10; still++ {
		runtime.Gosched()
		if now := d.q.len(); now != n {
			n, still = now, 0
		}
	}
	return true
}

// lookForStrangers has those databases read again in which a stranger's row keeps
// something from being written. It reports whether there are any.
func (d *Driver) lookForStrangers() bool {
	found := false
	for _, s := range d.engine.Statuses() {
		if s.Blocked() {
			d.target(s.DB).due.Store(true)
			found = true
		}
	}
	return found
}

// lookForLeavers does it at once when a row of somebody else's has gone: it may be
// the one. What else becomes of such rows is not watched, and found in time.
func (d *Driver) lookForLeavers() {
	some := false
	for _, t := range d.targets {
		if left := t.db.State().Left; left != t.left {
			t.left, some = left, true
		}
	}
	if some {
		d.lookForStrangers()
	}
}

// turn takes what has come, steps the engine once, and carries out its answer.
func (d *Driver) turn(ctx context.Context) {
	events := []engine.Event{{Tick: time.Since(d.began).Milliseconds() + 1}}
	var calls []func()
	for _, it := range d.q.take() {
		switch {
		case it.waiter != nil:
			d.waiters = append(d.waiters, it.waiter)
		case it.call != nil:
			calls = append(calls, it.call)
		default:
			if r := it.event.Result; r != nil {
				d.target(r.DB).busy = false
			}
			if s := it.event.Snapshot; s != nil {
				d.target(s.DB).read()
			}
			events = append(events, it.event)
		}
	}
	d.lookForLeavers()
	for _, t := range d.targets {
		events = append(events, t.news()...)
	}
	d.step(ctx, events)
	for _, fn := range calls {
		fn()
	}
	d.release()
}

func (d *Driver) step(ctx context.Context, events []engine.Event) {
	began := time.Now()
	if d.cfg.Record != nil {
		d.cfg.Record.Before(events)
	}
	ready := d.engine.Step(events)
	if d.cfg.Record != nil {
		d.cfg.Record.After(ready)
	}
	if len(ready.Txns) > 0 {
		d.wrote = time.Now()
	}
	for _, txn := range ready.Txns {
		d.target(txn.DB).write(txn)
	}
	for _, db := range ready.Resync {
		d.target(db).stale = true
	}
	for _, t := range d.targets {
		t.reread(ctx)
	}
	if ready.Wake != 0 {
		d.wake.Reset(max(time.Duration(ready.Wake)*time.Millisecond-time.Since(d.began), time.Millisecond))
	} else {
		d.wake.Stop()
	}
	if d.cfg.Observe != nil {
		d.cfg.Observe(StepStats{Events: len(events), Txns: len(ready.Txns), Duration: time.Since(began)})
	}
}

// release wakes the waiters whose mark is reached.
func (d *Driver) release() {
	d.waiters = slices.DeleteFunc(d.waiters, func(w *waiter) bool {
		committed, installed := d.engine.Marks(w.group)
		if !committed || w.mark == Installed && !installed {
			return false
		}
		close(w.done)
		if w.call != nil {
			w.call()
		}
		return true
	})
}

func (d *Driver) target(db rows.DB) *target {
	for _, t := range d.targets {
		if t.db.DB() == db {
			return t
		}
	}
	panic("ovsdb: the engine writes to " + string(db) + ", which the driver was not given")
}
