package networks

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTallyIsAFold: whatever comes in whatever order, what is kept is what a look at all
// there is would find.
func TestTallyIsAFold(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	nodes := map[string]map[string]string{}
	one := newTally(nodes)
	objects := map[string]*metav1.LabelSelector{}
	generations := map[string]int64{}
	pick := func(of string, n int) string { return fmt.Sprint(of, r.IntN(n)) }
	for step := range 4000 {
		switch node := pick("n", 12); r.IntN(6) {
		case 0:
			nodes[node] = map[string]string{"rack": pick("r", 3)}
			one.setNode(node)
		case 1:
			delete(nodes, node)
			one.setNode(node)
		case 2, 3:
			said := map[string]report{}
			for range r.IntN(4) {
				said[pick("o", 4)] = report{
					ready: r.IntN(2) == 0, shown: r.IntN(5) == 0, generation: r.Int64N(4), message: pick("m", 2), devices: int32(r.IntN(9)), well: int32(r.IntN(3)),
				}
			}
			one.setReport(node, said)
		case 4:
			o := pick("o", 4)
			objects[o], generations[o] = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": pick("r", 3)}}, r.Int64N(4)
			if r.IntN(4) == 0 {
				objects[o] = nil
			}
			one.setObject(o, metav1.ObjectMeta{Generation: generations[o]}, objects[o])
		case 5:
			if r.IntN(4) == 0 {
				o := pick("o", 4)
				delete(objects, o)
				one.dropObject(o)
			}
		}
		all := newTally(nodes)
		for node, said := range one.reports {
			all.reports[node] = maps.Clone(said)
		}
		for o, selector := range objects {
			all.setObject(o, metav1.ObjectMeta{Generation: generations[o]}, selector)
		}
		for o, want := range all.objects {
			got := one.objects[o]
			if got.ready != want.ready || got.devices != want.devices || got.well != want.well || !maps.Equal(got.named, want.named) || !maps.Equal(got.selected, want.selected) {
				t.Fatalf("step %d: %s is %+v, a look at all finds %+v", step, o, got, want)
			}
		}
		if len(one.objects) != len(objects) {
			t.Fatalf("step %d: %d objects of %d", step, len(one.objects), len(objects))
		}
	}
}

// TestTallyTouchesWhatChanged: a report that says the same, or of an object that does not
// select the node, makes nothing to write.
func TestTallyTouchesWhatChanged(t *testing.T) {
	nodes := map[string]map[string]string{"n1": {"rack": "a"}, "n2": {"rack": "b"}}
	y := newTally(nodes)
	y.setObject("a", metav1.ObjectMeta{Generation: 2}, &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}})
	y.setObject("b", metav1.ObjectMeta{}, &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "b"}})
	for _, step := range []struct {
		name string
		do   func()
		want map[string]struct{}
	}{
		{"ready", func() { y.setReport("n1", map[string]report{"a": {ready: true, generation: 2}}) }, map[string]struct{}{"a": {}}},
		{"again", func() { y.setReport("n1", map[string]report{"a": {ready: true, generation: 2}}) }, map[string]struct{}{}},
		{"of another", func() { y.setReport("n1", map[string]report{"a": {ready: true, generation: 2}, "b": {ready: true}}) }, map[string]struct{}{}},
		{"moved", func() { nodes["n1"] = map[string]string{"rack": "b"}; y.setNode("n1") }, map[string]struct{}{"a": {}, "b": {}}},
	} {
		clear(y.dirty)
		if step.do(); !reflect.DeepEqual(y.dirty, step.want) {
			t.Errorf("%s: %v, want %v", step.name, y.dirty, step.want)
		}
	}
	if s := y.objects["b"]; s.of() != "1/2" || s.condition("").Message != "ready on 1/2 nodes; n2: "+unsaid {
		t.Errorf("%s, %+v", s.of(), s.condition(""))
	}
	if c := y.objects["a"].condition(""); c.Reason != reasonNoNode || c.ObservedGeneration != 2 {
		t.Errorf("%+v", c)
	}
}

// BenchmarkTally is one node's report where 10,000 nodes have ten pools.
func BenchmarkTally(b *testing.B) {
	nodes := map[string]map[string]string{}
	y := newTally(nodes)
	said := [2]map[string]report{{}, {}}
	for i := range 10 {
		name := fmt.Sprint("pool", i)
		y.setObject(name, metav1.ObjectMeta{}, nil)
		said[0][name], said[1][name] = report{ready: true, devices: 8, well: 8}, report{message: "no"}
	}
	for i := range 10_000 {
		name := fmt.Sprint("n", i)
		nodes[name] = map[string]string{"a": "b"}
		y.setReport(name, said[0])
	}
	i := 0
	for b.Loop() {
		i++
		y.setReport("n7", said[i%2])
	}
}
