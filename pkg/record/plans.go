package record

import (
	"encoding"
	"encoding/binary"
	"reflect"
	"slices"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// scalarPlan writes strings with their length, numbers as varints.
func scalarPlan(k reflect.Kind) plan {
	switch {
	case k == reflect.String:
		return plan{
			write: func(_ *Codec, b []byte, v reflect.Value) []byte { return appendText(b, v.String()) },
			read:  func(_ *Codec, r *reader, v reflect.Value) { v.SetString(r.text()) },
		}
	case k == reflect.Bool:
		return plan{
			write: func(_ *Codec, b []byte, v reflect.Value) []byte {
				if v.Bool() {
					return append(b, 1)
				}
				return append(b, 0)
			},
			read: func(_ *Codec, r *reader, v reflect.Value) { v.SetBool(r.uvarint() == 1) },
		}
	case k >= reflect.Int && k <= reflect.Int64:
		return plan{
			write: func(_ *Codec, b []byte, v reflect.Value) []byte { return binary.AppendVarint(b, v.Int()) },
			read: func(_ *Codec, r *reader, v reflect.Value) {
				u := r.uvarint()
				n := int64(u >> 1)
				if u&1 != 0 {
					n = ^n
				}
				if v.OverflowInt(n) {
					r.fail("%d does not fit into a %s", n, v.Type())
					return
				}
				v.SetInt(n)
			},
		}
	}
	return plan{
		write: func(_ *Codec, b []byte, v reflect.Value) []byte { return binary.AppendUvarint(b, v.Uint()) },
		read: func(_ *Codec, r *reader, v reflect.Value) {
			n := r.uvarint()
			if v.OverflowUint(n) {
				r.fail("%d does not fit into a %s", n, v.Type())
				return
			}
			v.SetUint(n)
		},
	}
}

func slicePlan(t reflect.Type, elem *plan) plan {
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			if c.none(v) {
				return append(b, 0)
			}
			n := v.Len()
			b = binary.AppendUvarint(b, uint64(n)+1)
			for i := range n {
				b = elem.write(c, b, v.Index(i))
			}
			return b
		},
		read: func(c *Codec, r *reader, v reflect.Value) {
			n, ok := r.length()
			if !ok {
				return
			}
			// Grown as it is read: a length that lies must not cost memory.
			s := reflect.MakeSlice(t, 0, min(n, 64))
			for i := 0; i < n && r.err == nil; i++ {
				e := reflect.New(t.Elem()).Elem()
				elem.read(c, r, e)
				s = reflect.Append(s, e)
			}
			v.Set(s)
		},
	}
}

func arrayPlan(t reflect.Type, elem *plan) plan {
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			for i := range t.Len() {
				b = elem.write(c, b, v.Index(i))
			}
			return b
		},
		read: func(c *Codec, r *reader, v reflect.Value) {
			for i := range t.Len() {
				elem.read(c, r, v.Index(i))
			}
		},
	}
}

func pointerPlan(t reflect.Type, elem *plan) plan {
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			if v.IsNil() {
				return append(b, 0)
			}
			return elem.write(c, append(b, 1), v.Elem())
		},
		read: func(c *Codec, r *reader, v reflect.Value) {
			if r.uvarint() == 0 {
				return
			}
			p := reflect.New(t.Elem())
			elem.read(c, r, p.Elem())
			v.Set(p)
		},
	}
}

// stringMapPlan is for labels and options, which are many: it allocates nothing.
func stringMapPlan() plan {
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			m, _ := v.Interface().(map[string]string)
			if c.none(v) {
				return append(b, 0)
			}
			c.keys = c.keys[:0]
			for k := range m {
				c.keys = append(c.keys, k)
			}
			slices.Sort(c.keys)
			b = binary.AppendUvarint(b, uint64(len(m))+1)
			for _, k := range c.keys {
				b = appendText(appendText(b, k), m[k])
			}
			return b
		},
		read: func(_ *Codec, r *reader, v reflect.Value) {
			n, ok := r.length()
			if !ok {
				return
			}
			m := make(map[string]string, min(n, 64))
			for i := 0; i < n && r.err == nil; i++ {
				k := r.text()
				m[k] = r.text()
			}
			v.Set(reflect.ValueOf(m))
		},
	}
}

// appender is what netip's types have besides encoding.BinaryMarshaler.
type appender interface {
	AppendBinary(b []byte) ([]byte, error)
}

// binaryPlan is for types that know their own bytes. These are at most 255.
func binaryPlan[T any]() plan {
	return plan{
		write: func(_ *Codec, b []byte, v reflect.Value) []byte {
			var a appender
			if v.CanAddr() {
				a, _ = v.Addr().Interface().(appender) // a pointer in an interface is no allocation
			} else {
				a, _ = v.Interface().(appender)
			}
			at := len(b)
			b, err := a.AppendBinary(append(b, 0))
			if err != nil || len(b)-at-1 > 255 {
				return append(b[:at], 0) // netip's types never fail; an address has a zone of one interface's name
			}
			b[at] = byte(len(b) - at - 1)
			return b
		},
		read: func(_ *Codec, r *reader, v reflect.Value) {
			size := r.bytes(1)
			if r.err != nil {
				return
			}
			data := r.bytes(uint64(size[0]))
			if r.err != nil || len(data) == 0 {
				return
			}
			u, _ := v.Addr().Interface().(encoding.BinaryUnmarshaler)
			if err := u.UnmarshalBinary(data); err != nil {
				r.fail("%s: %w", v.Type(), err)
			}
		},
	}
}

// objectPlan writes an object's kind and then the object; no object is no kind.
func objectPlan() plan {
	return plan{
		write: func(c *Codec, b []byte, v reflect.Value) []byte {
			if v.IsNil() {
				return append(b, 0)
			}
			e := v.Elem().Elem()
			name, ok := c.names[e.Type()]
			if !ok {
				panic("record: objects of type " + e.Type().String() + " are not in intent.Kinds")
			}
			return c.plans[e.Type()].write(c, appendText(b, name), e)
		},
		read: func(c *Codec, r *reader, v reflect.Value) {
			kind := intent.Kind(r.text())
			if kind == "" {
				return
			}
			example := c.kinds[kind]
			if example == nil {
				r.fail("objects of kind %q are not known here", kind)
				return
			}
			p := reflect.New(reflect.TypeOf(example).Elem())
			c.plans[p.Type().Elem()].read(c, r, p.Elem())
			v.Set(p)
		},
	}
}
