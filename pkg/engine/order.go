package engine

import (
	"maps"
	"slices"
)

// order lists the chosen groups in parts, each after those it needs, and cuts
// the list at a border once maxOps changes are in it. Groups of one part need
// each other (a unique name that changes hands), so they stand or fall together.
func (p *planner) order(maxOps int) [][]string {
	o := &ordering{p: p, seen: map[string]int{}, low: map[string]int{}, done: map[string]bool{}}
	for _, name := range p.ranked() {
		if o.count >= maxOps {
			break
		}
		if o.seen[name] == 0 {
			o.visit(name)
		}
	}
	return o.parts
}

// ordering finds the strongly connected components of groups and their needs, by
// Tarjan's algorithm (1972): it gives them with what is needed first.
type ordering struct {
	p         *planner
	seen, low map[string]int // in order of visiting, from 1
	stack     []string
	done      map[string]bool
	parts     [][]string
	count     int // changes in parts
}

func (o *ordering) visit(name string) {
	index := len(o.seen) + 1
	o.seen[name], o.low[name] = index, index
	o.stack = append(o.stack, name)
	for _, need := range slices.Sorted(maps.Keys(o.p.needs[name])) {
		switch {
		case o.p.in[need] == nil || o.done[need]:
		case o.seen[need] == 0:
			o.visit(need)
			o.low[name] = min(o.low[name], o.low[need])
		default:
			o.low[name] = min(o.low[name], o.seen[need])
		}
	}
	if o.low[name] != index {
		return
	}
	at := slices.Index(o.stack, name)
	part := slices.Clone(o.stack[at:])
	o.stack = o.stack[:at]
	slices.Sort(part)
	for _, member := range part {
		o.done[member] = true
		o.count += len(o.p.in[member].rows) + len(o.p.in[member].edges)
	}
	o.parts = append(o.parts, part)
}
