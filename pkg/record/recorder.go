package record

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Config is what a Recorder is made from.
type Config struct {
	// Limit bounds the bytes of recorded steps; 0: 16 MiB. What comes on top: two
	// steps' bytes, and the objects that the two checkpoints keep from the collector.
	Limit int
	// Header says who records; its Layout, Written and Engine are filled in.
	Header Header
	// Engine is the engine's own configuration: what a replay must have again.
	Engine engine.Config
	Logger *slog.Logger // nil: slog.Default()
}

// defaultLimit is enough for a few ten thousand changes of pods.
const defaultLimit = 16 << 20

// segmentSize is what the ring grows by.
const segmentSize = 64 << 10

// Answer is what a step answered, in short.
type Answer struct {
	Txns   []Transaction
	Resync []rows.DB
	Wake   int64
}

// Transaction stands for an engine.Txn.
type Transaction struct {
	DB     rows.DB
	ID     uint64
	Ops    int
	Digest [16]uint8 // the first bytes of the SHA-256 of its encoding
}

// Recorder keeps the last steps of one engine. Before and After are called on the
// goroutine that steps it, Dump on any.
type Recorder struct {
	cfg    Config
	engine *engine.Engine
	codec  *Codec // of the stepping goroutine
	events []engine.Event
	step   []byte // events of the step under way; empty: there is none
	sum    []byte // scratch of digests
	answer Answer // scratch
	off    bool   // something went wrong with recording itself

	mu  sync.Mutex // guards what follows
	old generation
	now generation
}

// generation is a checkpoint and the steps since. Bytes in segments never change.
type generation struct {
	checkpoint *engine.Checkpoint // nil: there is no such generation
	segments   [][]byte
	size       int
	steps      uint64
}

// New makes a recorder of an engine that has not been stepped yet, or stands
// between two steps.
func New(cfg Config, e *engine.Engine) (*Recorder, error) {
	if cfg.Limit == 0 {
		cfg.Limit = defaultLimit
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	r := &Recorder{cfg: cfg, engine: e, codec: codec}
	c := e.Checkpoint()
	r.now.checkpoint = &c
	return r, nil
}

func newCodec() (*Codec, error) {
	return NewCodec(engine.Event{}, []engine.Event{}, engine.Txn{}, engine.Checkpoint{}, Answer{})
}

// Before takes the events of the step that comes.
func (r *Recorder) Before(events []engine.Event) {
	if r.off {
		return
	}
	defer r.guard()
	r.events = events // a field has an address without being allocated
	step := r.codec.Append(r.step[:0], &r.events)
	r.events = nil
	r.mu.Lock()
	r.step = step
	r.mu.Unlock()
}

// After takes what the step answered.
func (r *Recorder) After(ready engine.Ready) {
	if r.off {
		return
	}
	defer r.guard()
	r.digest(ready)
	step := r.codec.Append(r.step, &r.answer)
	var next *engine.Checkpoint
	if r.now.size+len(step) > r.cfg.Limit/2 {
		c := r.engine.Checkpoint()
		next = &c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.add(step)
	r.step = step[:0]
	if cap(r.step) > 1<<20 {
		r.step = nil // a snapshot's; the next step is small
	}
	if next != nil {
		r.old, r.now = r.now, generation{checkpoint: next}
	}
}

// guard ends recording when it fails: it is there to help, and must not harm.
func (r *Recorder) guard() {
	if p := recover(); p != nil {
		r.off = true
		r.cfg.Logger.Error("the flight recorder has failed and is off; this is a bug", "panic", fmt.Sprint(p))
	}
}

// digest fills r.answer.
func (r *Recorder) digest(ready engine.Ready) {
	r.answer.Txns = r.answer.Txns[:0]
	for i := range ready.Txns {
		var t Transaction
		t, r.sum = digest(r.codec, r.sum, &ready.Txns[i])
		r.answer.Txns = append(r.answer.Txns, t)
	}
	r.answer.Resync, r.answer.Wake = ready.Resync, ready.Wake
}

func digest(c *Codec, scratch []byte, t *engine.Txn) (Transaction, []byte) {
	scratch = c.Append(scratch[:0], t)
	sum := sha256.Sum256(scratch)
	return Transaction{DB: t.DB, ID: t.ID, Ops: t.Len(), Digest: [16]uint8(sum[:16])}, scratch
}

// add appends a step with its length.
func (g *generation) add(step []byte) {
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], uint64(len(step)))
	need := n + len(step)
	last := len(g.segments) - 1
	if last < 0 || cap(g.segments[last])-len(g.segments[last]) < need {
		g.segments = append(g.segments, make([]byte, 0, max(segmentSize, need)))
		last++
	}
	g.segments[last] = append(append(g.segments[last], head[:n]...), step...)
	g.size += need
	g.steps++
}

// Size is how many bytes and steps are kept.
func (r *Recorder) Size() (size int, steps uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.old.size + r.now.size, r.old.steps + r.now.steps
}

// frozen is a generation as it is at a moment: segments may grow behind its back.
func (g generation) frozen() generation {
	g.segments = append([][]byte(nil), g.segments...)
	return g
}

// Dump writes what is kept as a file. The steps go on meanwhile.
func (r *Recorder) Dump(w io.Writer) error {
	r.mu.Lock()
	old, now := r.old.frozen(), r.now.frozen()
	r.mu.Unlock()
	return r.write(w, old, now, nil)
}

// Crash is Dump for a process that has panicked in a step, on the goroutine of
// its steps: the file ends with the events of the step that was not answered.
func (r *Recorder) Crash(w io.Writer) error {
	return r.write(w, r.old, r.now, r.step)
}

func (r *Recorder) write(w io.Writer, old, now generation, open []byte) error {
	h := r.cfg.Header
	h.Written = time.Now().UTC()
	h.MaxOps = r.cfg.Engine.MaxOps
	h.Databases = r.cfg.Engine.Databases
	f, err := newWriter(w, h)
	if err != nil {
		return err
	}
	for _, g := range []generation{old, now} {
		if g.checkpoint == nil {
			continue
		}
		f.checkpoint(g.checkpoint)
		for _, s := range g.segments {
			f.segment(s)
		}
	}
	if len(open) > 0 {
		f.chunk(chunkOpen, open)
	}
	return f.close()
}
