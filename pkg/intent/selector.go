package intent

import (
	"cmp"
	"slices"
	"strings"
)

// Op is a label requirement's operator (apimachinery's LabelSelectorOperator).
type Op uint8

// The operators. In and Exists are positive: something must be there.
const (
	In Op = iota + 1
	NotIn
	Exists
	DoesNotExist
)

// Requirement is one label requirement. Values is sorted; empty for Exists and
// DoesNotExist.
type Requirement struct {
	Key    string
	Op     Op
	Values []string
}

// Matches reports whether a label set meets the requirement.
func (r Requirement) Matches(labels map[string]string) bool {
	v, ok := labels[r.Key]
	switch r.Op {
	case In:
		return ok && slices.Contains(r.Values, v)
	case NotIn:
		return !ok || !slices.Contains(r.Values, v)
	case Exists:
		return ok
	}
	return !ok
}

// String is the requirement as kubectl writes it, with sorted values.
func (r Requirement) String() string {
	switch r.Op {
	case In:
		if len(r.Values) == 1 {
			return r.Key + "=" + r.Values[0]
		}
		return r.Key + " in (" + strings.Join(r.Values, ",") + ")"
	case NotIn:
		return r.Key + " notin (" + strings.Join(r.Values, ",") + ")"
	case Exists:
		return r.Key
	}
	return "!" + r.Key
}

// Labels is a label selector: all requirements hold. The empty one selects all.
type Labels []Requirement

// Canonical sorts requirements and values and drops repetitions, so that equal
// selectors have equal text.
func (l Labels) Canonical() Labels {
	out := make(Labels, 0, len(l))
	for _, r := range l {
		r.Values = slices.Compact(slices.Sorted(slices.Values(r.Values)))
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Requirement) int { return cmp.Compare(a.String(), b.String()) })
	return slices.CompactFunc(out, func(a, b Requirement) bool { return a.String() == b.String() })
}

// Matches reports whether all requirements hold.
func (l Labels) Matches(labels map[string]string) bool {
	for _, r := range l {
		if !r.Matches(labels) {
			return false
		}
	}
	return true
}

// String is the selector's canonical text when l is canonical.
func (l Labels) String() string {
	parts := make([]string, len(l))
	for i, r := range l {
		parts[i] = r.String()
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// Selector names a set of pods of one network. Policies that say the same share
// one Set, and so one port group and one address set (decision 7).
type Selector struct {
	Network    string
	Namespace  string // one namespace by name; "": by NamespaceSelector
	Namespaces Labels // read when Namespace is ""
	Pods       Labels
}

// Canonical returns the selector in its one form.
func (s Selector) Canonical() Selector {
	s.Pods = s.Pods.Canonical()
	if s.Namespace != "" {
		s.Namespaces = nil
	} else {
		s.Namespaces = s.Namespaces.Canonical()
	}
	return s
}

// String is the canonical text, and the name of the Set it makes.
func (s Selector) String() string {
	ns := "ns=" + s.Namespace
	if s.Namespace == "" {
		ns = "ns" + s.Namespaces.String()
	}
	return s.Network + " " + ns + " pods" + s.Pods.String()
}

// Selecting is implemented by objects that use selectors, such as policies. The
// store counts users: a Set lives while somebody uses its selector.
type Selecting interface {
	Object
	Selectors() []Selector
}

// Set is derived: a selector that somebody uses.
type Set struct {
	Selector Selector
	name     string
}

// Key is Set/selector text.
func (s *Set) Key() Key { return Key{KindSet, s.name} }

// Buckets is empty.
func (s *Set) Buckets() []Bucket { return nil }

// Equal holds always: the name is the content.
func (s *Set) Equal(Object) bool { return true }

// SetOf is the key of the Set that a selector makes.
func SetOf(s Selector) Key { return Key{KindSet, s.Canonical().String()} }

// MembersBySet files members under their set's name.
const MembersBySet Index = "members-by-set"

// Member is derived: one pod in one Set. It is the join's output and the unit
// of its cost: a label change or a new policy makes and ends members, and runs
// no pod's and no policy's unit again.
type Member struct {
	Set string // the Set's name
	Pod string // namespace/name
}

// Key is Member/pod@set.
func (m *Member) Key() Key { return Key{KindMember, m.Pod + "@" + m.Set} }

// Buckets files members by set.
func (m *Member) Buckets() []Bucket { return []Bucket{{MembersBySet, m.Set}} }

// Equal holds always: the key is the content.
func (m *Member) Equal(Object) bool { return true }
