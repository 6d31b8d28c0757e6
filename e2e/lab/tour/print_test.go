package tour

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestGrid(t *testing.T) {
	var out strings.Builder
	p := printer{out: &out}
	p.grid(grid{corner: "source", columns: []string{"a", "a longer name"}, rows: []row{
		{"east →", []claim{equal("east → a", "10.0.0.1", "10.0.0.1", nil), {}}},
		{"west", []claim{equal("west → a", "10.0.0.1", "10.0.0.9", nil), equal("west → b", 1, 0, errors.New("refused"))}},
	}})
	want := `
  source  a           a longer name
  east →  ✓ 10.0.0.1
  west    ✗ 10.0.0.9  ✗ error
  ✗ west → a: want 10.0.0.1, got 10.0.0.9
  ✗ west → b: want 1, got an error: refused
`
	if out.String() != want {
		t.Errorf("printed%s\nwant%s", out.String(), want)
	}
	if p.tally.held != 1 || len(p.tally.failed) != 2 {
		t.Errorf("counted %d that hold and %d that do not, want 1 and 2: an empty cell is no claim", p.tally.held, len(p.tally.failed))
	}
}

func TestColourIsAddedOnlyIfAskedFor(t *testing.T) {
	for _, colour := range []bool{false, true} {
		var out strings.Builder
		p := printer{out: &out, colour: colour}
		p.title("Title", "Why.")
		p.command("ls")
		p.claim(equal("x", 1, 1, nil))
		if got := strings.Contains(out.String(), "\x1b["); got != colour {
			t.Errorf("colour %v, but printed %q", colour, out.String())
		}
	}
}

func TestTitlesAreNumberedAndAsWideAsTheText(t *testing.T) {
	var out strings.Builder
	p := printer{out: &out}
	p.title("One", "")
	p.title("Two", "")
	for _, line := range strings.Fields(strings.ReplaceAll(out.String(), " ", "")) {
		if n := utf8.RuneCountInString(line); n != width-3 {
			t.Errorf("%q has %d columns", line, n)
		}
	}
	if !strings.Contains(out.String(), "── 1. One ─") || !strings.Contains(out.String(), "── 2. Two ─") {
		t.Errorf("printed %q", out.String())
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"one\n\t\ttwo", "one two"},
		{"12345 78901", "12345\n78901"},
		{"1234 67890 1", "1234 67890\n1"},
		{"a-word-that-is-too-long x", "a-word-that-is-too-long\nx"},
		{"→→→→ →→→→→", "→→→→ →→→→→"},
	} {
		if got := wrap(c.in, 10); got != c.want {
			t.Errorf("wrap(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestTyped(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want string
	}{
		{[]string{"kubectl", "get", "pods"}, "kubectl get pods"},
		{[]string{"curl", "http://a/b?c=d&e"}, "curl 'http://a/b?c=d&e'"},
		{[]string{"echo", "it's", ""}, `echo 'it'\''s' ''`},
	} {
		if got := typed(c.in); got != c.want {
			t.Errorf("typed(%q) = %s, want %s", c.in, got, c.want)
		}
	}
}

func TestBarAndBits(t *testing.T) {
	for ratio, want := range map[float64]int{0: 0, 0.5: barOne / 2, 1: barOne, 1.25: 30, 9: barWidth} {
		b := bar(ratio)
		if got := strings.Count(b, "█"); got != want || utf8.RuneCountInString(b) != barWidth {
			t.Errorf("bar(%v) = %q: %d full, want %d of %d", ratio, b, got, want, barWidth)
		}
	}
	if b := []rune(bar(0.5)); b[barOne] != '│' {
		t.Errorf("%q has no mark at 1", string(b))
	}
	for rate, want := range map[float64]string{1e6: "8 Mbit/s", 124e6: "992 Mbit/s", 125e6: "1.00 Gbit/s"} {
		if got := bits(rate); got != want {
			t.Errorf("bits(%v) = %s, want %s", rate, got, want)
		}
	}
	if got := compared("a path", 50e6, 100e6); !strings.HasPrefix(got, "a path                  0.50  ████") ||
		!strings.HasSuffix(got, "400 Mbit/s / 800 Mbit/s") {
		t.Errorf("compared: %q", got)
	}
}
