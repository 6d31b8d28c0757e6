package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	Window time.Duration // how long intent is gathered before a step; 0: 5 ms
	Check  time.Duration // how often the ledger is compared with the database; 0: 1 h
	Logger *slog.Logger  // nil: slog.Default()
	// Observe gets each step's figures, Record its events, both on the loop; nil: nobody does.
	Observe func(StepStats)
	Record  func([]engine.Event)
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
	ended   chan struct{}
	waiters []*waiter
	wake    *time.Timer
}

type waiter struct {
	group string
	mark  Mark
	done  chan struct{}
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
	open := false // the window is running
	d.turn(ctx)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.q.bell:
			some, urgent := d.q.state()
			if some && !urgent && !open {
				window.Reset(d.cfg.Window)
				open = true
			}
			if !urgent {
				continue
			}
		case <-window.C:
		case <-d.wake.C:
		}
		open = false
		window.Stop()
		d.turn(ctx)
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
		d.cfg.Record(events)
	}
	ready := d.engine.Step(events)
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
