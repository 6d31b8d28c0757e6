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
	p := &planner{l: l, in: map[string]*group{}, needs: map[string]map[string]struct{}{}, names: map[rows.Name]string{}}
	for name, g := range l.groups {
		if g.pending() && len(g.parked) == 0 && g.retry <= now {
			p.in[name] = g
			p.offer(g)
		}
	}
	if len(p.in) == 0 {
		return Txn{}, false
	}
	p.settle()
	txn := Txn{DB: l.db}
	l.flight = &flight{groups: map[string]*written{}}
	chosen := p.order(maxOps)
	p.cut(chosen)
	for _, name := range chosen {
		ops, w := p.write(p.in[name])
		l.flight.groups[name] = w
		if len(ops) > 0 {
			txn.Groups = append(txn.Groups, GroupOps{name, ops})
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
	heldBy     = "a unique name held by "
	releasedBy = "release by "
)

// planner decides one transaction. in shrinks until every group in it has what
// it needs, committed already or written by another group in it.
type planner struct {
	l     *ledger
	in    map[string]*group
	needs map[string]map[string]struct{} // group -> groups that must be in the same or an earlier transaction
	names map[rows.Name]string           // names that rows to be written provide -> their group
}

func (p *planner) offer(g *group) {
	for ref := range g.rows {
		if n, ok := provides(p.l.rows[ref].want()); ok {
			p.names[n] = g.name
		}
	}
}

// cut leaves only the chosen groups in the transaction.
func (p *planner) cut(chosen []string) {
	keep := make(map[string]*group, len(chosen))
	for _, name := range chosen {
		keep[name] = p.in[name]
	}
	p.in = keep
}

// settle takes out groups that lack something, until none does: taking one out
// may take another's target away.
func (p *planner) settle() {
	for {
		removed := false
		for _, name := range slices.Sorted(maps.Keys(p.in)) {
			g := p.in[name]
			p.needs[name] = map[string]struct{}{}
			if waits := p.missing(g); len(waits) > 0 {
				p.l.park(g, waits)
				delete(p.in, name)
				removed = true
			}
		}
		if !removed {
			return
		}
	}
}

// missing lists what g needs and neither the database nor this transaction has.
func (p *planner) missing(g *group) []string {
	c := check{p: p, g: g}
	for ref := range g.rows {
		s := p.l.rows[ref]
		if want := s.want(); want != nil {
			c.row(s, want)
		} else {
			c.deletion(s.have)
		}
	}
	for slot := range g.edges {
		if _, wants := p.l.edges[slot].wants(); wants {
			c.edge(slot)
		}
	}
	slices.Sort(c.waits)
	return slices.Compact(c.waits)
}

// check gathers what one group's changes need.
type check struct {
	p     *planner
	g     *group
	waits []string
}

func (c *check) wait(what string) { c.waits = append(c.waits, what) }

// via notes that another group of this transaction provides something. It
// reports whether that group is in.
func (c *check) via(group string) bool {
	if _, in := c.p.in[group]; !in {
		return false
	}
	if group != c.g.name {
		c.p.needs[c.g.name][group] = struct{}{}
	}
	return true
}

// row checks a row that is to be inserted or updated.
func (c *check) row(s *rowState, want *rows.Row) {
	if !want.Parent.Row.IsZero() {
		c.target(want.Parent.Row)
	}
	eachReference(want, func(target rows.Ref, _ bool) { c.target(target) })
	for _, n := range want.Uses {
		c.name(n)
	}
	for _, k := range uniqueKeys(want) {
		if who, ok := c.p.l.strangers[k]; ok {
			c.wait(want.Ref.String() + " to have its name, held by " + who)
		}
		if holder, ok := c.p.l.have.unique[k]; ok && holder != want.Ref && !c.leaves(holder, k) {
			c.wait(heldBy + holder.String())
		}
	}
	if n, ok := provides(s.have); ok {
		if m, still := want.Provides(); !still || m != n {
			c.users(n)
		}
	}
}

// leaves reports whether this transaction takes a unique value from its holder.
func (c *check) leaves(holder rows.Ref, key string) bool {
	s := c.p.l.rows[holder]
	if s == nil || s.settled() {
		return false
	}
	if want := s.want(); want != nil && slices.Contains(uniqueKeys(want), key) {
		return false
	}
	return c.via(s.group)
}

// target checks that a row is there, and stays.
func (c *check) target(ref rows.Ref) {
	if ref.ID == rows.Singleton {
		return
	}
	s := c.p.l.rows[ref]
	switch {
	case s == nil || s.want() == nil:
		c.wait(ref.String())
	case s.have == nil || s.uuid != "":
		if !c.via(s.group) {
			c.wait(ref.String())
		}
	}
}

// name checks that a name is provided by a row that is there, and stays.
func (c *check) name(n rows.Name) {
	if ref, ok := c.p.l.have.names[n]; ok {
		s := c.p.l.rows[ref]
		if m, ok := provides(s.want()); ok && m == n {
			return
		}
	}
	if g, ok := c.p.names[n]; ok && c.via(g) {
		return
	}
	c.wait(n.String())
}

// deletion checks that nothing that stays needs the row.
func (c *check) deletion(have *rows.Row) {
	for holder, strong := range c.p.l.have.pointers[have.Ref] {
		if strong && holder != have.Ref {
			c.release(holder, func(want *rows.Row) bool { return pointsAt(want, have.Ref) })
		}
	}
	for slot := range c.p.l.have.edgesTo[have.Ref] {
		schema, _ := rows.SchemaOf(slot.Row.Table)
		col, _ := schema.Column(slot.Column)
		if s := c.p.l.edges[slot]; col.Strong && s != nil && (len(s.by) > 0 || !c.via(s.group)) {
			c.wait(releasedBy + slot.Row.String())
		}
	}
	if n, ok := have.Provides(); ok {
		c.users(n)
	}
}

// users checks that no row that stays uses a name that goes.
func (c *check) users(n rows.Name) {
	for user := range c.p.l.have.users[n] {
		c.release(user, func(want *rows.Row) bool { return slices.Contains(want.Uses, n) })
	}
}

// release checks that a holder lets go in this transaction.
func (c *check) release(holder rows.Ref, still func(*rows.Row) bool) {
	s := c.p.l.rows[holder]
	if s == nil {
		return
	}
	if want := s.want(); want != nil && still(want) {
		c.wait(releasedBy + holder.String())
		return
	}
	if !s.settled() && !c.via(s.group) {
		c.wait(releasedBy + holder.String())
	}
}

// edge checks that an edge's row and its target are there.
func (c *check) edge(slot rows.Edge) {
	c.target(slot.Row)
	if slot.Key.Kind == rows.Reference {
		c.target(slot.Key.Ref)
	}
}

// order lists the chosen groups, each after those it needs, and cuts the list
// at a border once maxOps changes are in it.
func (p *planner) order(maxOps int) []string {
	var out []string
	seen := map[string]bool{}
	count := 0
	var visit func(name string)
	visit = func(name string) {
		if seen[name] || p.in[name] == nil {
			return
		}
		seen[name] = true
		for _, need := range slices.Sorted(maps.Keys(p.needs[name])) {
			visit(need)
		}
		count += len(p.in[name].rows) + len(p.in[name].edges)
		out = append(out, name)
	}
	for _, name := range p.ranked() {
		if count >= maxOps {
			break
		}
		visit(name)
	}
	return out
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

func provides(r *rows.Row) (rows.Name, bool) {
	if r == nil {
		return rows.Name{}, false
	}
	return r.Provides()
}

func pointsAt(r *rows.Row, target rows.Ref) bool {
	found := false
	eachReference(r, func(t rows.Ref, strong bool) { found = found || (strong && t == target) })
	return found
}
