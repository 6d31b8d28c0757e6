package rows

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const textExample = `NB:Logical_Switch(node1)
  name "node1"
  other_config mcast_snoop="true" subnet="10.244.0.0/24"
NB:Logical_Switch_Port(default/web)  parent NB:Logical_Switch(node1).ports  uses NB/meter/x NB/port-group/"a b"
  addresses "0a:58:0a:f4:00:05 10.244.0.5"
  enabled false
  tag 7
OVS:QoS("q 1")
  queues 0=OVS:Queue(q0) 1=OVS:Queue("q(1)")
edge NB:Address_Set(x).addresses "10.244.0.5"
edge NB:NB_Global(.).options "a key"="v"
edge NB:NB_Global(.).options northd_probe="1\n2"
`

func TestTextComesBack(t *testing.T) {
	rs, es, err := Parse(textExample)
	if err != nil {
		t.Fatal(err)
	}
	if got := Format(rs, es); got != textExample {
		t.Errorf("got\n%s\nwanted\n%s", got, textExample)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"  name \"x\"":                 "a column without a row",
		"NB:A(x)\nNB:A(x)":             "twice",
		"NB:A(x)\n  a 1\n  a 2":        "column a is there twice",
		"NB:A(x)\n  a \"1\" \"1\"":     "an element is there twice",
		"NB:A(x)\n  a k=\"1\" k=\"2\"": "an element is there twice",
		"NB:A(x)\n  a word":            "wanted a quoted string",
		"NB:A(x)\n  a \"open":          "wanted a quoted string",
		"NB:A(x)\n  a \"1\"\"2\"":      "wanted a blank",
		"NB:A(x) is":                   "wanted parent",
		"NB:A(x) parent NB:B(y)":       "wanted .column",
		"NB:A(x) uses meter":           "wanted DB/kind/name",
		"A(x)":                         "wanted DB:Table(id)",
		"NB:A()":                       "wanted an id",
		"NB:A(x":                       "wanted )",
		"edge NB:A(x).c \"1\" \"2\"":   "2 elements",
		"edge NB:A(x).c \"1\"\nedge NB:A(x).c \"1\"": "the edge is there twice",
	} {
		if _, _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: found %v, wanted an error with %q", text, err, want)
		}
	}
}

// TestFormatOfAnyRow writes random rows, with the runes that have a meaning in
// the text, and reads them back.
func TestFormatOfAnyRow(t *testing.T) {
	for seed := range uint64(2000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		rs := []Row{g.row("a"), g.row("b")}
		es := []Edge{{Row: g.ref(), Column: "c", Key: g.atom(), Value: g.atom()}}
		text := Format(rs, es)
		backRows, backEdges, err := Parse(text)
		if err != nil {
			t.Fatalf("seed %d: %v in\n%s", seed, err, text)
		}
		slices.SortFunc(rs, func(a, b Row) int { return a.Ref.Compare(b.Ref) })
		if !slices.EqualFunc(rs, backRows, Row.Equal) || !slices.Equal(es, backEdges) {
			t.Fatalf("seed %d: came back as\n%s\nwanted\n%s", seed, Format(backRows, backEdges), text)
		}
	}
}

type generator struct{ *rand.Rand }

func (g generator) string() string {
	const runes = "ab1_-./:=\"\\() \n#é\x00\xff"
	b := make([]byte, g.IntN(5))
	for i := range b {
		b[i] = runes[g.IntN(len(runes))]
	}
	return string(b)
}

func (g generator) ref() Ref { return Ref{"NB:Some_Table", g.string()} }

func (g generator) atom() Atom {
	return []Atom{S(g.string()), I(int64(g.Uint64())), B(g.IntN(2) == 0), R(g.ref())}[g.IntN(4)]
}

func (g generator) row(column string) Row {
	v := Set(g.atom(), g.atom())
	if g.IntN(2) == 0 {
		v = Map(map[string]string{g.string(): g.string(), "k": g.string()})
	}
	r := New("NB:Logical_Switch", column+g.string(), map[string]Value{column: v, "z": Strings(g.string(), g.string())})
	if g.IntN(2) == 0 {
		r.Parent = Parent{g.ref(), "ports"}
	}
	if g.IntN(2) == 0 {
		r = r.Using(Name{NB, Meter, g.string()}, Name{SB, PortGroup, g.string()})
	}
	return r
}

func FuzzParse(f *testing.F) {
	f.Add(textExample)
	f.Add("NB:A(\"\")\n  a -1 true \"\\xff\"\n")
	f.Add("edge NB:A(x).c k=NB:B(y)")
	f.Fuzz(func(t *testing.T, text string) {
		rs, es, err := Parse(text)
		if err != nil {
			return
		}
		once := Format(rs, es)
		rs2, es2, err := Parse(once)
		if err != nil {
			t.Fatalf("%v in its own text\n%s", err, once)
		}
		if !slices.EqualFunc(rs, rs2, Row.Equal) || !slices.Equal(es, es2) {
			t.Fatalf("%q came back as %q", once, Format(rs2, es2))
		}
	})
}
