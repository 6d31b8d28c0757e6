package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/portolan-cni/portolan/pkg/engine"
)

// Replayed is one step that was run again.
type Replayed struct {
	N      int // from 1
	Events []engine.Event
	Ready  engine.Ready
	Engine *engine.Engine // after the step
	// Differs says how the answer is not the recorded one; "": it is.
	Differs string
	// Open says that the process ended in this step, so nothing can be compared.
	Open bool
}

// Report is what a replay came to.
type Report struct {
	Header       Header `json:"header"`
	Steps        int    `json:"steps"`
	Events       int    `json:"events"`
	Transactions int    `json:"transactions"`
	Operations   int    `json:"operations"`
	Checkpoints  int    `json:"checkpoints"`       // compared, but the first, where the run begins
	First        int    `json:"first,omitempty"`   // the first step that differs; 0: none
	Differs      string `json:"differs,omitempty"` // how
	Open         bool   `json:"open,omitempty"`    // the process ended in the last step
}

// Replay runs an engine of the given kinds from a file's first checkpoint through
// its steps, and compares every answer, and the engine itself at every further
// checkpoint. It goes on after a difference as long as see, which is told of every
// step and may be nil, returns nil.
func Replay(f *File, kinds []engine.UnitKind, see func(Replayed) error) (Report, error) {
	r := &replay{file: f, report: Report{Header: f.Header}, cfg: engine.Config{
		Kinds: kinds, Databases: f.Header.Databases, MaxOps: f.Header.MaxOps,
	}}
	for {
		entry, err := f.Next()
		if errors.Is(err, io.EOF) {
			if r.engine == nil {
				err = errors.New("the recording has no checkpoint")
				return r.report, err
			}
			return r.report, nil
		}
		if err != nil {
			return r.report, fmt.Errorf("after step %d: %w", r.report.Steps, err)
		}
		if entry.Checkpoint != nil {
			r.checkpoint(*entry.Checkpoint)
			continue
		}
		if r.engine == nil {
			return r.report, errors.New("the recording begins without a checkpoint")
		}
		done := r.step(entry.Step)
		if see == nil {
			continue
		}
		if err := see(done); err != nil {
			return r.report, err
		}
	}
}

type replay struct {
	file   *File
	cfg    engine.Config
	engine *engine.Engine
	report Report
	sum    []byte
}

func (r *replay) checkpoint(c engine.Checkpoint) {
	r.report.Checkpoints++
	if r.engine == nil {
		r.engine = engine.Resume(r.cfg, c)
		return
	}
	mine := r.engine.Checkpoint()
	mine.Stats = c.Stats // a resumed engine has compiled more
	codec := r.file.codec
	codec.loose = true
	same := bytes.Equal(codec.Append(nil, &c), codec.Append(nil, &mine))
	codec.loose = false
	if !same {
		r.differs("the engine's state is not that of the recording's checkpoint here")
	}
}

func (r *replay) differs(how string) {
	if r.report.First == 0 {
		r.report.First, r.report.Differs = max(r.report.Steps, 1), how
	}
}

func (r *replay) step(s *Step) Replayed {
	r.report.Steps++
	r.report.Events += len(s.Events)
	done := Replayed{N: r.report.Steps, Events: s.Events, Ready: r.engine.Step(s.Events), Engine: r.engine, Open: s.Answer == nil}
	r.report.Open = done.Open
	r.report.Transactions += len(done.Ready.Txns)
	for _, t := range done.Ready.Txns {
		r.report.Operations += t.Len()
	}
	if !done.Open {
		if done.Differs = r.compare(*s.Answer, done.Ready); done.Differs != "" {
			r.differs(done.Differs)
		}
	}
	return done
}

// compare says how an answer is not as recorded.
func (r *replay) compare(want Answer, got engine.Ready) string {
	for i := range max(len(want.Txns), len(got.Txns)) {
		switch {
		case i >= len(got.Txns):
			t := want.Txns[i]
			return fmt.Sprintf("transaction %d in %s with %d operations was recorded, and is not made again", t.ID, t.DB, t.Ops)
		case i >= len(want.Txns):
			t := got.Txns[i]
			return fmt.Sprintf("transaction %d in %s with %d operations is made, and was not recorded", t.ID, t.DB, t.Len())
		}
		var t Transaction
		t, r.sum = digest(r.file.codec, r.sum, &got.Txns[i])
		if w := want.Txns[i]; t != w {
			return fmt.Sprintf("transaction %d in %s: recorded %d in %s with %d operations and digest %x, made again with %d and %x",
				t.ID, t.DB, w.ID, w.DB, w.Ops, w.Digest[:4], t.Ops, t.Digest[:4])
		}
	}
	if !slices.Equal(want.Resync, got.Resync) {
		return fmt.Sprintf("databases to be read again: recorded %v, now %v", want.Resync, got.Resync)
	}
	if want.Wake != got.Wake {
		return fmt.Sprintf("the next wake: recorded tick %d, now %d", want.Wake, got.Wake)
	}
	return ""
}
