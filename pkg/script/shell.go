package script

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Database is one database that a Shell writes: a real one, or
// enginetest's simulation.
type Database interface {
	Name() rows.DB
	// Apply performs a transaction, as ovsdb.Conn.Apply.
	Apply(engine.Txn) engine.Result
	Snapshot() (engine.Snapshot, error)
}

// Door turns a file's text into intent. kube.Decode is the one for Kubernetes YAML.
type Door func(text []byte) ([]intent.Object, []rows.Problem)

// Tracer answers what becomes of a packet: the trace's text, and whether it is
// delivered.
type Tracer func(s *Shell, from, to string) (text string, delivered bool, err error)

// Config is what a Shell is made from.
type Config struct {
	Kinds     []engine.UnitKind
	Databases []Database
	Door      Door
	Trace     Tracer // nil: nothing is traced, and every trace line holds
	MaxOps    int    // of one transaction; 0: the engine's default
	Lenient   bool   // count bugs as in production instead of panicking
	// Watch sees every step: what the engine was given and what it answered; nil:
	// nobody does.
	Watch func(e *engine.Engine, events []engine.Event, ready engine.Ready)
}

// Shell is a compiler, its intent and its databases.
type Shell struct {
	cfg     Config
	engine  *engine.Engine
	objects map[intent.Key]intent.Object
	pending []engine.Event
	txns    []engine.Txn // handed out and not performed yet
	resync  []rows.DB
	begun   bool
	down    map[rows.DB]bool
	now     int64

	faults   map[string]engine.Failure // group -> how its transactions end
	lose     string                    // how the next transaction is lost: "", applied or dropped
	ops      []engine.Txn              // of the last step
	problems []rows.Problem            // of the door
	compiles uint64                    // before the last step
}

// New makes a shell around an engine with nothing in it.
func New(cfg Config) *Shell {
	s := &Shell{cfg: cfg, objects: map[intent.Key]intent.Object{}, down: map[rows.DB]bool{}, faults: map[string]engine.Failure{}}
	s.engine = s.fresh()
	return s
}

func (s *Shell) fresh() *engine.Engine {
	return engine.New(engine.Config{Kinds: s.cfg.Kinds, Databases: s.names(), Strict: !s.cfg.Lenient, MaxOps: s.cfg.MaxOps})
}

func (s *Shell) names() []rows.DB {
	var names []rows.DB
	for _, d := range s.cfg.Databases {
		names = append(names, d.Name())
	}
	return names
}

func (s *Shell) database(name rows.DB) (Database, error) {
	for _, d := range s.cfg.Databases {
		if d.Name() == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no database %q, there are %v", name, s.names())
}

// Engine is the engine as it is now; a restart makes another one.
func (s *Shell) Engine() *engine.Engine { return s.engine }

// Databases are those of the Config.
func (s *Shell) Databases() []Database { return s.cfg.Databases }

// Objects is the intent as put and deleted so far, by key.
func (s *Shell) Objects() map[intent.Key]intent.Object { return maps.Clone(s.objects) }

// Ops are the transactions of the last Settle.
func (s *Shell) Ops() []engine.Txn { return s.ops }

// Put queues an object for the next step.
func (s *Shell) Put(o intent.Object) {
	s.objects[o.Key()] = o
	s.pending = append(s.pending, engine.Event{Put: o})
}

// Delete queues the end of an object for the next step.
func (s *Shell) Delete(k intent.Key) {
	delete(s.objects, k)
	s.pending = append(s.pending, engine.Event{Delete: &k})
}

// Event queues any other event.
func (s *Shell) Event(e engine.Event) { s.pending = append(s.pending, e) }

// Settle delivers what is queued and performs transactions until the engine is
// at rest. The first one also tells the engine that all sources are synced and
// what the databases hold. A bug's panic comes back as an error.
func (s *Shell) Settle() error {
	s.ops, s.compiles = s.txns, s.engine.Stats().Compiles
	if !s.begun {
		if err := s.begin(); err != nil {
			return err
		}
	}
	for n := 0; len(s.pending)+len(s.txns)+len(s.resync) > 0; n++ {
		if n == 10_000 {
			return errors.New("the engine does not come to rest: 10,000 steps taken")
		}
		for _, t := range s.txns {
			s.perform(t)
		}
		s.txns = nil
		for _, name := range s.resync {
			if s.down[name] {
				continue
			}
			if err := s.snapshot(name); err != nil {
				return err
			}
		}
		s.resync = nil
		if err := s.Deliver(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Shell) begin() error {
	s.begun = true
	for _, name := range s.names() {
		if s.down[name] {
			continue
		}
		if err := s.snapshot(name); err != nil {
			return err
		}
	}
	s.pending = append(s.pending, engine.Event{Synced: true})
	return nil
}

func (s *Shell) snapshot(name rows.DB) error {
	d, err := s.database(name)
	if err != nil {
		return err
	}
	snap, err := d.Snapshot()
	s.pending = append(s.pending, engine.Event{Snapshot: &snap})
	return err
}

// Deliver steps the engine once with what is queued, and performs nothing: the
// transactions it asks for are under way until Settle. A bug's panic comes back as
// an error.
func (s *Shell) Deliver() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	events := s.pending
	s.pending = nil
	ready := s.engine.Step(events)
	if s.cfg.Watch != nil {
		s.cfg.Watch(s.engine, events, ready)
	}
	s.txns = append(s.txns, ready.Txns...)
	s.ops = append(s.ops, ready.Txns...)
	for _, name := range ready.Resync {
		if !slices.Contains(s.resync, name) {
			s.resync = append(s.resync, name)
		}
	}
	return nil
}

// perform carries out a transaction, with the faults that were asked for.
func (s *Shell) perform(t engine.Txn) {
	d, err := s.database(t.DB)
	if err != nil || s.down[t.DB] {
		return // the engine has been told that the database is down
	}
	lost := s.lose
	s.lose = ""
	if lost == "dropped" {
		s.Event(engine.Event{Result: &engine.Result{DB: t.DB, Txn: t.ID, Lost: true}})
		return
	}
	failed := map[string]engine.Failure{}
	t.Groups = s.refuse(t.Groups, failed)
	res := engine.Result{DB: t.DB, Txn: t.ID}
	if len(t.Groups) > 0 {
		res = d.Apply(t)
	}
	if res.Failed == nil {
		res.Failed = map[string]engine.Failure{}
	}
	maps.Copy(res.Failed, failed)
	res.Lost = res.Lost || lost != ""
	s.Event(engine.Event{Result: &res})
}

// refuse takes out the parts that are to fail, and what needs them.
func (s *Shell) refuse(groups []engine.GroupOps, failed map[string]engine.Failure) []engine.GroupOps {
	var rest [][]engine.GroupOps
	for _, part := range engine.Parts(groups) {
		i := slices.IndexFunc(part, func(g engine.GroupOps) bool { return s.faults[g.Group].Class != 0 })
		if i < 0 {
			rest = append(rest, part)
			continue
		}
		for _, g := range part {
			failed[g.Group] = s.faults[part[i].Group]
		}
	}
	return slices.Concat(engine.Withhold(rest, failed)...)
}

// Restart forgets everything but the intent and the databases, as a process
// that is killed and started again.
func (s *Shell) Restart() {
	s.engine = s.fresh()
	s.begun, s.pending, s.txns, s.resync, s.now = false, nil, nil, nil, 0
	for _, k := range slices.SortedFunc(maps.Keys(s.objects), intent.Key.Compare) {
		s.pending = append(s.pending, engine.Event{Put: s.objects[k]})
	}
}

// Down loses the connection to a database: nothing is written to it until Up.
func (s *Shell) Down(name rows.DB) {
	s.down[name] = true
	// What was under way ends with the connection: it must not reach what comes after.
	s.txns = slices.DeleteFunc(s.txns, func(t engine.Txn) bool { return t.DB == name })
	s.Event(engine.Event{Down: name})
}

// Up has the connection again.
func (s *Shell) Up(name rows.DB) error {
	delete(s.down, name)
	if !s.begun {
		return nil
	}
	return s.snapshot(name)
}

// Fail makes every transaction of a group end so, until Mend.
func (s *Shell) Fail(group string, f engine.Failure) { s.faults[group] = f }

// Mend ends all failures.
func (s *Shell) Mend() { clear(s.faults) }

// Lose loses the answer to the next transaction, which was applied or was not.
func (s *Shell) Lose(applied bool) {
	s.lose = "dropped"
	if applied {
		s.lose = "applied"
	}
}

// Tick lets time pass, in milliseconds.
func (s *Shell) Tick(ms int64) {
	s.now += ms
	s.Event(engine.Event{Tick: s.now})
}

// Kinds are the unit kinds of the Config.
func (s *Shell) Kinds() []engine.UnitKind { return s.cfg.Kinds }
