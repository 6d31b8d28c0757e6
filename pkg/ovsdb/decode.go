package ovsdb

import (
	"fmt"
	"slices"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// decodeValue reads a column as ovsdb-server prints it.
func decodeValue(raw []byte, c rows.ColumnSchema) (rows.Value, error) {
	d := decoder{jsonText: jsonText{b: raw}}
	v, err := d.column(c)
	if err != nil {
		return nil, err
	}
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("column %q: %w", c.Name, err)
	}
	return slices.Clone(v), nil
}

// decoder reads values as RFC 7047 §5.1 has them, in one pass over the text: ten
// thousand ports are a million atoms.
type decoder struct {
	jsonText
	// pairs is the value just read: whoever keeps it makes a copy, and most are
	// the column's default, which nobody keeps.
	pairs rows.Value
	names map[string]string // the keys of maps, each once in memory
}

// column reads one column's value: an atom, ["set", [...]] or ["map", [...]]. It is
// good until the next is read. A reference is left as its UUID, in Ref.ID with the
// table that the schema says: resolve turns it into a Ref.
func (d *decoder) column(c rows.ColumnSchema) (rows.Value, error) {
	d.pairs = d.pairs[:0]
	err := d.value(c)
	if err == nil {
		err = c.Fits(d.pairs)
	}
	if err != nil {
		return nil, fmt.Errorf("column %q: %w", c.Name, err)
	}
	return d.pairs, nil
}

func (d *decoder) value(c rows.ColumnSchema) error {
	if d.peek() == 0 {
		return fmt.Errorf("no value")
	}
	tag := d.tag()
	switch tag {
	case "set":
		err := d.list(func() error {
			a, err := d.atom(c.Key, c.RefTable)
			d.pairs = append(d.pairs, rows.Pair{Key: a})
			return err
		})
		if err != nil {
			return err
		}
		d.sort()
		d.pairs = slices.CompactFunc(d.pairs, func(a, b rows.Pair) bool { return a.Key == b.Key })
	case "map":
		if err := d.list(func() error { return d.entry(c) }); err != nil {
			return err
		}
		d.sort()
	default:
		a, err := d.atom(c.Key, c.RefTable)
		d.pairs = append(d.pairs, rows.Pair{Key: a})
		return err
	}
	return d.expect(']')
}

// sort puts the elements into our order, which is most often the server's.
func (d *decoder) sort() {
	byKey := func(a, b rows.Pair) int { return a.Key.Compare(b.Key) }
	if !slices.IsSortedFunc(d.pairs, byKey) {
		slices.SortFunc(d.pairs, byKey)
	}
}

// tag steps over the start of a set or a map and says which; "" if neither is next.
func (d *decoder) tag() string {
	at := d.at
	if d.take('[') {
		if s, err := d.str(); err == nil && d.take(',') {
			switch string(s) {
			case "set":
				return "set"
			case "map":
				return "map"
			}
		}
	}
	d.at = at
	return ""
}

// entry reads a map's [key, value].
func (d *decoder) entry(c rows.ColumnSchema) error {
	if err := d.expect('['); err != nil {
		return err
	}
	key, err := d.key(c)
	if err != nil {
		return err
	}
	if err := d.expect(','); err != nil {
		return err
	}
	value, err := d.atom(c.Value, c.ValueRefTable)
	if err != nil {
		return err
	}
	d.pairs = append(d.pairs, rows.Pair{Key: key, Value: value})
	return d.expect(']')
}

// key is a map's key: there are few different ones.
func (d *decoder) key(c rows.ColumnSchema) (rows.Atom, error) {
	if c.Key != rows.String || d.peek() != '"' {
		return d.atom(c.Key, c.RefTable)
	}
	s, err := d.str()
	if err != nil {
		return rows.Atom{}, err
	}
	name, ok := d.names[string(s)]
	if !ok {
		if d.names == nil {
			d.names = map[string]string{}
		}
		name = string(s)
		d.names[name] = name
	}
	return rows.S(name), nil
}

// atom reads one atom, which must be of a kind.
func (d *decoder) atom(kind rows.Kind, ref rows.Table) (rows.Atom, error) {
	next := d.peek()
	at := d.at
	switch {
	case kind == rows.String && next == '"':
		s, err := d.str()
		return rows.S(string(s)), err
	case kind == rows.Int && (next == '-' || next >= '0' && next <= '9'):
		if n, err := d.integer(); err == nil {
			return rows.I(n), nil
		}
	case kind == rows.Bool && d.word("true"):
		return rows.B(true), nil
	case kind == rows.Bool && d.word("false"):
		return rows.B(false), nil
	case kind == rows.Reference && next == '[':
		if id, ok := d.uuid(); ok {
			return rows.R(rows.Ref{Table: ref, ID: id}), nil
		}
	}
	d.at = at
	if err := d.skip(); err != nil {
		return rows.Atom{}, err
	}
	return rows.Atom{}, fmt.Errorf("%.40s found, wanted %v", d.b[at:d.at], kind)
}

// uuid reads ["uuid", "..."].
func (d *decoder) uuid() (string, bool) {
	if !d.take('[') {
		return "", false
	}
	if tag, err := d.str(); err != nil || string(tag) != "uuid" || !d.take(',') {
		return "", false
	}
	id, err := d.str()
	if err != nil {
		return "", false
	}
	s := string(id)
	return s, d.take(']')
}
