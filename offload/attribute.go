package offload

import (
	"net/netip"
	"slices"
)

// entry is what is kept of a flow of one reading.
type entry struct {
	id             FlowID
	in             string
	recirc         uint32
	place          Place // its own
	packets, bytes uint64
	outputs        []string
	recircs        []uint32
	final          bool
	fresh          bool // it was not there at the reading before
	why            []Reason

	// What its text says, of one that is not in hardware; see judge.
	blocked, tracked []Reason
	ct, partial      bool
	tunnel           netip.Addr
}

// stage is where packets of a port are between two flows.
type stage struct {
	in     string
	recirc uint32
}

// farthest bounds the ports that are remembered of a stage: what goes to more is a
// flood, and belongs to nobody.
const farthest = 256

// table is a reading's flows, and how they hang together.
type table struct {
	entries []*entry
	at      map[stage][]*entry // the flows of a stage
	into    map[stage][]*entry // those that hand packets to it
	worst   map[stage]Place    // the slowest place on the way to a stage
	reach   map[stage][]string // the ports that packets of a stage may leave by
	busy    map[stage]bool     // is being worked out: a dump may be inconsistent
}

func newTable(entries []*entry) *table {
	t := &table{
		entries: entries, at: map[stage][]*entry{}, into: map[stage][]*entry{},
		worst: map[stage]Place{}, reach: map[stage][]string{}, busy: map[stage]bool{},
	}
	for _, e := range entries {
		s := stage{e.in, e.recirc}
		t.at[s] = append(t.at[s], e)
		for _, r := range e.recircs {
			next := stage{e.in, r}
			t.into[next] = append(t.into[next], e)
		}
	}
	return t
}

// before is the slowest place on the way to a stage. The dump of a stage's flow and of
// those before it is not of one moment: a stage that nothing leads to has none.
func (t *table) before(s stage) Place {
	if s.recirc == 0 || t.busy[s] {
		return Hardware
	}
	if p, ok := t.worst[s]; ok {
		return p
	}
	t.busy[s] = true
	p := Hardware
	for _, e := range t.into[s] {
		p = slower(p, slower(e.place, t.before(stage{e.in, e.recirc})))
	}
	delete(t.busy, s)
	t.worst[s] = p
	return p
}

// way is where a flow's packets are moved, all stages considered.
func (t *table) way(e *entry) Place { return slower(e.place, t.before(stage{e.in, e.recirc})) }

// earlier tells whether an earlier stage of a flow is not in TC.
func (t *table) earlier(e *entry) bool {
	return e.recirc != 0 && t.before(stage{e.in, e.recirc}).slowness() > TC.slowness()
}

// ports are those that a flow's packets may leave by in the end.
func (t *table) ports(e *entry) []string {
	if len(e.recircs) == 0 {
		return e.outputs
	}
	out := slices.Clone(e.outputs)
	for _, r := range e.recircs {
		out = union(out, t.from(stage{e.in, r}))
	}
	return out
}

func (t *table) from(s stage) []string {
	if t.busy[s] {
		return nil
	}
	if ports, ok := t.reach[s]; ok {
		return ports
	}
	t.busy[s] = true
	var out []string
	for _, e := range t.at[s] {
		out = union(out, t.ports(e))
	}
	delete(t.busy, s)
	t.reach[s] = out
	return out
}

// union adds what is not there yet, up to a bound.
func union(list, more []string) []string {
	for _, p := range more {
		if len(list) < farthest && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// attribution is what belongs to one interface.
type attribution struct {
	from, to Shares
	why      tally
}

// attribute gives flows to ports: by the port that packets come in by, and by the
// ports that they leave by in the end. Flows that packets meet on their way to others
// too, before they are told apart, count as flows of all of these.
func (t *table) attribute(ports map[string]bool) (total Shares, by map[string]*attribution) {
	by = make(map[string]*attribution, len(ports))
	for p := range ports {
		by[p] = &attribution{}
	}
	for _, e := range t.entries {
		t.count(&total, e)
		if a := by[e.in]; a != nil {
			t.count(&a.from, e)
			a.explain(e)
		}
		for _, p := range t.ports(e) {
			a := by[p]
			if a == nil || p == e.in {
				continue
			}
			t.count(&a.to, e)
			a.explain(e)
		}
	}
	return total, by
}

// count adds a flow to shares; its packets only where they end, each once.
func (t *table) count(s *Shares, e *entry) {
	s.At(e.place).Flows++
	if e.final {
		at := s.At(t.way(e))
		at.Packets += e.packets
		at.Bytes += e.bytes
	}
}

func (a *attribution) explain(e *entry) {
	for _, r := range e.why {
		a.why.add(r, e)
	}
}
