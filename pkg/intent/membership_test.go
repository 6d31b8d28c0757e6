package intent_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// policy is a test's Selecting object.
type policy struct {
	name      string
	selectors []intent.Selector
}

func (p *policy) Key() intent.Key              { return intent.Key{Kind: "Policy", Name: p.name} }
func (p *policy) Buckets() []intent.Bucket     { return nil }
func (p *policy) Selectors() []intent.Selector { return p.selectors }
func (p *policy) Equal(o intent.Object) bool {
	return slices.EqualFunc(p.selectors, o.(*policy).selectors, func(a, b intent.Selector) bool {
		return a.Canonical().String() == b.Canonical().String()
	})
}

// oracle computes membership as the definition says: every pod against every
// selector that somebody uses.
func oracle(objects map[intent.Key]intent.Object) []string {
	used := map[string]intent.Selector{}
	for _, o := range objects {
		if p, ok := o.(*policy); ok {
			for _, s := range p.selectors {
				used[s.Canonical().String()] = s.Canonical()
			}
		}
	}
	var out []string
	for name, s := range used {
		out = append(out, "Set/"+name)
		for _, o := range objects {
			p, ok := o.(*intent.Pod)
			if !ok || !selects(objects, s, p) {
				continue
			}
			out = append(out, fmt.Sprintf("Member/%s/%s@%s", p.Namespace, p.Name, name))
		}
	}
	slices.Sort(out)
	return out
}

func selects(objects map[intent.Key]intent.Object, s intent.Selector, p *intent.Pod) bool {
	if _, on := p.Attachment(s.Network); !on || !s.Pods.Matches(p.Labels) {
		return false
	}
	if s.Namespace != "" {
		return s.Namespace == p.Namespace
	}
	var labels map[string]string
	if ns, ok := objects[intent.Key{Kind: intent.KindNamespace, Name: p.Namespace}].(*intent.Namespace); ok {
		labels = ns.Labels
	}
	return s.Namespaces.Matches(labels)
}

// derived lists the Sets and Members of a store.
func derived(s *intent.Store) []string {
	var out []string
	for _, k := range s.Keys() {
		if k.Kind == intent.KindSet || k.Kind == intent.KindMember {
			out = append(out, k.String())
		}
	}
	slices.Sort(out)
	return out
}

// joinEdits makes random edits of pods, namespaces and policies.
type joinEdits struct{ *rand.Rand }

func (r joinEdits) pick(prefix string, n int) string { return prefix + strconv.Itoa(r.IntN(n)) }

func (r joinEdits) labels() map[string]string {
	out := map[string]string{}
	for range r.IntN(3) {
		out[r.pick("k", 3)] = r.pick("v", 3)
	}
	return out
}

func (r joinEdits) requirements() intent.Labels {
	var out intent.Labels
	for range r.IntN(3) {
		req := intent.Requirement{Key: r.pick("k", 3), Op: intent.Op(1 + r.IntN(4))}
		if req.Op == intent.In || req.Op == intent.NotIn {
			for range 1 + r.IntN(2) {
				req.Values = append(req.Values, r.pick("v", 3))
			}
		}
		out = append(out, req)
	}
	return out
}

func (r joinEdits) object() intent.Object {
	switch r.IntN(6) {
	case 0:
		return &intent.Namespace{Name: r.pick("ns", 3), Labels: r.labels()}
	case 1:
		p := &policy{name: r.pick("policy", 4)}
		for range 1 + r.IntN(2) {
			s := intent.Selector{Network: r.pick("net", 2), Namespaces: r.requirements(), Pods: r.requirements()}
			if r.IntN(2) == 0 {
				s.Namespace = r.pick("ns", 3)
			}
			p.selectors = append(p.selectors, s)
		}
		return p
	}
	p := &intent.Pod{Namespace: r.pick("ns", 3), Name: r.pick("pod", 5), Labels: r.labels(), UID: r.pick("u", 9)}
	for _, n := range []string{"net0", "net1"} {
		if r.IntN(3) > 0 {
			p.Attachments = append(p.Attachments, intent.Attachment{Network: n})
		}
	}
	return p
}

// TestJoinEqualsDefinition compares the incremental join with the definition
// after every batch of random edits.
func TestJoinEqualsDefinition(t *testing.T) {
	for seed := range uint64(400) {
		r := joinEdits{rand.New(rand.NewPCG(seed, 3))}
		s := intent.NewStore()
		objects := map[intent.Key]intent.Object{}
		before := map[string]bool{}
		for step := range 40 {
			for range 1 + r.IntN(4) {
				o := r.object()
				if r.IntN(3) == 0 {
					s.Delete(o.Key())
					delete(objects, o.Key())
					continue
				}
				s.Put(o)
				objects[o.Key()] = o
			}
			changes := s.Take()
			if d := cmp.Diff(oracle(objects), derived(s)); d != "" {
				t.Fatalf("seed %d, step %d: by definition (-) and kept (+):\n%s", seed, step, d)
			}
			before = sameChanges(t, changes, before, derived(s))
		}
		for k := range maps.Clone(objects) {
			s.Delete(k)
		}
		s.Take()
		if s.Len() != 0 {
			t.Fatalf("seed %d: all is deleted, and %v is left", seed, s.Keys())
		}
	}
}

// sameChanges checks that the derived objects that changed are reported, each
// once, and no others: a unit runs again for what it read and nothing else.
func sameChanges(t *testing.T, changes intent.Changes, before map[string]bool, now []string) map[string]bool {
	t.Helper()
	after := map[string]bool{}
	for _, k := range now {
		after[k] = true
	}
	net := map[string]int{}
	for _, c := range changes.Objects {
		if c.Key.Kind != intent.KindSet && c.Key.Kind != intent.KindMember {
			continue
		}
		if c.Old == nil {
			net[c.Key.String()]++
		}
		if c.New == nil {
			net[c.Key.String()]--
		}
	}
	for k, n := range net {
		want := 0
		if after[k] {
			want++
		}
		if before[k] {
			want--
		}
		if n != want {
			t.Fatalf("%s changed by %d, wanted %d", k, n, want)
		}
		delete(before, k)
		delete(after, k)
	}
	for k := range before {
		if !after[k] {
			t.Fatalf("%s went and was not reported", k)
		}
	}
	all := map[string]bool{}
	for _, k := range now {
		all[k] = true
	}
	return all
}

// TestViewRecordsWhatIsRead checks each kind of read against the changes that
// must, and must not, touch it.
func TestViewRecordsWhatIsRead(t *testing.T) {
	node := func(name, zone string, id int) *intent.Node { return &intent.Node{Name: name, Zone: zone, ID: id} }
	reads := map[string]func(v *intent.View){
		"get":    func(v *intent.View) { v.Node("a") },
		"absent": func(v *intent.View) { v.Node("c") },
		"each": func(v *intent.View) {
			for range v.Each(intent.NodesByZone, "z") {
			}
		},
		"any": func(v *intent.View) { v.Any(intent.NodesByZone, "z") },
	}
	edits := map[string]func(s *intent.Store){
		"same":   func(s *intent.Store) { s.Put(node("a", "z", 1)) },
		"change": func(s *intent.Store) { s.Put(node("a", "z", 2)) },
		"other":  func(s *intent.Store) { s.Put(node("b", "y", 2)) },
		"appear": func(s *intent.Store) { s.Put(node("c", "z", 3)) },
		"empty":  func(s *intent.Store) { s.Delete(intent.Key{Kind: intent.KindNode, Name: "a"}) },
	}
	dirty := map[string][]string{
		"get": {"change", "empty"}, "absent": {"appear"}, "each": {"change", "appear", "empty"}, "any": {"empty"},
	}
	for name, read := range reads {
		for edit, apply := range edits {
			s := intent.NewStore()
			s.Put(node("a", "z", 1))
			s.Put(node("b", "y", 1))
			s.Take()
			v := intent.NewView(s)
			read(v)
			apply(s)
			changes := s.Take()
			hit := slices.ContainsFunc(v.Reads(), func(d intent.Dep) bool {
				_, ok := changes.Deps[d]
				return ok
			})
			if want := slices.Contains(dirty[name], edit); hit != want {
				t.Errorf("%s after %s: dirty %v, wanted %v", name, edit, hit, want)
			}
		}
	}
}
