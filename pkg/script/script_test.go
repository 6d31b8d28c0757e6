package script

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func TestParse(t *testing.T) {
	s, err := Parse([]byte("# why\napply a.yaml 'b c' # both\n! grep 'it''s'\nonce\n-- a.yaml --\nx\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Command{
		{Line: 2, Verb: "apply", Args: []string{"a.yaml", "b c"}},
		{Line: 3, Not: true, Verb: "grep", Args: []string{"it's"}},
	}
	if d := cmp.Diff(want, s.Commands); d != "" {
		t.Error(d)
	}
	if text, ok := s.File("a.yaml"); !ok || string(text) != "x\n" || !s.Once {
		t.Errorf("file %q, once %v", text, s.Once)
	}
	for text, want := range map[string]string{"fly\n": `no verb "fly"`, "step\n-- --\n": "a file without a name", "grep 'x\n": "not closed"} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: found %v, wanted %q", text, err, want)
		}
	}
}

// TestARunStopsWhereItFails checks that every way of asking can say no: a test
// that cannot fail is a defect.
func TestARunStopsWhereItFails(t *testing.T) {
	for text, want := range map[string]string{
		"apply none\n":                       `no file "none"`,
		"apply\n":                            "usage: apply FILE",
		"verbless":                           "no verb",
		"! step\n":                           "should have failed",
		"step\nops\ngrep x\n":                "not in the output",
		"down XX\nup XX\nstep\n":             "",
		"explain pod/a\n":                    "no unit pod/a",
		"step\nops\ncmp a\n-- a --\nthere\n": "wanted (-) and found (+)",
		"tick x\n":                           "invalid syntax",
		"snapshot XX\n":                      `no database "XX"`,
		"lose it\n":                          "wanted applied or dropped",
		"fail g bad text\n":                  "wanted io or constraint",
		"trace a b:1/tcp maybe\n":            "wanted allow or drop",
		"trace a/b c:1/tcp drop\n":           `no pod "a/b"`,
		"foreign a\n-- a --\nNB:A(x)\n":      "cannot be written",
	} {
		s, err := Parse([]byte(text))
		if err == nil {
			sh := New(Config{Databases: Offline(rows.NB), Door: func([]byte) ([]intent.Object, []rows.Problem) { return nil, nil }})
			err = s.Run(sh, false)
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: found %v, wanted %q", text, err, want)
		}
	}
}

func TestUpdateWritesWhatWasFound(t *testing.T) {
	s, err := Parse([]byte("step\nmarks none\ncmp want\n-- want --\nold\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(New(Config{Databases: Offline(rows.NB)}), true); err != nil {
		t.Fatal(err)
	}
	if got := string(s.Format()); got != "step\nmarks none\ncmp want\n-- want --\ncommitted\ninstalled\n" {
		t.Errorf("found %q", got)
	}
}

func TestEveryVerbIsExplained(t *testing.T) {
	for name, v := range verbs {
		if v.help == "" || v.run == nil || !strings.Contains(Verbs(), name) {
			t.Errorf("%s: no help, or not listed", name)
		}
		if v.least > 0 && v.usage == "" {
			t.Errorf("%s: takes arguments and does not say which", name)
		}
	}
}

// FuzzParse checks that any text is parsed or refused, and that what is parsed
// can be run without a panic, and written and parsed again.
func FuzzParse(f *testing.F) {
	f.Add("# why\napply a.yaml\nstep\nrows\ncmp want\n-- a.yaml --\nx\n-- want --\n")
	f.Add("! step\ntrace a/b!c d/e:1/tcp allow\nfail g io 'x'\nlose applied\nstep\ntick 5\nrestart\nstep\nup NB\n")
	f.Add("deliver\nsynced\nsnapshot NB\ndown NB\nstep\nup NB\nstep\nbatch -3\nstep\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse([]byte(text))
		if err != nil {
			return
		}
		again, err := Parse(s.Format())
		if err != nil {
			t.Fatalf("%v in its own text", err)
		}
		if d := cmp.Diff(s.Commands, again.Commands); d != "" && !strings.Contains(text, "-- ") {
			t.Fatal(d)
		}
		sh := New(Config{Databases: Offline(rows.NB), Door: func([]byte) ([]intent.Object, []rows.Problem) { return nil, nil }})
		_ = s.Run(sh, false) // most scripts fail
	})
}
