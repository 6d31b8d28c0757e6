package soup

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/assign"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// manager is one life of a portolan-manager that leads.
type manager struct {
	world    *world
	assigner *assign.Assigner
	nodes    *watch
	cache    map[string]*corev1.Node
	dirty    map[string]bool
}

// lead begins a leader's life, after the one before has ended: a Lease sees to that.
func lead(w *world) (*manager, error) {
	a, err := assign.New([]string{"10.244.0.0/16/28"}, time.Now) // 12 pods a node: addresses come round
	if err != nil {
		return nil, err
	}
	m := &manager{world: w, assigner: a, cache: map[string]*corev1.Node{}, dirty: map[string]bool{}}
	m.nodes = &watch{
		api: w.api, kind: kube.Nodes, known: map[string]bool{},
		put:  func(c change) { m.cache[c.name], m.dirty[c.name] = c.node, true },
		drop: func(name string) { delete(m.cache, name); m.dirty[name] = true },
	}
	m.nodes.list()
	var left assign.Record
	runs := w.api.reports
	if w.opts.credulous {
		runs = nil
	}
	if !w.opts.forgetRests {
		left = w.api.record
	}
	m.assigner.TakeOver(slices.Collect(maps.Values(m.cache)), runs, left)
	return m, nil
}

// work reconciles n nodes, as portolan-manager's loop does, in order of name. 0 is all.
func (m *manager) work(n int) {
	for _, name := range slices.Sorted(maps.Keys(m.dirty)) {
		delete(m.dirty, name)
		if node := m.cache[name]; node == nil {
			m.assigner.Forget(name)
			m.world.api.record = m.assigner.Record()
			for _, other := range m.assigner.Troubled() {
				m.dirty[other] = true
			}
		} else if d := m.assigner.Assign(node); len(d.Annotations) > 0 {
			m.world.api.record = m.assigner.Record() // before the node; between the two a leader may end
			if m.world.dying {
				m.world.manager, m.world.dying = nil, false
				return
			}
			m.world.api.annotateNode(name, node.ResourceVersion, d.Annotations)
		}
		if n--; n == 0 {
			return
		}
	}
}
