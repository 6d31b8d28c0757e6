package intent

import (
	"maps"
	"slices"
	"strings"
)

// join keeps, incrementally, which pods are in which sets.
//
//	pods ──labels──> label sets ─┐ interned: pods that look alike are matched once
//	                             ├─ matched by each selector's rarest positive
//	selectors ──────────────────┘ requirement; then the namespace decides
//
// A pod's change costs O(selectors that its labels may match in its namespace);
// a selector's O(label sets that carry its rarest pair, and their pods). Output
// is (pod, set, ±1) as Member objects, at settle.
type join struct {
	selectors map[string]*selector
	labelSets map[string]*labelSet
	pairs     map[string]map[*labelSet]struct{} // "k=v" and "k" of every label set
	probes    map[string]map[*selector]struct{} // the pairs or keys that find a selector
	scans     map[*selector]struct{}            // selectors without a positive requirement
	pods      map[string]*member
	byNS      map[string]map[*member]struct{}
	dirty     map[*member]struct{}
	gone      map[string]*member
	events    []joinEvent
}

type joinEvent struct {
	key    Key
	object Object // nil: the object is gone
}

type selector struct {
	Selector
	name   string
	users  int
	probes []string
	labels map[*labelSet]struct{} // label sets that the pod part matches
}

// labelSet is one distinct set of pod labels, with the selectors whose pod part
// it meets, by the namespace they are bound to ("" for namespace selectors).
type labelSet struct {
	text    string
	labels  map[string]string
	pods    map[*member]struct{}
	matched map[string]map[*selector]struct{}
}

type member struct {
	key, ns  string
	networks []string
	labels   *labelSet
	in       map[string]struct{} // names of the sets it is in
}

func newJoin() *join {
	return &join{
		selectors: map[string]*selector{}, labelSets: map[string]*labelSet{},
		pairs: map[string]map[*labelSet]struct{}{}, probes: map[string]map[*selector]struct{}{},
		scans: map[*selector]struct{}{}, pods: map[string]*member{}, byNS: map[string]map[*member]struct{}{},
		dirty: map[*member]struct{}{}, gone: map[string]*member{},
	}
}

// observe takes one object's change.
func (j *join) observe(old, o Object) {
	if u, ok := o.(Selecting); ok {
		for _, s := range u.Selectors() {
			j.acquire(s.Canonical())
		}
	}
	if u, ok := old.(Selecting); ok {
		for _, s := range u.Selectors() {
			j.release(s.Canonical())
		}
	}
	if p, ok := o.(*Pod); ok {
		j.putPod(p)
	} else if p, ok := old.(*Pod); ok {
		j.dropPod(p.Namespace + "/" + p.Name)
	}
	ns, ok := o.(*Namespace)
	if !ok {
		ns, ok = old.(*Namespace)
	}
	if ok {
		for m := range j.byNS[ns.Name] {
			j.dirty[m] = struct{}{}
		}
	}
}

func (j *join) acquire(s Selector) {
	name := s.String()
	sel := j.selectors[name]
	if sel != nil {
		sel.users++
		return
	}
	sel = &selector{Selector: s, name: name, users: 1, labels: map[*labelSet]struct{}{}}
	j.selectors[name] = sel
	j.events = append(j.events, joinEvent{Key{KindSet, name}, &Set{Selector: s, name: name}})
	sel.probes = j.rarest(s.Pods)
	if sel.probes == nil {
		j.scans[sel] = struct{}{}
		for _, ls := range j.labelSets {
			j.match(ls, sel)
		}
		return
	}
	for _, p := range sel.probes {
		add(j.probes, p, sel)
		for ls := range j.pairs[p] {
			j.match(ls, sel)
		}
	}
}

func (j *join) release(s Selector) {
	sel := j.selectors[s.String()]
	if sel.users--; sel.users > 0 {
		return
	}
	delete(j.selectors, sel.name)
	delete(j.scans, sel)
	for _, p := range sel.probes {
		drop(j.probes, p, sel)
	}
	for ls := range sel.labels {
		drop(ls.matched, sel.Namespace, sel)
		for m := range ls.pods {
			if _, in := m.in[sel.name]; in {
				j.dirty[m] = struct{}{}
			}
		}
	}
	j.events = append(j.events, joinEvent{key: Key{KindSet, sel.name}})
}

// rarest chooses the positive requirement that the fewest label sets carry, as
// the pairs ("k=v") or key ("k") to find it by; nil when there is none.
func (j *join) rarest(l Labels) []string {
	var best []string
	cost := -1 // label sets found by best; -1: nothing found yet
	for _, r := range l {
		var probes []string
		switch r.Op {
		case In:
			for _, v := range r.Values {
				probes = append(probes, r.Key+"="+v)
			}
		case Exists:
			probes = []string{r.Key}
		default:
			continue
		}
		n := 0
		for _, p := range probes {
			n += len(j.pairs[p])
		}
		if cost < 0 || n < cost {
			best, cost = probes, n
		}
	}
	return best
}

// match links a label set and a selector when the pod part holds.
func (j *join) match(ls *labelSet, sel *selector) {
	if !sel.Pods.Matches(ls.labels) {
		return
	}
	add(ls.matched, sel.Namespace, sel)
	sel.labels[ls] = struct{}{}
	for m := range ls.pods {
		if sel.Namespace == "" || sel.Namespace == m.ns {
			j.dirty[m] = struct{}{}
		}
	}
}

func (j *join) putPod(p *Pod) {
	key := p.Namespace + "/" + p.Name
	m := j.pods[key]
	if m == nil {
		m = j.gone[key]
		delete(j.gone, key)
		if m == nil {
			m = &member{key: key, ns: p.Namespace, in: map[string]struct{}{}}
		}
		j.pods[key] = m
		add(j.byNS, m.ns, m)
	}
	m.networks = m.networks[:0]
	for _, a := range p.Attachments {
		m.networks = append(m.networks, a.Network)
	}
	ls := j.intern(p.Labels)
	if m.labels != ls {
		j.leave(m)
		m.labels = ls
		ls.pods[m] = struct{}{}
	}
	j.dirty[m] = struct{}{}
}

func (j *join) dropPod(key string) {
	m := j.pods[key]
	delete(j.pods, key)
	drop(j.byNS, m.ns, m)
	j.leave(m)
	j.gone[key] = m
	j.dirty[m] = struct{}{}
}

func (j *join) intern(labels map[string]string) *labelSet {
	text := labelText(labels)
	if ls := j.labelSets[text]; ls != nil {
		return ls
	}
	ls := &labelSet{text: text, labels: labels, pods: map[*member]struct{}{}, matched: map[string]map[*selector]struct{}{}}
	j.labelSets[text] = ls
	for k, v := range labels {
		for _, p := range []string{k, k + "=" + v} {
			add(j.pairs, p, ls)
			for sel := range j.probes[p] {
				j.match(ls, sel)
			}
		}
	}
	for sel := range j.scans {
		j.match(ls, sel)
	}
	return ls
}

// leave takes a pod out of its label set, and ends a label set without pods.
func (j *join) leave(m *member) {
	ls := m.labels
	if ls == nil {
		return
	}
	m.labels = nil
	delete(ls.pods, m)
	if len(ls.pods) > 0 {
		return
	}
	delete(j.labelSets, ls.text)
	for k, v := range ls.labels {
		drop(j.pairs, k, ls)
		drop(j.pairs, k+"="+v, ls)
	}
	for _, sels := range ls.matched {
		for sel := range sels {
			delete(sel.labels, ls)
		}
	}
}

// settle recomputes the dirty pods' sets and returns the objects to put and delete.
func (j *join) settle(nsLabels func(string) map[string]string) []joinEvent {
	out := j.events
	j.events = nil
	for _, m := range slices.SortedFunc(maps.Keys(j.dirty), func(a, b *member) int { return strings.Compare(a.key, b.key) }) {
		out = append(out, j.resettle(m, nsLabels)...)
	}
	if len(j.dirty) > 0 { // maps that were large stay slow to clear
		j.dirty, j.gone = map[*member]struct{}{}, map[string]*member{}
	}
	return out
}

func (j *join) resettle(m *member, nsLabels func(string) map[string]string) []joinEvent {
	want := map[string]struct{}{}
	if m.labels != nil {
		for sel := range m.labels.matched[m.ns] {
			if slices.Contains(m.networks, sel.Network) {
				want[sel.name] = struct{}{}
			}
		}
		for sel := range m.labels.matched[""] {
			if slices.Contains(m.networks, sel.Network) && sel.Namespaces.Matches(nsLabels(m.ns)) {
				want[sel.name] = struct{}{}
			}
		}
	}
	var out []joinEvent
	for name := range m.in {
		if _, ok := want[name]; !ok {
			delete(m.in, name)
			out = append(out, joinEvent{key: (&Member{Set: name, Pod: m.key}).Key()})
		}
	}
	for name := range want {
		if _, ok := m.in[name]; !ok {
			m.in[name] = struct{}{}
			o := &Member{Set: name, Pod: m.key}
			out = append(out, joinEvent{o.Key(), o})
		}
	}
	slices.SortFunc(out, func(a, b joinEvent) int { return a.key.Compare(b.key) })
	return out
}

func labelText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

func add[K, E comparable](m map[K]map[E]struct{}, k K, e E) {
	if m[k] == nil {
		m[k] = map[E]struct{}{}
	}
	m[k][e] = struct{}{}
}

func drop[K, E comparable](m map[K]map[E]struct{}, k K, e E) {
	delete(m[k], e)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
