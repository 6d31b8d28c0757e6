// Package soup makes random lists of things that happen to a cluster, and finds the
// short list in a long one that fails. What a step does, and what must hold after
// it, is the business of who runs them: the lab's suite.
//
//	seed ──Random──> []Step ──run──> error? ──Shrink──> the few steps that matter
//
// Every step is allowed at any time: one that finds nothing to do does nothing. So
// any part of a list is a list.
package soup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// The things that happen.
const (
	Create   = "create"   // POD NODE [host]: a pod, of the node's network when host
	Delete   = "delete"   // POD
	Recreate = "recreate" // POD: deleted, and made again under its name at once
	Label    = "label"    // POD VALUE
	Kill     = "kill"     // DAEMON NODE
	Restart  = "restart"  // NODE: the agent is told to end
	Edit     = "edit"     // NODE [OTHER]: its subnets' annotation becomes nonsense, or what the other's is
	Register = "register" // NODE: deleted, and registered again by its kubelet
	Wipe     = "wipe"     // DATABASE NODE
	Sabotage = "sabotage" // NODE: no longer answers a ping, and nobody mends that. Never random: it shows that what is wrong is found.
)

// Step is one thing that happens.
type Step struct {
	Do   string
	Args []string
}

// String is the step's text: its words.
func (s Step) String() string { return strings.Join(append([]string{s.Do}, s.Args...), " ") }

// Text is a list's, a step a line.
func Text(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// Parse is the inverse of Text. Empty lines and those that begin with # are none.
func Parse(text string) ([]Step, error) {
	arguments := map[string][2]int{
		Create: {2, 3}, Delete: {1, 1}, Recreate: {1, 1}, Label: {2, 2}, Kill: {2, 2}, Restart: {1, 1},
		Edit: {1, 2}, Register: {1, 1}, Wipe: {2, 2}, Sabotage: {1, 1},
	}
	var out []Step
	for n, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		want, ok := arguments[words[0]]
		if got := len(words) - 1; !ok || got < want[0] || got > want[1] {
			return nil, fmt.Errorf("line %d: %q is no step", n+1, line)
		}
		out = append(out, Step{words[0], words[1:]})
	}
	return out, nil
}

// World is what steps are about.
type World struct {
	Nodes   []string
	Daemons []string // that may be killed on any node
	Pods    int      // how many names pods have
	// Rare are the kinds of step that cost tens of seconds, and come seldom.
	Rare []string
}

// Random makes n steps from a seed: the same for the same world and seed.
func Random(seed uint64, n int, w World) []Step {
	dice := rand.New(rand.NewPCG(seed, 0))
	node := func() string { return w.Nodes[dice.IntN(len(w.Nodes))] }
	pod := func() string { return fmt.Sprintf("p%d", dice.IntN(w.Pods)) }
	var out []Step
	for len(out) < n {
		switch roll := dice.IntN(100); {
		case roll < 40:
			args := []string{pod(), node()}
			if dice.IntN(8) == 0 {
				args = append(args, "host")
			}
			out = append(out, Step{Create, args})
		case roll < 55:
			out = append(out, Step{Delete, []string{pod()}})
		case roll < 67:
			out = append(out, Step{Recreate, []string{pod()}})
		case roll < 73:
			out = append(out, Step{Label, []string{pod(), fmt.Sprintf("v%d", dice.IntN(4))}})
		case roll < 86:
			out = append(out, Step{Kill, []string{w.Daemons[dice.IntN(len(w.Daemons))], node()}})
		case roll < 92:
			out = append(out, Step{Restart, []string{node()}})
		case roll < 96:
			args := []string{node()}
			if other := node(); other != args[0] {
				args = append(args, other)
			}
			out = append(out, Step{Edit, args})
		case len(w.Rare) > 0:
			s := Step{Do: w.Rare[dice.IntN(len(w.Rare))], Args: []string{node()}}
			if s.Do == Wipe {
				s.Args = []string{[]string{"NB", "SB"}[dice.IntN(2)], s.Args[0]}
			}
			out = append(out, s)
		}
	}
	return out
}

// Shrink finds a part of a failing list that still fails and of which no step, nor a
// run of steps, can be left out, as far as fails can be asked: it is not called again once more is
// false.
func Shrink(steps []Step, fails func([]Step) bool, more func() bool) []Step {
	for size := max(1, len(steps)/2); ; size = max(1, size/2) {
		before := len(steps)
		for from := 0; from < len(steps); {
			if !more() {
				return steps
			}
			rest := slices.Concat(steps[:from], steps[min(from+size, len(steps)):])
			if fails(rest) {
				steps = rest
			} else {
				from += size
			}
		}
		if size == 1 && len(steps) == before {
			return steps
		}
	}
}
