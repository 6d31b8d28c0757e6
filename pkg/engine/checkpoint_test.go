package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// twin follows an engine through a run: before some of its steps it is made anew
// from a checkpoint of the engine, and it must answer every step alike and stand
// alike after it.
type twin struct {
	cfg    engine.Config
	first  *engine.Engine
	second *engine.Engine
	r      *rand.Rand
	taken  int // checkpoints
	err    error
}

func (w *twin) step(e *engine.Engine, events []engine.Event, ready engine.Ready) {
	if e != w.first { // the process has been restarted
		w.first, w.second = e, engine.New(w.cfg)
	}
	answer := w.second.Step(events)
	if d := cmp.Diff(ready, answer, cmpopts.EquateEmpty(), cmp.AllowUnexported(said{})); d != "" {
		w.err = errors.Join(w.err, fmt.Errorf("after %d checkpoints the answers differ:\n%s", w.taken, d))
	}
	c := e.Checkpoint()
	mine := w.second.Checkpoint()
	mine.Stats.Compiles = c.Stats.Compiles
	if d := cmp.Diff(c, mine, cmpopts.EquateEmpty(), cmp.AllowUnexported(said{})); d != "" {
		w.err = errors.Join(w.err, fmt.Errorf("after %d checkpoints the engines differ:\n%s", w.taken, d))
	}
	if w.r.IntN(3) == 0 {
		w.second = engine.Resume(w.cfg, c)
		w.taken++
	}
}

// TestCheckpointGoesOn runs the model's random runs, with all that may happen to
// an engine, and resumes a second one from checkpoints all along.
func TestCheckpointGoesOn(t *testing.T) {
	runs := uint64(150)
	if testing.Short() {
		runs = 20
	}
	taken := 0
	for seed := range runs {
		w := &twin{
			cfg: engine.Config{Kinds: toyKinds(), Databases: []rows.DB{rows.NB}, Strict: true, MaxOps: 6},
			r:   rand.New(rand.NewPCG(seed, 3)),
		}
		if err := watch(makeEdits(seed, 80), w.step); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if w.err != nil {
			t.Fatalf("seed %d: %v", seed, w.err)
		}
		taken += w.taken
	}
	if taken < int(runs) {
		t.Errorf("%d checkpoints in %d runs: nothing was tested", taken, runs)
	}
}
