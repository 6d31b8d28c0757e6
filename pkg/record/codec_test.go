package record

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// fill sets every field of a value at random, at any depth.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(address(r)))
		return
	case netip.Prefix:
		a := address(r)
		v.Set(reflect.ValueOf(netip.PrefixFrom(a, r.IntN(a.BitLen()+1))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"", "a", "NB", "ä\x00\xff", strings.Repeat("x", r.IntN(300))}[r.IntN(5)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(63) * int64(1-2*r.IntN(2)) >> (64 - v.Type().Bits()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()) >> r.IntN(v.Type().Bits()))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Pointer:
		if r.IntN(4) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem())
		}
	case reflect.Slice:
		if r.IntN(4) > 0 {
			v.Set(reflect.MakeSlice(v.Type(), r.IntN(4), 4))
			for i := range v.Len() {
				fill(r, v.Index(i))
			}
		}
	case reflect.Map:
		if r.IntN(4) > 0 {
			v.Set(reflect.MakeMap(v.Type()))
			for i := range r.IntN(4) {
				e := reflect.New(v.Type().Elem()).Elem()
				fill(r, e)
				v.SetMapIndex(reflect.ValueOf("k"+strconv.Itoa(i)).Convert(v.Type().Key()), e)
			}
		}
	case reflect.Interface:
		var all []intent.Object
		for _, k := range []intent.Kind{"Cluster", "Host", "Namespace", "Network", "Node", "Pod"} {
			all = append(all, intent.Kinds()[k])
		}
		o := reflect.New(reflect.TypeOf(all[r.IntN(len(all))]).Elem())
		fill(r, o.Elem())
		v.Set(o)
	default:
		panic("a type that the test cannot fill: " + v.Type().String())
	}
}

func address(r *rand.Rand) netip.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	switch r.IntN(4) {
	case 0:
		return netip.Addr{}
	case 1:
		return netip.AddrFrom4([4]byte(b[:4]))
	case 2:
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom16(b).WithZone("eth0")
}

// TestEverythingComesBack encodes random values of all recorded types: what comes
// back is the same, to the last nil, and has the same bytes.
func TestEverythingComesBack(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		for _, example := range []any{&engine.Event{}, &engine.Checkpoint{}, &engine.Txn{}, &Answer{}} {
			fill(r, reflect.ValueOf(example).Elem())
			data := c.Append(nil, example)
			back := reflect.New(reflect.TypeOf(example).Elem())
			if err := c.Decode(data, back.Interface()); err != nil {
				t.Fatalf("%+v: %v", example, err)
			}
			if !reflect.DeepEqual(example, back.Interface()) {
				t.Fatalf("wanted %+v\nfound %+v", example, back.Interface())
			}
			if again := c.Append(nil, back.Interface()); !bytes.Equal(again, data) {
				t.Fatalf("%+v has other bytes the second time", example)
			}
			if err := c.Decode(data[:len(data)-1], reflect.New(back.Type().Elem()).Interface()); err == nil {
				t.Fatal("a value that was cut off was read")
			}
		}
	}
}

// TestEveryKindIsKnown reads the kinds from intent's source: one that a door can
// put and a recording cannot hold would be found on the day of the accident.
func TestEveryKindIsKnown(t *testing.T) {
	files, err := os.ReadDir("../intent")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), "../intent/"+f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "Kind") {
				return true
			}
			text, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			kind := intent.Kind(text)
			found++
			o := intent.Kinds()[kind]
			if derived := kind == intent.KindSet || kind == intent.KindMember; derived != (o == nil) {
				t.Errorf("kind %s: found %v in intent.Kinds", kind, o)
			}
			if o != nil && o.Key().Kind != kind {
				t.Errorf("kind %s has an object of kind %s", kind, o.Key().Kind)
			}
			return true
		})
	}
	if found < 8 {
		t.Errorf("%d kinds found in the source: the search is wrong", found)
	}
}

func TestCodecRefusesWhatItCannotHold(t *testing.T) {
	type hidden struct{ a int }
	for _, bad := range []any{hidden{}, map[int]string{}, make(chan int), func() {}} {
		if _, err := NewCodec(bad); err == nil {
			t.Errorf("%T was accepted", bad)
		}
	}
	_ = hidden{}.a
}

func FuzzFile(f *testing.F) {
	codec, err := newCodec()
	if err != nil {
		f.Fatal(err)
	}
	var e []engine.Event
	r := rand.New(rand.NewPCG(5, 6))
	for range 3 {
		v := reflect.New(reflect.TypeFor[engine.Event]()).Elem()
		fill(r, v)
		e = append(e, v.Interface().(engine.Event))
	}
	f.Add(codec.Append(nil, &e))
	f.Add(codec.Append(nil, &[]engine.Event{{Snapshot: &engine.Snapshot{DB: rows.NB}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A damaged recording is an error, and never a panic or an exhausted memory.
		var events []engine.Event
		if codec.Decode(data, &events) == nil {
			again := codec.Append(nil, &events)
			var back []engine.Event
			if err := codec.Decode(again, &back); err != nil {
				t.Errorf("what was read cannot be read again: %v", err)
			}
		}
		if file, err := open(bytes.NewReader(data)); err == nil {
			for err == nil {
				_, err = file.Next()
			}
		}
	})
}
