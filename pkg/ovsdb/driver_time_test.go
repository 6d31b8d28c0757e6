package ovsdb

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// script is an Engine that answers as it is told and keeps what it is given.
type script struct {
	answer func(events []engine.Event) engine.Ready
	marked bool

	mu    sync.Mutex // guards steps
	steps [][]engine.Event
}

// taken is what the engine has been given so far.
func (s *script) taken() [][]engine.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.steps)
}

func (s *script) Step(events []engine.Event) engine.Ready {
	s.mu.Lock()
	s.steps = append(s.steps, slices.Clone(events))
	s.mu.Unlock()
	if s.answer == nil {
		return engine.Ready{}
	}
	return s.answer(events)
}
func (s *script) Statuses() []engine.Status { return nil }
func (s *script) Marks(string) (bool, bool) { return s.marked, s.marked }
func (s *script) Problems() []rows.Problem  { return nil }

// memory is a Database that answers when it is told to.
type memory struct {
	db     rows.DB
	bell   chan struct{}
	answer chan engine.Result // nil: at once

	mu      sync.Mutex // guards what follows
	state   State
	applied int
}

func newMemory(db rows.DB) *memory {
	return &memory{db: db, state: State{Epoch: 1, Up: true}, bell: make(chan struct{}, 1)}
}

func (m *memory) DB() rows.DB { return m.db }
func (m *memory) Snapshot(context.Context) (engine.Snapshot, error) {
	return engine.Snapshot{DB: m.db}, nil
}
func (m *memory) Apply(ctx context.Context, txn engine.Txn) engine.Result {
	m.mu.Lock()
	m.applied++
	m.mu.Unlock()
	if m.answer == nil {
		return engine.Result{DB: m.db, Txn: txn.ID}
	}
	select {
	case r := <-m.answer:
		return r
	case <-ctx.Done():
		return engine.Result{DB: m.db, Txn: txn.ID, Lost: true}
	}
}
func (m *memory) Refresh(context.Context) error { return nil }
func (m *memory) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}
func (m *memory) Changed() <-chan struct{} { return m.bell }

// drive runs a driver inside a synctest bubble until the test function returns.
func drive(t *testing.T, e Engine, cfg DriverConfig, dbs []Database, test func(*Driver)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		for _, db := range dbs {
			db.(*memory).bell = make(chan struct{}, 1) // channels belong to the bubble
		}
		d := NewDriver(cfg, e, dbs...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = d.Run(ctx) }()
		synctest.Wait()
		test(d)
		cancel()
		<-done
	})
}

// TestBurstIsOneStep: what comes together is one step, after the whole window at the
// start and when the driver has just written, at once when it has rested.
func TestBurstIsOneStep(t *testing.T) {
	s := &script{answer: func(events []engine.Event) engine.Ready {
		if len(events) == 101 {
			return engine.Ready{Txns: []engine.Txn{{DB: rows.NB, ID: 1}}}
		}
		return engine.Ready{}
	}}
	nb := newMemory(rows.NB)
	const window = 10 * time.Millisecond
	drive(t, s, DriverConfig{Window: window}, []Database{nb}, func(d *Driver) {
		nb.answer = make(chan engine.Result) // never: an answer would end the window
		for range 2 {
			before := len(s.taken())
			for range 100 {
				d.Sink().Put(aSwitch("x"))
			}
			<-time.After(window - 100*time.Microsecond)
			synctest.Wait()
			if len(s.taken()) != before {
				t.Fatalf("stepped inside the window of %s", window)
			}
			<-time.After(200 * time.Microsecond)
			synctest.Wait()
			if steps := s.taken(); len(steps) != before+1 || len(steps[before]) != 101 {
				t.Fatalf("%d steps, the last of %d events; wanted one of 100 and the tick", len(steps)-before, len(steps[len(steps)-1]))
			}
		}
		<-time.After(2 * window)
		before := len(s.taken())
		d.Sink().Put(aSwitch("x"))
		synctest.Wait() // no time passes
		if n := len(s.taken()); n != before+1 {
			t.Fatalf("%d steps at once for what comes alone, wanted 1", n-before)
		}
	})
}

func TestWaiterEndsTheWindow(t *testing.T) {
	s := &script{marked: true}
	drive(t, s, DriverConfig{Window: time.Hour}, nil, func(d *Driver) {
		d.Sink().Put(aSwitch("x"))
		if err := d.Wait(context.Background(), "switch/x", Committed); err != nil {
			t.Fatal(err)
		}
		steps := s.taken()
		if last := steps[len(steps)-1]; len(last) != 2 || last[1].Put == nil {
			t.Fatalf("the waiter was answered without the Put before it: %+v", last)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	s := &script{}
	drive(t, s, DriverConfig{}, nil, func(d *Driver) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := d.Wait(ctx, "g", Installed); err == nil {
			t.Fatal("returned without the mark")
		}
		if err := d.Do(context.Background(), func() {
			if len(d.waiters) != 0 {
				t.Error("the waiter is still there")
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWakeComesAtItsTick(t *testing.T) {
	s := &script{}
	s.answer = func(events []engine.Event) engine.Ready {
		if tick := events[0].Tick; tick < 5000 {
			return engine.Ready{Wake: 5000}
		}
		return engine.Ready{}
	}
	drive(t, s, DriverConfig{}, nil, func(*Driver) {
		n := len(s.taken())
		<-time.After(6 * time.Second)
		synctest.Wait()
		steps := s.taken()
		if got := len(steps) - n; got != 1 && got != 2 {
			t.Fatalf("%d steps in six seconds, wanted the one that was asked for", got)
		}
		if tick := steps[len(steps)-1][0].Tick; tick < 5000 || tick > 5010 {
			t.Fatalf("woken at %d, wanted 5000", tick)
		}
	})
}

func TestOneDatabaseDoesNotBlockAnother(t *testing.T) {
	s := &script{}
	slow, fast := newMemory(rows.NB), newMemory(rows.OVS)
	sent := map[rows.DB]uint64{}
	s.answer = func(events []engine.Event) (r engine.Ready) {
		for _, ev := range events {
			switch {
			case ev.Snapshot != nil:
				sent[ev.Snapshot.DB]++
				r.Txns = append(r.Txns, engine.Txn{DB: ev.Snapshot.DB, ID: sent[ev.Snapshot.DB]})
			case ev.Result != nil && sent[ev.Result.DB] < 5:
				sent[ev.Result.DB]++
				r.Txns = append(r.Txns, engine.Txn{DB: ev.Result.DB, ID: sent[ev.Result.DB]})
			}
		}
		return r
	}
	synctest.Test(t, func(t *testing.T) {
		slow.answer = make(chan engine.Result)
		slow.bell, fast.bell = make(chan struct{}, 1), make(chan struct{}, 1)
		d := NewDriver(DriverConfig{}, s, slow, fast)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = d.Run(ctx) }()
		synctest.Wait()
		cancel()
		<-done
		if slow.applied != 1 || fast.applied != 5 {
			t.Errorf("slow got %d, fast %d; wanted 1 and 5", slow.applied, fast.applied)
		}
	})
}

func TestNewEpochIsDownThenSnapshot(t *testing.T) {
	s, m := &script{}, newMemory(rows.NB)
	drive(t, s, DriverConfig{}, []Database{m}, func(*Driver) {
		n := len(s.taken())
		m.mu.Lock()
		m.state.Epoch = 2
		m.mu.Unlock()
		m.bell <- struct{}{}
		synctest.Wait()
		var got []string
		for _, step := range s.taken()[n:] {
			for _, ev := range step {
				switch {
				case ev.Down != "":
					got = append(got, "down")
				case ev.Snapshot != nil:
					got = append(got, "snapshot")
				}
			}
		}
		if !slices.Equal(got, []string{"down", "snapshot"}) {
			t.Fatalf("the engine was told %v", got)
		}
	})
}
