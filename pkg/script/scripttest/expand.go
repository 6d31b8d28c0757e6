package scripttest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/script"
)

// state is the intent at one step of a script.
type state map[intent.Key]intent.Object

// move is one change of intent: object nil deletes.
type move struct {
	key    intent.Key
	object intent.Object
}

// expansion runs a script's states in another way: it gets the states in order,
// the empty one first.
type expansion struct {
	name string
	run  func(sh *script.Shell, states []state) error
}

func expansions() []expansion {
	return []expansion{
		{"forward", forward}, {"reversed", reversed}, {"split", split}, {"split-reversed", splitReversed},
		{"squashed", squashed}, {"duplicated", duplicated}, {"restarted", restarted},
	}
}

// expand runs all expansions of a script, each with databases of its own.
func (s Suite) expand(t *testing.T, sc *script.Script) {
	for _, x := range expansions() {
		t.Run(x.name, func(t *testing.T) {
			sh := script.New(s.New(t))
			states, err := s.states(sh, sc)
			if err != nil {
				t.Fatal(err)
			}
			others := sh.Others()
			if err := x.run(sh, states); err != nil {
				t.Fatal(err)
			}
			if err := to(sh, state{}); err != nil {
				t.Fatalf("all deleted: %v", err)
			}
			if err := Empty(sh); err != nil {
				t.Error(err)
			}
			if d := diff(others, sh.Others()); d != "" {
				t.Errorf("rows of others before (-) and after (+):\n%s", d)
			}
		})
	}
}

// states collects what a script's steps make of the intent, and writes what it
// says others have written.
func (s Suite) states(sh *script.Shell, sc *script.Script) ([]state, error) {
	now := state{}
	out := []state{{}}
	dirty := false
	for _, c := range sc.Commands {
		switch c.Verb {
		case "foreign":
			text, _ := sc.File(c.Args[0])
			if err := sh.Foreign(string(text)); err != nil {
				return nil, err
			}
		case "apply", "delete":
			dirty = true
			if err := apply(sh, sc, now, c); err != nil {
				return nil, err
			}
		case "step", "deliver":
			if dirty {
				out = append(out, maps.Clone(now))
			}
			dirty = false
		}
	}
	return out, nil
}

func apply(sh *script.Shell, sc *script.Script, now state, c script.Command) error {
	for _, name := range c.Args {
		if k, ok := intent.ParseKey(name); ok && c.Verb == "delete" && now[k] != nil {
			delete(now, k)
			continue
		}
		text, _ := sc.File(name)
		objects, err := sh.Read(text)
		if err != nil {
			return err
		}
		for _, o := range objects {
			delete(now, o.Key())
			if c.Verb == "apply" {
				now[o.Key()] = o
			}
		}
	}
	return nil
}

// moves are the changes from one state to another, deletions first.
func moves(from, to state) []move {
	var out []move
	for _, k := range slices.SortedFunc(maps.Keys(from), intent.Key.Compare) {
		if to[k] == nil {
			out = append(out, move{key: k})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(to), intent.Key.Compare) {
		if from[k] == nil || !from[k].Equal(to[k]) {
			out = append(out, move{k, to[k]})
		}
	}
	return out
}

func (m move) on(sh *script.Shell) {
	if m.object == nil {
		sh.Delete(m.key)
		return
	}
	sh.Put(m.object)
}

// to brings a shell to a state in one step and checks it there.
func to(sh *script.Shell, next state) error {
	for _, m := range moves(sh.Objects(), next) {
		m.on(sh)
	}
	return rest(sh)
}

func rest(sh *script.Shell) error {
	if err := sh.Settle(); err != nil {
		return err
	}
	return Check(sh)
}

func forward(sh *script.Shell, states []state) error {
	for i, st := range states {
		if err := to(sh, st); err != nil {
			return fmt.Errorf("state %d: %w", i, err)
		}
	}
	return nil
}

func reversed(sh *script.Shell, states []state) error {
	for i, st := range slices.Backward(states) {
		if err := to(sh, st); err != nil {
			return fmt.Errorf("state %d: %w", i, err)
		}
	}
	return nil
}

func split(sh *script.Shell, states []state) error {
	return eachMove(sh, states, func(ms []move) []move { return ms })
}

func splitReversed(sh *script.Shell, states []state) error {
	return eachMove(sh, states, func(ms []move) []move {
		slices.Reverse(ms)
		return ms
	})
}

func eachMove(sh *script.Shell, states []state, order func([]move) []move) error {
	for i, st := range states {
		for _, m := range order(moves(sh.Objects(), st)) {
			m.on(sh)
			if err := rest(sh); err != nil {
				return fmt.Errorf("state %d, %v alone: %w", i, m.key, err)
			}
		}
	}
	return nil
}

// squashed goes through all states in one batch.
func squashed(sh *script.Shell, states []state) error {
	for _, st := range states {
		for _, m := range moves(sh.Objects(), st) {
			m.on(sh)
		}
	}
	return rest(sh)
}

// duplicated says everything twice in each batch, and then once more.
func duplicated(sh *script.Shell, states []state) error {
	for i, st := range states {
		ms := moves(sh.Objects(), st)
		for _, m := range append(ms, ms...) {
			m.on(sh)
		}
		if err := rest(sh); err != nil {
			return fmt.Errorf("state %d: %w", i, err)
		}
		for _, o := range st {
			sh.Put(o)
		}
		if err := sh.Settle(); err != nil {
			return err
		}
		if len(sh.Ops()) > 0 {
			return fmt.Errorf("state %d, applied again, writes:\n%s", i, sh.Ops()[0])
		}
	}
	return nil
}

// restarted restarts before every step; what the step changes has come while
// the process was away. Then it restarts again.
func restarted(sh *script.Shell, states []state) error {
	for i, st := range states {
		for _, m := range moves(sh.Objects(), st) {
			m.on(sh)
		}
		sh.Restart()
		if err := rest(sh); err != nil {
			return fmt.Errorf("state %d: %w", i, err)
		}
		sh.Restart()
		if err := sh.Settle(); err != nil {
			return err
		}
		if len(sh.Ops()) > 0 {
			return fmt.Errorf("state %d, a restart writes:\n%s", i, sh.Ops()[0])
		}
	}
	return nil
}
