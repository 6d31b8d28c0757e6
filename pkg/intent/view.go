package intent

import (
	"iter"
	"maps"
	"slices"
)

// View is the only way a unit reads intent. Every read is recorded, also of
// what is absent, so a dependency cannot be forgotten. A View serves one
// compilation and is not kept.
type View struct {
	store *Store
	deps  map[Dep]struct{}
}

// NewView makes a view with nothing recorded.
func NewView(s *Store) *View { return &View{store: s, deps: map[Dep]struct{}{}} }

// Get returns an object, or false; either is recorded.
func (v *View) Get(k Key) (Object, bool) {
	v.deps[Dep{depKey, string(k.Kind), k.Name}] = struct{}{}
	o, ok := v.store.objects[k]
	return o, ok
}

// Get returns the object of a key as its type.
func Get[T Object](v *View, k Key) (T, bool) {
	o, ok := v.Get(k)
	if !ok {
		var zero T
		return zero, false
	}
	return o.(T), true
}

// Each yields the objects of an index bucket in key order. It records the
// bucket's membership and the content of every object yielded; what a unit does
// with it costs O(bucket) each time one member changes.
func (v *View) Each(index Index, value string) iter.Seq[Object] {
	v.deps[Dep{depBucket, string(index), value}] = struct{}{}
	keys := slices.SortedFunc(maps.Keys(v.store.buckets[Bucket{index, value}]), Key.Compare)
	return func(yield func(Object) bool) {
		for _, k := range keys {
			o, ok := v.Get(k)
			if ok && !yield(o) {
				return
			}
		}
	}
}

// Any reports whether an index bucket holds anything. It records only that: a
// unit is not run again while the answer stays.
func (v *View) Any(index Index, value string) bool {
	v.deps[Dep{depAny, string(index), value}] = struct{}{}
	return len(v.store.buckets[Bucket{index, value}]) > 0
}

// Cluster returns the cluster's plan; ok is false until it has arrived.
func (v *View) Cluster() (*Cluster, bool) { return Get[*Cluster](v, ClusterKey) }

// Node returns a node by name.
func (v *View) Node(name string) (*Node, bool) { return Get[*Node](v, Key{KindNode, name}) }

// Reads returns what was read, in any order.
func (v *View) Reads() []Dep {
	return slices.Collect(maps.Keys(v.deps))
}
