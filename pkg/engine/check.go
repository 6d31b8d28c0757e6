package engine

import (
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

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
			c.wait(want.Ref.String() + heldByStranger + who)
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
	case c.p.dooms(s):
		c.p.doomed[c.g.name] = true
	case s.want().Parent != s.have.Parent:
		c.via(s.group) // it may have to leave its parent in time
	}
}

// name checks that a name is provided by a row that is there, and stays.
func (c *check) name(n rows.Name) {
	if ref, ok := c.p.l.have.names[n]; ok {
		s := c.p.l.rows[ref]
		if m, ok := provides(s.want()); ok && m == n {
			if c.p.dooms(s) {
				c.p.doomed[c.g.name] = true
			}
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
		if s := c.p.l.edges[slot]; col.Strong && s != nil && (len(s.by) > 0 || !c.via(s.lastGroup())) {
			c.wait(releasedBy + slot.Row.String())
		}
	}
	if n, ok := have.Provides(); ok {
		c.users(n)
	}
}

// users checks that no row that stays uses a name that goes, unless another row
// takes the name over in this transaction.
func (c *check) users(n rows.Name) {
	if g, ok := c.p.names[n]; ok && c.via(g) {
		return
	}
	before := len(c.waits)
	defer func() {
		if len(c.waits) > before {
			c.wait(takeoverOf + n.String())
		}
	}()
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
