package rows

import (
	"cmp"
	"slices"
	"strconv"
)

// Kind is the type of an Atom, one of the atomic types of RFC 7047 §3.2.
type Kind uint8

// The atomic types. The zero Kind marks an absent atom: an edge without a value.
const (
	None Kind = iota
	String
	Int
	Bool
	Reference
)

// Atom is one OVSDB atom. It is comparable, so it can key a map.
type Atom struct {
	Kind Kind
	Str  string
	Num  int64 // the integer, or 0 and 1 for a boolean
	Ref  Ref   // the row pointed at, when Kind is Reference
}

// S, I, B and R make atoms.
func S(s string) Atom { return Atom{Kind: String, Str: s} }

// I makes an integer atom.
func I(n int64) Atom { return Atom{Kind: Int, Num: n} }

// B makes a boolean atom.
func B(b bool) Atom {
	if b {
		return Atom{Kind: Bool, Num: 1}
	}
	return Atom{Kind: Bool}
}

// R makes a reference to a row, which need not exist yet.
func R(ref Ref) Atom { return Atom{Kind: Reference, Ref: ref} }

// Compare orders atoms: by kind, then by content.
func (a Atom) Compare(b Atom) int {
	return cmp.Or(
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Str, b.Str),
		cmp.Compare(a.Num, b.Num),
		a.Ref.Compare(b.Ref),
	)
}

// String is the atom's text form: strings quoted, references as Table(id).
func (a Atom) String() string {
	switch a.Kind {
	case String:
		return strconv.Quote(a.Str)
	case Int:
		return strconv.FormatInt(a.Num, 10)
	case Bool:
		return strconv.FormatBool(a.Num != 0)
	case Reference:
		return a.Ref.String()
	}
	return ""
}

// Pair is one element of a column's value: an element of a set (Value is
// absent) or one entry of a map.
type Pair struct {
	Key   Atom
	Value Atom
}

// Value is a column's value: sorted, without duplicate keys. A scalar is a set
// of one element; an empty Value is OVSDB's empty set, which also clears an
// optional scalar.
type Value []Pair

// Set makes a set of atoms; a single atom is a scalar.
func Set(atoms ...Atom) Value {
	v := make(Value, 0, len(atoms))
	for _, a := range atoms {
		v = append(v, Pair{Key: a})
	}
	return v.canonical()
}

// Strings makes a set of strings.
func Strings(ss ...string) Value {
	v := make(Value, 0, len(ss))
	for _, s := range ss {
		v = append(v, Pair{Key: S(s)})
	}
	return v.canonical()
}

// Str, Num and Bool make scalars.
func Str(s string) Value { return Value{{Key: S(s)}} }

// Num makes an integer scalar.
func Num(n int64) Value { return Value{{Key: I(n)}} }

// Flag makes a boolean scalar.
func Flag(b bool) Value { return Value{{Key: B(b)}} }

// Map makes a map of strings. Keys whose value is empty are kept: an empty
// string is a value in OVSDB.
func Map(m map[string]string) Value {
	v := make(Value, 0, len(m))
	for k, s := range m {
		v = append(v, Pair{Key: S(k), Value: S(s)})
	}
	return v.canonical()
}

// Nums makes a map of integers.
func Nums(m map[string]int64) Value {
	v := make(Value, 0, len(m))
	for k, n := range m {
		v = append(v, Pair{Key: S(k), Value: I(n)})
	}
	return v.canonical()
}

// canonical sorts v and drops repeated keys, keeping the first.
func (v Value) canonical() Value {
	slices.SortStableFunc(v, func(a, b Pair) int { return a.Key.Compare(b.Key) })
	return slices.CompactFunc(v, func(a, b Pair) bool { return a.Key == b.Key })
}

// Equal reports whether both hold the same elements.
func (v Value) Equal(w Value) bool { return slices.Equal(v, w) }

// Get returns the value of a map's entry.
func (v Value) Get(key Atom) (Atom, bool) {
	i, ok := slices.BinarySearchFunc(v, key, func(p Pair, k Atom) int { return p.Key.Compare(k) })
	if !ok {
		return Atom{}, false
	}
	return v[i].Value, true
}
