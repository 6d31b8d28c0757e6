package intent

import (
	"maps"
	"slices"
)

// Dep is one recorded read: what a unit's output depends on. It is comparable
// and small, because the engine keeps one for every read of every unit.
type Dep struct {
	kind depKind
	a, b string
}

type depKind uint8

const (
	depKey    depKind = iota + 1 // a=kind b=name: the object's content or absence
	depBucket                    // a=index b=value: which objects are in the bucket
	depAny                       // a=index b=value: whether the bucket is empty
)

// String is the dep's text form, for explain.
func (d Dep) String() string {
	switch d.kind {
	case depKey:
		return d.a + "/" + d.b
	case depBucket:
		return d.a + "[" + d.b + "]"
	}
	return "any " + d.a + "[" + d.b + "]"
}

// Change is one object that came, changed or went: Old or New is nil.
type Change struct {
	Key      Key
	Old, New Object
}

// Changes collects what a batch of Puts and Deletes changed.
type Changes struct {
	Deps    map[Dep]struct{}
	Objects []Change
}

// Store holds the current intent. It is not safe for concurrent use: the
// engine's goroutine owns it.
type Store struct {
	objects map[Key]Object
	buckets map[Bucket]map[Key]struct{}
	join    *join
	pending Changes
}

// NewStore makes an empty store.
func NewStore() *Store {
	s := &Store{objects: map[Key]Object{}, buckets: map[Bucket]map[Key]struct{}{}}
	s.join = newJoin()
	s.pending.Deps = map[Dep]struct{}{}
	return s
}

// Len is the number of objects, derived ones included.
func (s *Store) Len() int { return len(s.objects) }

// Put adds or replaces an object; an equal one is no change.
func (s *Store) Put(o Object) {
	old := s.objects[o.Key()]
	if old != nil && old.Equal(o) {
		return
	}
	s.replace(o.Key(), old, o)
}

// Delete removes an object, if it is there.
func (s *Store) Delete(k Key) {
	if old := s.objects[k]; old != nil {
		s.replace(k, old, nil)
	}
}

// Take settles the derived kinds and returns what has changed since the last
// Take. Nothing may be read between a Put and the Take that follows it.
func (s *Store) Take() Changes {
	for _, ev := range s.join.settle(s.namespace) {
		if ev.object != nil {
			s.Put(ev.object)
		} else {
			s.Delete(ev.key)
		}
	}
	c := s.pending
	s.pending = Changes{Deps: map[Dep]struct{}{}}
	return c
}

func (s *Store) namespace(name string) map[string]string {
	if ns, ok := s.objects[Key{KindNamespace, name}].(*Namespace); ok {
		return ns.Labels
	}
	return nil
}

func (s *Store) replace(k Key, old, o Object) {
	s.pending.Objects = append(s.pending.Objects, Change{Key: k, Old: old, New: o})
	s.pending.Deps[Dep{depKey, string(k.Kind), k.Name}] = struct{}{}
	var before, after []Bucket
	if old != nil {
		before = old.Buckets()
	}
	if o != nil {
		after = o.Buckets()
		s.objects[k] = o
	} else {
		delete(s.objects, k)
	}
	for _, b := range before {
		if !slices.Contains(after, b) {
			s.unfile(b, k)
		}
	}
	for _, b := range after {
		if !slices.Contains(before, b) {
			s.file(b, k)
		}
	}
	s.join.observe(old, o)
}

func (s *Store) file(b Bucket, k Key) {
	m := s.buckets[b]
	if m == nil {
		m = map[Key]struct{}{}
		s.buckets[b] = m
		s.pending.Deps[Dep{depAny, string(b.Index), b.Value}] = struct{}{}
	}
	m[k] = struct{}{}
	s.pending.Deps[Dep{depBucket, string(b.Index), b.Value}] = struct{}{}
}

func (s *Store) unfile(b Bucket, k Key) {
	m := s.buckets[b]
	delete(m, k)
	s.pending.Deps[Dep{depBucket, string(b.Index), b.Value}] = struct{}{}
	if len(m) == 0 {
		delete(s.buckets, b)
		s.pending.Deps[Dep{depAny, string(b.Index), b.Value}] = struct{}{}
	}
}

// Keys lists the keys of all objects in order, for full recomputes and dumps.
func (s *Store) Keys() []Key {
	return slices.SortedFunc(maps.Keys(s.objects), Key.Compare)
}

// Object returns an object without recording the read: for the engine and
// dumps, never for units.
func (s *Store) Object(k Key) (Object, bool) {
	o, ok := s.objects[k]
	return o, ok
}
