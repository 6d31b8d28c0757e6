package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// TxnStats are the figures of one Apply.
type TxnStats struct {
	DB       rows.DB
	Groups   int
	Ops      int // operations sent, with those of tries that failed
	Tries    int // transact calls: 1 unless the transaction was bisected
	Failed   int // groups
	Lost     bool
	Duration time.Duration
}

// outcome is how one transact call ended.
type outcome struct {
	err    error             // the call itself failed: not known what happened
	refuse *refusal          // the server refused it: nothing happened
	zero   map[string]string // groups of operations that counted no row
}

// refusal is a transaction's error.
type refusal struct {
	code    string
	details string
}

// applier carries one Txn through its tries.
type applier struct {
	c     *Conn
	ctx   context.Context
	rpc   *rpc
	txn   engine.Txn
	res   engine.Result
	stats TxnStats
}

// Apply writes one transaction. If the server refuses it, it is bisected at the
// groups' borders, so that only the groups at fault fail. It never waits for a
// connection: without one, or before its Snapshot, every group fails with IO.
// One Apply at a time.
func (c *Conn) Apply(ctx context.Context, txn engine.Txn) engine.Result {
	began := time.Now()
	a := &applier{c: c, ctx: ctx, txn: txn, res: engine.Result{DB: txn.DB, Txn: txn.ID, Failed: map[string]engine.Failure{}}}
	a.stats = TxnStats{DB: txn.DB, Groups: len(txn.Groups)}
	c.mu.Lock()
	st, read := c.state, c.readEpoch
	a.rpc = c.rpc
	ready := st.Up && st.Epoch == read && txn.DB == c.cfg.DB
	c.writing = ready
	c.mu.Unlock()
	if ready {
		a.run()
		c.mu.Lock()
		c.writing = false
		c.mu.Unlock()
	} else {
		reason := "not connected: " + st.Err
		if st.Up {
			reason = "connected anew: a snapshot must come first"
		}
		a.fail(txn.Groups, engine.IO, reason)
	}
	a.stats.Failed, a.stats.Lost, a.stats.Duration = len(a.res.Failed), a.res.Lost, time.Since(began)
	if c.cfg.Observe != nil {
		c.cfg.Observe(a.stats)
	}
	return a.res
}

func (a *applier) fail(groups []engine.GroupOps, class engine.Class, reason string) {
	for _, g := range groups {
		a.res.Failed[g.Group] = engine.Failure{Class: class, Err: reason}
	}
}

// run writes the whole, or its parts. What failed only because it was tried
// apart from another part (a unique name changing hands) is tried again, as
// long as that helps.
func (a *applier) run() {
	left := a.write(a.txn.Groups)
	for len(left) > 0 && len(left) < len(a.txn.Groups) && !a.res.Lost {
		retry := left
		for _, g := range retry {
			if a.res.Failed[g.Group].Class != engine.Constraint {
				return
			}
		}
		if len(retry) == 1 && a.stats.Tries > 1 {
			return // it was tried alone; only parts before it have been written since
		}
		left = a.write(retry)
		if len(left) == len(retry) {
			return
		}
	}
}

// write tries groups together, then by halves; it returns those refused.
func (a *applier) write(groups []engine.GroupOps) []engine.GroupOps {
	if a.res.Lost || len(groups) == 0 {
		return nil
	}
	o := a.try(groups)
	switch {
	case o.err != nil:
		a.res.Lost = true
		return nil
	case o.refuse == nil:
		for _, g := range groups {
			delete(a.res.Failed, g.Group)
		}
		for g, why := range o.zero {
			a.res.Failed[g] = engine.Failure{Class: engine.Vanished, Err: why}
		}
		return nil
	case o.refuse.class() == engine.IO:
		a.fail(groups, engine.IO, o.refuse.String())
		return nil
	case len(groups) == 1:
		a.fail(groups, engine.Constraint, a.c.explain(a.ctx, a.rpc, groups[0], *o.refuse))
		return groups
	}
	half := border(groups)
	if half == 0 { // they need each other: all stand or fall with the one at fault
		a.fail(groups, engine.Constraint, o.refuse.String())
		return groups
	}
	refused := a.write(groups[:half])
	rest, hanging := a.possible(groups[half:], refused)
	return slices.Concat(refused, hanging, a.write(rest))
}

// border is where to bisect: near the middle, and not between groups that need
// each other; 0: nowhere.
func border(groups []engine.GroupOps) int {
	parts := engine.Parts(groups)
	return len(slices.Concat(parts[:len(parts)/2]...))
}

// possible parts groups from those that hang on rows of refused groups: a mutate
// of a row that was not inserted would count nothing, and its children be lost.
func (a *applier) possible(groups, refused []engine.GroupOps) (rest, hanging []engine.GroupOps) {
	missing := map[rows.Ref]bool{}
	note := func(g engine.GroupOps) {
		for _, op := range g.Ops {
			if op.Kind == engine.Insert {
				missing[op.Row.Ref] = true
			}
		}
	}
	for _, g := range refused {
		note(g)
	}
	// A name's user, or a name's deletion under one: no refusal would tell.
	engine.Withhold(engine.Parts(groups), a.res.Failed)
	for _, g := range groups {
		if a.res.Failed[g.Group].Class == engine.Withheld {
			note(g)
			hanging = append(hanging, g)
			continue
		}
		ref := hangsOn(g, missing)
		if ref.IsZero() {
			rest = append(rest, g)
			continue
		}
		note(g)
		hanging = append(hanging, g)
		a.fail([]engine.GroupOps{g}, engine.Constraint, "needs "+ref.String()+", which was refused")
	}
	return rest, hanging
}

// hangsOn finds a row among missing that the group's operations refer to.
func hangsOn(g engine.GroupOps, missing map[rows.Ref]bool) rows.Ref {
	for _, op := range g.Ops {
		refs := []rows.Ref{op.Row.Parent.Row, op.Edge.Row, op.Edge.Key.Ref, op.Edge.Value.Ref}
		for _, c := range op.Row.Columns {
			for _, p := range c.Value {
				refs = append(refs, p.Key.Ref, p.Value.Ref)
			}
		}
		for _, ref := range refs {
			if missing[ref] && ref != op.Row.Ref {
				return ref
			}
		}
	}
	return rows.Ref{}
}

// try sends one transaction.
func (a *applier) try(groups []engine.GroupOps) outcome {
	lock := ""
	if a.c.cfg.Lock {
		lock = LockName
	}
	steps := encode(groups, a.c.cfg.Zone, lock, a.txn.NbCfg)
	a.stats.Tries++
	a.stats.Ops += len(steps)
	params := make([]any, 0, len(steps)+1)
	params = append(params, databaseName(a.txn.DB))
	for _, s := range steps {
		params = append(params, s.operation)
	}
	var raw []json.RawMessage
	err := a.rpc.call(a.ctx, "transact", params, &raw)
	var reply *rpcError
	switch {
	case errors.As(err, &reply):
		return outcome{refuse: &refusal{code: "refused", details: reply.Error()}}
	case err != nil:
		return outcome{err: err}
	}
	return read(steps, raw)
}

// read checks the results against the operations.
func read(steps []step, raw []json.RawMessage) outcome {
	o := outcome{zero: map[string]string{}}
	if len(raw) < len(steps) {
		return outcome{err: fmt.Errorf("%d results for %d operations", len(raw), len(steps))}
	}
	for i, text := range raw {
		var r result
		if err := json.Unmarshal(text, &r); err != nil {
			return outcome{err: fmt.Errorf("result %d: %w", i, err)}
		}
		if r.Error != "" {
			return outcome{refuse: &refusal{code: r.Error, details: r.Details}}
		}
		if i < len(steps) && steps[i].count && r.Count != 1 {
			for _, g := range steps[i].groups {
				o.zero[g] = fmt.Sprintf("%s in %s counted %d rows, wanted 1: %s", steps[i].Op, steps[i].Table, r.Count, whereText(steps[i]))
			}
		}
	}
	return o
}

func whereText(s step) string {
	text, err := json.Marshal(s.Where)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
