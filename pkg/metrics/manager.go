package metrics

import "github.com/prometheus/client_golang/prometheus"

// Manager counts what the allocating process knows and does.
type Manager struct {
	nodes, noID, noSubnet, conflicts, leader, problems, told prometheus.Gauge
	writes                                                   *prometheus.CounterVec
}

// NewManager adds the figures of portolan-manager.
func NewManager(s *Set) *Manager {
	return &Manager{
		nodes:     s.gauge("nodes", "Nodes known to the leader."),
		noID:      s.gauge("node_ids_exhausted", "Nodes without an id because none is free."),
		noSubnet:  s.gauge("node_subnets_exhausted", "Nodes without a subnet of some family because none is free."),
		conflicts: s.gauge("node_conflicts", "Nodes whose annotated id or subnet is another node's or outside the plan."),
		leader:    s.gauge("leader", "1 while this process allocates."),
		problems:  s.gauge("objects_with_problems", "Objects that something is wrong with, whoever has found it."),
		told:      s.gauge("event_writes", "Events created and renewed since this process leads."),
		writes:    s.counterVec("node_writes_total", "Patches of nodes by result.", "result"),
	}
}

// Allocation is what an allocator has come to, in nodes.
type Allocation struct {
	Nodes, WithoutID, WithoutSubnet, Conflicts int
}

// Show sets the gauges.
func (m *Manager) Show(a Allocation) {
	m.nodes.Set(float64(a.Nodes))
	m.noID.Set(float64(a.WithoutID))
	m.noSubnet.Set(float64(a.WithoutSubnet))
	m.conflicts.Set(float64(a.Conflicts))
}

// Lead says whether this process allocates.
func (m *Manager) Lead(leads bool) {
	m.leader.Set(0)
	if leads {
		m.leader.Set(1)
	}
}

// Write counts one patch of a node.
func (m *Manager) Write(result string) { m.writes.WithLabelValues(result).Inc() }

// ShowTold says of how many objects something is wrong, and how many Events were written.
func (m *Manager) ShowTold(objects int, writes uint64) {
	m.problems.Set(float64(objects))
	m.told.Set(float64(writes))
}
