package soup

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seeds    = flag.Int("seeds", 60, "how many seeds to play in each zone mode")
	first    = flag.Uint64("seed", 1, "the first seed")
	findBugs = flag.Bool("bugs", false, "put bugs in, and find and shrink them: minutes")
	steps    = flag.Int("steps", 150, "how many steps a seed has")
)

// play runs steps in a bubble whose time is its own.
func play(t *testing.T, o options, steps []step) (err error) {
	synctest.Test(t, func(*testing.T) { err = run(o, steps) })
	return err
}

// report shrinks a failing list and prints it as a script.
func report(t *testing.T, o options, seed uint64, steps []step, err error) []step {
	t.Helper()
	short := shrink(steps, func(s []step) bool { return play(t, o, s) != nil })
	t.Logf("seed %d fails: %v\n\nshrunk from %d steps to %d:\n\n# %v\n%s", seed, err, len(steps), len(short), play(t, o, short), format(short))
	return short
}

func TestSoup(t *testing.T) {
	for _, o := range []options{{}, {global: true}} {
		t.Run(fmt.Sprintf("global=%v", o.global), func(t *testing.T) {
			began := time.Now()
			for i := range *seeds {
				seed := *first + uint64(i)
				list := random(seed, *steps)
				if err := play(t, o, list); err != nil {
					report(t, o, seed, list, err)
					t.FailNow()
				}
			}
			t.Logf("%d seeds of %d steps in %v", *seeds, *steps, time.Since(began).Round(time.Millisecond))
		})
	}
}

// bug is one that is put in, and a script that it fails.
type bug struct {
	name   string
	opts   options
	script string
}

// bugs were real ones, or might be.
func bugs() []bug {
	return []bug{
		{"addresses do not rest", options{quarantine: -1}, "next-in-turn-has-just-ended"},
		{"an agent forgets what rests", options{noJournal: true}, "recreated-over-restart"},
		{"a new manager forgets what rests", options{forgetRests: true}, "leader-ends-in-the-middle"},
		{"agents do not hear of a node's end", options{deaf: true}, "node-goes"},
		{"a new manager believes annotations alone", options{credulous: true}, "edited-while-nobody-leads"},
		{"a new agent does not know what it ran with", options{amnesic: true}, "edited-and-started-anew"},
		{"addresses rest before their rows are gone", options{hasty: true}, "row-outlives-rest"},
	}
}

// TestOracleBites plays scripts with the bugs that they were found with.
func TestOracleBites(t *testing.T) {
	for _, b := range bugs() {
		text, err := os.ReadFile("testdata/" + b.script + ".soup")
		if err != nil {
			t.Fatal(err)
		}
		if play(t, b.opts, parse(string(text))) == nil {
			t.Errorf("%s: %s passes", b.name, b.script)
		}
	}
}

// TestBugsAreFoundAndShrunk plays the soup with each bug: a seed must find it, and
// shrink to a list that a person reads at a glance. Minutes: make soup.
func TestBugsAreFoundAndShrunk(t *testing.T) {
	if !*findBugs {
		t.Skip("takes minutes: make soup")
	}
	const many, length = 200, 400 // a node's addresses come round late
	for _, b := range bugs() {
		if b.opts.hasty {
			continue // a minute without NB, and just that address next: seeds find it once in thousands
		}
		t.Run(b.name, func(t *testing.T) {
			for seed := uint64(1); seed <= many; seed++ {
				list := random(seed, length)
				err := play(t, b.opts, list)
				if err == nil {
					continue
				}
				if short := report(t, b.opts, seed, list, err); len(short) > 20 {
					t.Errorf("shrunk to %d steps only", len(short))
				}
				return
			}
			t.Errorf("%d seeds do not find it", many)
		})
	}
}

// TestShrink takes everything away but the two steps that matter.
func TestShrink(t *testing.T) {
	list := parse("a\nb\nc\nd\ne\nf\ng")
	short := shrink(list, func(s []step) bool {
		text := format(s)
		return strings.Contains(text, "b") && strings.Contains(text, "g")
	})
	if got := format(short); got != "b\ng\n" {
		t.Errorf("shrunk to %q", got)
	}
}

// TestSameSeedSameRun: a failure that is printed can be played again.
func TestSameSeedSameRun(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		list := random(seed, *steps)
		if a, b := trail(t, list), trail(t, parse(format(list))); a != b {
			t.Errorf("seed %d ran in two ways: %s, %s", seed, a, b)
		}
	}
}

// trail tells one run from another: what was allocated and written in it.
func trail(t *testing.T, steps []step) (s string) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld(options{})
		for _, st := range slices.Concat(beginning(), steps, parse("settle")) {
			if err := w.do(st); err != nil {
				s = err.Error()
				return
			}
		}
		s = fmt.Sprint(w.count, " allocations, ", w.api.version, " writes, ", w.sandboxes, " sandboxes")
	})
	return s
}

// TestRegressions plays what was found and shrunk.
func TestRegressions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.soup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []options{{}, {global: true}} {
				if err := play(t, o, parse(string(text))); err != nil {
					t.Errorf("global=%v: %v", o.global, err)
				}
			}
		})
	}
}
