package engine

import (
	"cmp"
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// settle takes out groups that lack something, and of those that want one unique
// name all but the first, until nothing is left to take out.
func (p *planner) settle() {
	p.lost = map[string]string{}
	for {
		p.names = map[rows.Name]string{}
		for _, g := range p.in {
			p.offer(g)
		}
		if !p.settleTargets() && !p.settleNames() && !p.settleDoomed() {
			return
		}
	}
}

// settleTargets takes out groups that lack something. Taking one out may take
// another's target away, or leave a name to a group that was taken out for it.
func (p *planner) settleTargets() bool {
	removed := false
	for _, name := range slices.Sorted(maps.Keys(p.in)) {
		g := p.in[name]
		p.needs[name] = map[string]struct{}{}
		delete(p.doomed, name)
		waits := p.missing(g)
		if len(waits) == 0 {
			continue
		}
		p.l.park(g, waits, p.now)
		delete(p.in, name)
		removed = true
		for loser, winner := range p.lost {
			if winner == name {
				delete(p.lost, loser)
				p.l.unpark(p.l.groups[loser])
				p.in[loser] = p.l.groups[loser]
			}
		}
	}
	return removed
}

// settleDoomed takes out groups whose targets go in this transaction, and only
// once it is known that they do.
func (p *planner) settleDoomed() bool {
	removed := false
	for name := range p.doomed {
		if p.in[name] != nil {
			delete(p.in, name)
			removed, p.deferred = true, true
		}
	}
	return removed
}

// dooms reports whether a committed row goes with its parent in this transaction.
func (p *planner) dooms(s *rowState) bool {
	parent := s.have.Parent.Row
	if parent.IsZero() {
		return false
	}
	ps := p.l.rows[parent]
	if !p.goes(parent) && (ps == nil || ps.have == nil || !p.dooms(ps)) {
		return false
	}
	want := s.want()
	return want == nil || want.Parent.Row == parent || p.in[s.group] == nil
}

// settleNames takes out groups whose rows want a unique name that a row of an
// earlier unit of this transaction wants too.
func (p *planner) settleNames() bool {
	first := map[string]*rowState{}
	clash := map[string]bool{} // unique values that more than one row wants
	for _, g := range p.in {
		for ref := range g.rows {
			s := p.l.rows[ref]
			for _, k := range s.claims() {
				o := first[k]
				if o != nil {
					clash[k] = true
				}
				if o == nil || s.before(o) {
					first[k] = s
				}
			}
		}
	}
	if len(clash) == 0 {
		return false
	}
	removed := false
	for _, name := range slices.Sorted(maps.Keys(p.in)) {
		var waits []string
		for ref := range p.in[name].rows {
			s := p.l.rows[ref]
			for _, k := range s.claims() {
				if o := first[k]; o != s {
					waits = append(waits, heldBy+o.want().Ref.String())
					p.lost[name] = o.group
				}
			}
		}
		if len(waits) > 0 {
			slices.Sort(waits)
			p.l.park(p.in[name], slices.Compact(waits), p.now)
			delete(p.in, name)
			removed = true
		}
	}
	return removed
}

// claims are the unique values that the row is to take on.
func (s *rowState) claims() []string {
	want := s.want()
	if want == nil {
		return nil
	}
	keys := uniqueKeys(want)
	if s.have == nil || len(keys) == 0 {
		return keys
	}
	held := uniqueKeys(s.have)
	return slices.DeleteFunc(keys, func(k string) bool { return slices.Contains(held, k) })
}

// before orders wanted rows by their unit, then ref.
func (s *rowState) before(o *rowState) bool {
	a, b := s.by[0], o.by[0]
	return cmp.Or(a.unit.compare(b.unit), a.row.Ref.Compare(b.row.Ref)) < 0
}
