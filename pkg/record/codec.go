package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// Codec turns values into bytes and back. What it does for a type it derives from
// the type once: fields in order, numbers as varints, lists with their length and
// whether they are nil, maps by sorted key, an intent.Object by its kind. Equal
// values have equal bytes. It is not safe for concurrent use.
type Codec struct {
	plans  map[reflect.Type]*plan
	layout map[string]string // struct -> its fields, for the header
	kinds  map[intent.Kind]intent.Object
	names  map[reflect.Type]string // of kinds
	keys   []string                // scratch
	// loose writes what is empty like what is not there: for comparing engines, to
	// which both are one.
	loose bool
}

// plan is how one type is written and read.
type plan struct {
	write func(c *Codec, b []byte, v reflect.Value) []byte
	read  func(c *Codec, r *reader, v reflect.Value)
}

// NewCodec makes a codec for values of the types of the examples and all that
// they lead to. A type that cannot be written whole is an error.
func NewCodec(examples ...any) (*Codec, error) {
	c := &Codec{plans: map[reflect.Type]*plan{}, layout: map[string]string{}, kinds: intent.Kinds(), names: map[reflect.Type]string{}}
	for _, e := range examples {
		if err := c.learn(reflect.TypeOf(e)); err != nil {
			return nil, err
		}
	}
	for k, o := range c.kinds {
		t := reflect.TypeOf(o).Elem()
		if err := c.learn(t); err != nil {
			return nil, err
		}
		c.names[t] = string(k)
	}
	return c, nil
}

// Append appends a value's bytes; v is a pointer to it.
func (c *Codec) Append(b []byte, v any) []byte {
	e := reflect.ValueOf(v).Elem()
	return c.plans[e.Type()].write(c, b, e)
}

// Decode reads a value that fills data; v is a pointer to it.
func (c *Codec) Decode(data []byte, v any) error {
	r := &reader{rest: data}
	c.read(r, v)
	if r.err == nil && len(r.rest) > 0 {
		r.fail("%d bytes are left over", len(r.rest))
	}
	return r.err
}

// read reads one value; v is a pointer to it.
func (c *Codec) read(r *reader, v any) {
	e := reflect.ValueOf(v).Elem()
	c.plans[e.Type()].read(c, r, e)
}

// reader takes values off the front of some bytes. Its first error stays.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
	r.rest = nil
}

var errShort = errors.New("the value ends too early")

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail("%w", errShort)
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail("%w", errShort)
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) text() string { return string(r.bytes(r.uvarint())) }

// length reads a list's length, and whether the list is there. Each element has a
// byte at least, so a length cannot ask for more memory than the file has.
func (r *reader) length() (n int, ok bool) {
	u := r.uvarint()
	if u == 0 {
		return 0, false
	}
	if u-1 > uint64(len(r.rest)) {
		r.fail("%w", errShort)
		return 0, false
	}
	return int(u - 1), true
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// none reports whether a list or map is written as one that is not there.
func (c *Codec) none(v reflect.Value) bool { return v.IsNil() || c.loose && v.Len() == 0 }

// learn makes the plan of a type and of those that it leads to.
func (c *Codec) learn(t reflect.Type) error {
	if c.plans[t] != nil {
		return nil
	}
	p := &plan{}
	c.plans[t] = p // before its parts, which may lead back to it
	made, err := c.plan(t)
	if err != nil {
		return err
	}
	*p = made
	return nil
}

func (c *Codec) plan(t reflect.Type) (plan, error) {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return binaryPlan[netip.Addr](), nil
	case reflect.TypeFor[netip.Prefix]():
		return binaryPlan[netip.Prefix](), nil
	case reflect.TypeFor[map[string]string]():
		return stringMapPlan(), nil
	case reflect.TypeFor[intent.Object]():
		return objectPlan(), nil
	}
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return scalarPlan(t.Kind()), nil
	case reflect.Struct:
		return c.structPlan(t)
	case reflect.Slice, reflect.Array, reflect.Pointer:
		if err := c.learn(t.Elem()); err != nil {
			return plan{}, err
		}
		switch t.Kind() {
		case reflect.Slice:
			return slicePlan(t, c.plans[t.Elem()]), nil
		case reflect.Array:
			return arrayPlan(t, c.plans[t.Elem()]), nil
		}
		return pointerPlan(t, c.plans[t.Elem()]), nil
	case reflect.Map:
		return c.mapPlan(t)
	}
	return plan{}, fmt.Errorf("a recording cannot hold a %s", t)
}

func (c *Codec) structPlan(t reflect.Type) (plan, error) {
	fields := make([]*plan, t.NumField())
	names := make([]string, t.NumField())
	for i := range fields {
		f := t.Field(i)
		if !f.IsExported() {
			return plan{}, fmt.Errorf("a recording cannot hold %s: field %s is not exported", t, f.Name)
		}
		if err := c.learn(f.Type); err != nil {
			return plan{}, fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		fields[i], names[i] = c.plans[f.Type], f.Name+" "+f.Type.String()
	}
	c.layout[t.String()] = strings.Join(names, ", ")
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			for i, f := range fields {
				b = f.write(c, b, v.Field(i))
			}
			return b
		},
		read: func(c *Codec, r *reader, v reflect.Value) {
			for i, f := range fields {
				f.read(c, r, v.Field(i))
			}
		},
	}, nil
}

// mapPlan is for maps with string keys, in order of key.
func (c *Codec) mapPlan(t reflect.Type) (plan, error) {
	if t.Key().Kind() != reflect.String {
		return plan{}, fmt.Errorf("a recording cannot hold a %s", t)
	}
	if err := c.learn(t.Elem()); err != nil {
		return plan{}, err
	}
	elem := c.plans[t.Elem()]
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			if c.none(v) {
				return append(b, 0)
			}
			keys := v.MapKeys()
			slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
			b = binary.AppendUvarint(b, uint64(len(keys))+1)
			for _, k := range keys {
				b = elem.write(c, appendText(b, k.String()), v.MapIndex(k))
			}
			return b
		},
		read: func(c *Codec, r *reader, v reflect.Value) {
			n, ok := r.length()
			if !ok {
				return
			}
			v.Set(reflect.MakeMap(t))
			for i := 0; i < n && r.err == nil; i++ {
				k := reflect.ValueOf(r.text()).Convert(t.Key())
				e := reflect.New(t.Elem()).Elem()
				elem.read(c, r, e)
				v.SetMapIndex(k, e)
			}
		},
	}, nil
}
