package soup_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/soup"
)

func world() soup.World {
	return soup.World{Nodes: []string{"n1", "n2"}, Daemons: []string{"northd"}, Pods: 4, Rare: []string{soup.Register, soup.Wipe}}
}

func TestASeedGivesTheSameSteps(t *testing.T) {
	first := soup.Text(soup.Random(7, 200, world()))
	if first != soup.Text(soup.Random(7, 200, world())) {
		t.Error("seed 7 gives other steps the second time")
	}
	if first == soup.Text(soup.Random(8, 200, world())) {
		t.Error("seeds 7 and 8 give the same steps")
	}
	steps, err := soup.Parse(first)
	if err != nil || soup.Text(steps) != first {
		t.Errorf("the text of the steps does not give them: %v", err)
	}
	for _, kind := range []string{soup.Create, soup.Delete, soup.Recreate, soup.Label, soup.Kill, soup.Restart, soup.Edit, soup.Register, soup.Wipe} {
		if !slices.ContainsFunc(steps, func(s soup.Step) bool { return s.Do == kind }) {
			t.Errorf("none of 200 steps is %s", kind)
		}
	}
}

func TestWhatIsNoStepIsRefused(t *testing.T) {
	for _, text := range []string{"explode n1", "create p1", "kill northd", "delete p1 p2"} {
		if _, err := soup.Parse("# a comment\n\n" + text); err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestShrinkFindsTheStepsThatMatter fails whenever a pod is made, a daemon killed after it,
// and the pod deleted after that.
func TestShrinkFindsTheStepsThatMatter(t *testing.T) {
	fails := func(steps []soup.Step) bool {
		state := 0
		for _, s := range steps {
			switch {
			case state == 0 && s.Do == soup.Create && s.Args[0] == "p1":
				state = 1
			case state == 1 && s.Do == soup.Kill:
				state = 2
			case state == 2 && s.Do == soup.Delete && s.Args[0] == "p1":
				return true
			}
		}
		return false
	}
	long := soup.Random(3, 300, world())
	if !fails(long) {
		t.Fatal("the long list does not fail: take another seed")
	}
	runs := 0
	short := soup.Shrink(long, fails, func() bool { runs++; return true })
	if len(short) != 3 || !fails(short) {
		t.Errorf("shrunk to\n%s", soup.Text(short))
	}
	t.Logf("%d steps in %d runs", len(short), runs)
	if rest := soup.Shrink(long, fails, func() bool { return false }); len(rest) != 300 {
		t.Errorf("%d steps when no run is allowed", len(rest))
	}
}
