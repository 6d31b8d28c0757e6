package engine

import (
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// flight is the transaction under way.
type flight struct {
	id     uint64
	cfg    int64
	groups map[string]*written
}

// written is what a group's commit makes true, its silent consequences included.
type written struct {
	rows  []rowWrite
	edges []edgeWrite
}

type rowWrite struct {
	ref    rows.Ref
	row    *rows.Row // nil: gone
	holder string
}

type edgeWrite struct {
	slot  rows.Edge
	have  bool
	value rows.Atom
}

func (f *flight) carries(group string) bool {
	if f == nil {
		return false
	}
	_, ok := f.groups[group]
	return ok
}

// plan chooses the groups that can be written now and makes one transaction of
// them. It parks those whose targets are missing. False: nothing to write.
func (l *ledger) plan(now int64, maxOps int) (Txn, bool) {
	if !l.live || l.flight != nil {
		return Txn{}, false
	}
	for {
		p := &planner{l: l, now: now, in: map[string]*group{}, needs: map[string]map[string]struct{}{}, doomed: map[string]bool{}}
		txn, ok := p.plan(now, maxOps)
		if ok || !p.deferred {
			return txn, ok
		}
	}
}

func (p *planner) plan(now int64, maxOps int) (Txn, bool) {
	l := p.l
	for name, g := range l.ready {
		switch {
		case l.groups[name] != g || !g.pending() || len(g.parked) > 0:
			delete(l.ready, name)
		case g.retry <= now:
			p.in[name] = g
		}
	}
	if len(l.ready) == 0 {
		l.ready = map[string]*group{} // one that was large stays slow to walk through
	}
	if len(p.in) == 0 {
		return Txn{}, false
	}
	p.settle()
	txn := Txn{DB: l.db}
	l.flight = &flight{groups: map[string]*written{}}
	chosen := p.order(maxOps)
	p.cut(chosen)
	for _, part := range chosen {
		tied := false
		for _, name := range part {
			ops, w := p.write(p.in[name])
			l.flight.groups[name] = w
			if len(ops) > 0 {
				txn.Groups = append(txn.Groups, GroupOps{Group: name, Ops: ops, Needs: slices.Sorted(maps.Keys(p.needs[name])), Tied: tied})
				tied = true
			}
		}
	}
	if len(txn.Groups) == 0 {
		l.land(nil) // the database has done by itself what was pending
		return Txn{}, false
	}
	if l.db == rows.NB {
		l.nbCfg++
		txn.NbCfg, l.flight.cfg = l.nbCfg, l.nbCfg
	}
	return txn, true
}

// What a group may wait for besides a row or a name that comes.
const (
	heldBy         = "a unique name held by "
	heldByStranger = " to have its name, held by " // after the row
	releasedBy     = "release by "
	takeoverOf     = "takeover of "
)

// planner decides one transaction. in shrinks until every group in it has what
// it needs, committed already or written by another group in it.
type planner struct {
	l     *ledger
	now   int64
	in    map[string]*group
	needs map[string]map[string]struct{} // group -> groups that must be in the same or an earlier transaction
	names map[rows.Name]string           // names that rows to be written provide -> their group
	lost  map[string]string              // group -> the group that has a unique name before it
	// doomed are groups with a target that this transaction takes along with its
	// parent: they wait for the next one. deferred tells that there are any.
	doomed   map[string]bool
	deferred bool
}

func (p *planner) offer(g *group) {
	for ref := range g.rows {
		if n, ok := provides(p.l.rows[ref].want()); ok {
			p.names[n] = g.name
		}
	}
}

// cut leaves only the chosen groups in the transaction.
func (p *planner) cut(chosen [][]string) {
	keep := make(map[string]*group, len(chosen))
	for _, part := range chosen {
		for _, name := range part {
			keep[name] = p.in[name]
		}
	}
	p.in = keep
}

// ranked sorts the groups for the case that the batch must be cut: what only
// adds comes before what also changes, and removals come last.
func (p *planner) ranked() []string {
	rank := map[string]int{}
	for name, g := range p.in {
		for ref := range g.rows {
			switch s := p.l.rows[ref]; {
			case s.want() == nil:
				rank[name] = max(rank[name], 2)
			case s.have != nil:
				rank[name] = max(rank[name], 1)
			}
		}
		for slot := range g.edges {
			if len(p.l.edges[slot].by) == 0 {
				rank[name] = max(rank[name], 1)
			}
		}
	}
	names := slices.Sorted(maps.Keys(p.in))
	slices.SortStableFunc(names, func(a, b string) int { return rank[a] - rank[b] })
	return names
}
