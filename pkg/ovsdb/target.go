package ovsdb

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
)

// target is one database as the Driver sees it. The loop owns the fields but
// for the atomic ones; two goroutines serve it: work carries out jobs one after the other,
// listen turns the doorbell and the clock into items.
type target struct {
	db   Database
	jobs chan job
	sent atomic.Int64 // the last NbCfg handed to the database
	due  atomic.Bool  // the periodic check

	epoch   uint64
	live    bool // the engine has a snapshot and has not been told Down since
	stale   bool // a snapshot is wanted
	reading bool // a snapshot is being taken
	busy    bool // a transaction is under way
	drift   uint64
	left    uint64
	hvCfg   int64
}

// job is a transaction, or a snapshot when txn is nil.
type job struct{ txn *engine.Txn }

// The pace of taking a snapshot again that failed, and of looking at hv_cfg
// while something waits for it.
const (
	reread  = 200 * time.Millisecond
	refresh = time.Second
)

func newTarget(db Database) *target {
	// One transaction and one snapshot can be waiting: the loop never blocks.
	return &target{db: db, jobs: make(chan job, 2), stale: true}
}

// news compares the database's state with what the engine has been told.
func (t *target) news() []engine.Event {
	var events []engine.Event
	st := t.db.State()
	if st.Epoch != t.epoch || !st.Up {
		t.epoch = st.Epoch
		if t.live {
			t.live, t.stale = false, true
			events = append(events, engine.Event{Down: t.db.DB()})
		}
	}
	if !t.busy && t.live && (t.due.Swap(false) || st.Drift != t.drift) {
		t.drift = st.Drift
		t.live, t.stale = false, true
		events = append(events, engine.Event{Down: t.db.DB()}) // write nothing that rests on what may be gone
	}
	if st.HvCfg != t.hvCfg {
		t.hvCfg = st.HvCfg
		if st.HvCfg != 0 {
			events = append(events, engine.Event{Installed: st.HvCfg})
		}
	}
	return events
}

// write hands a transaction to the worker. The engine has one under way at most.
func (t *target) write(txn engine.Txn) {
	t.busy = true
	if txn.NbCfg != 0 {
		t.sent.Store(txn.NbCfg)
	}
	t.jobs <- job{txn: &txn}
}

// reread starts a snapshot if one is wanted.
func (t *target) reread(ctx context.Context) {
	if !t.stale || t.reading || ctx.Err() != nil {
		return
	}
	t.stale, t.reading = false, true
	t.jobs <- job{}
}

// read notes that a snapshot has come.
func (t *target) read() {
	t.reading = false
	t.live = true
}

// work carries out jobs in order until ctx ends.
func (t *target) work(ctx context.Context, d *Driver) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-t.jobs:
			if j.txn != nil {
				res := t.db.Apply(ctx, *j.txn)
				d.q.push(item{event: engine.Event{Result: &res}, urgent: true})
				continue
			}
			snap, ok := t.snapshot(ctx, d)
			if !ok {
				return
			}
			d.q.push(item{event: engine.Event{Snapshot: &snap}, urgent: true})
		}
	}
}

// snapshot takes one, however often the connection breaks meanwhile.
func (t *target) snapshot(ctx context.Context, d *Driver) (engine.Snapshot, bool) {
	for {
		s, err := t.db.Snapshot(ctx)
		if err == nil {
			return s, true
		}
		if ctx.Err() != nil {
			return s, false
		}
		d.log.Warn("database not read", "db", string(t.db.DB()), "err", err)
		again := time.NewTimer(reread)
		select {
		case <-ctx.Done():
			again.Stop()
			return s, false
		case <-again.C:
		}
	}
}

// listen posts an item whenever the database's state may have news, looks at
// hv_cfg itself once a second while it lags, and asks for the periodic check.
func (t *target) listen(ctx context.Context, d *Driver) {
	lag := time.NewTicker(refresh)
	defer lag.Stop()
	check := time.NewTicker(d.cfg.Check)
	defer check.Stop()
	nothing := func() {}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.db.Changed():
			d.q.push(item{call: nothing, urgent: true})
		case <-check.C:
			t.due.Store(true)
			d.q.push(item{call: nothing, urgent: true})
		case <-lag.C:
			if t.db.State().HvCfg >= t.sent.Load() {
				continue
			}
			bounded, cancel := context.WithTimeout(ctx, refresh)
			err := t.db.Refresh(bounded)
			cancel()
			if err != nil && ctx.Err() == nil {
				d.log.Debug("hv_cfg not read", "db", string(t.db.DB()), "err", err)
			}
		}
	}
}
