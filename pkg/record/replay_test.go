package record

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

// run is a zone under random edits and faults, with a recorder.
type run struct {
	t        testing.TB
	r        *rand.Rand
	sh       *script.Shell
	dbs      []*enginetest.DB
	recorder *Recorder
	limit    int
	maxOps   int
	steps    int
}

func newRun(t testing.TB, seed uint64, limit int) *run { return newRunOf(t, seed, limit, 20) }

func newRunOf(t testing.TB, seed uint64, limit, maxOps int) *run {
	w := &run{t: t, r: rand.New(rand.NewPCG(seed, 17)), limit: limit, maxOps: maxOps}
	cfg := script.Config{Kinds: compile.Kinds(), MaxOps: w.maxOps, Watch: w.watch}
	for _, name := range []rows.DB{rows.OVS, rows.NB, rows.SB} {
		db := enginetest.New(name)
		w.dbs = append(w.dbs, db)
		cfg.Databases = append(cfg.Databases, scripttest.Simulated{DB: db})
	}
	w.sh = script.New(cfg)
	w.record()
	w.sh.Put(&intent.Cluster{
		Zone: "n0", PodSubnets: prefixes("10.244.0.0/16"), JoinSubnets: prefixes("100.64.0.0/16"),
		TransitNets: prefixes("100.88.0.0/16"), Masquerade: prefixes("169.254.169.0/29"), MTU: 1400,
	})
	return w
}

// record begins a recording of the shell's engine as it is now.
func (w *run) record() {
	w.t.Helper()
	var err error
	w.recorder, err = New(Config{
		Limit: w.limit, Header: Header{Version: "test", Zone: "n0"},
		Engine: engine.Config{Databases: []rows.DB{rows.OVS, rows.NB, rows.SB}, MaxOps: w.maxOps},
	}, w.sh.Engine())
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *run) watch(_ *engine.Engine, events []engine.Event, ready engine.Ready) {
	w.recorder.Before(events)
	w.recorder.After(ready)
	w.steps++
}

func prefixes(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

// edit does one random thing.
func (w *run) edit() {
	r := w.r
	node := r.IntN(3)
	name := fmt.Sprintf("n%d", node)
	pod := r.IntN(6)
	key := intent.Key{Kind: intent.KindPod, Name: fmt.Sprintf("demo/p%d", pod)}
	switch k := r.IntN(20); {
	case k < 3:
		n := &intent.Node{Name: name, Zone: name, ID: node + 2, Subnets: prefixes(fmt.Sprintf("10.244.%d.0/24", node))}
		if r.IntN(3) > 0 {
			n.Chassis, n.EncapIPs = "c"+name, []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, byte(2 + r.IntN(4))})}
		}
		w.sh.Put(n)
	case k < 4:
		w.sh.Delete(intent.Key{Kind: intent.KindNode, Name: name})
	case k < 10:
		ip := netip.AddrFrom4([4]byte{10, 244, 0, byte(3 + pod)})
		p := &intent.Pod{Namespace: "demo", Name: fmt.Sprintf("p%d", pod), UID: fmt.Sprint(r.IntN(3)), Node: "n0", Labels: map[string]string{"a": fmt.Sprint(r.IntN(2))}}
		if r.IntN(5) > 0 {
			p.Attachments = []intent.Attachment{{Network: intent.DefaultNetwork, MAC: rows.MAC(ip), Addresses: []netip.Prefix{netip.PrefixFrom(ip, 24)}}}
		}
		w.sh.Put(p)
	case k < 12:
		w.sh.Delete(key)
	case k < 17:
		w.settle()
	case k < 18:
		w.fault(r.IntN(6), "pod/demo/p"+fmt.Sprint(pod))
	default:
		w.sh.Tick(int64(r.IntN(5000)))
	}
}

func (w *run) fault(which int, group string) {
	switch which {
	case 0:
		w.sh.Fail(group, engine.Failure{Class: engine.Class(1 + w.r.IntN(2)), Err: "the test says so"})
	case 1:
		w.sh.Mend()
	case 2:
		w.sh.Lose(w.r.IntN(2) == 0)
	case 3:
		w.sh.Down(rows.NB)
	case 4:
		if err := w.sh.Up(rows.NB); err != nil {
			w.t.Fatal(err)
		}
	default:
		w.dbs[1].HvCfg = w.dbs[1].NbCfg
		w.sh.Event(engine.Event{Installed: w.dbs[1].HvCfg})
	}
}

func (w *run) settle() {
	if err := w.sh.Settle(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *run) dump() []byte {
	w.t.Helper()
	var b bytes.Buffer
	if err := w.recorder.Dump(&b); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

func replayed(t testing.TB, file []byte, kinds []engine.UnitKind) Report {
	t.Helper()
	f, err := Open(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := Replay(f, kinds, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestReplayIsTheSame records random runs with a ring so small that it turns over
// many times, and replays what is in it at every end.
func TestReplayIsTheSame(t *testing.T) {
	checkpoints, txns := 0, 0
	for seed := range uint64(60) {
		w := newRun(t, seed, 60_000)
		for n := range 300 {
			w.edit()
			if n%100 == 99 {
				rep := replayed(t, w.dump(), compile.Kinds())
				if rep.First != 0 {
					t.Fatalf("seed %d, after %d steps: step %d of %d: %s", seed, w.steps, rep.First, rep.Steps, rep.Differs)
				}
				checkpoints += rep.Checkpoints
				txns += rep.Transactions
			}
		}
		if size, steps := w.recorder.Size(); size > 60_000+8_000 || steps == 0 {
			t.Errorf("seed %d: %d bytes of %d steps kept, the limit is 60000 and a step", seed, size, steps)
		}
	}
	if checkpoints < 200 || txns < 1000 {
		t.Errorf("%d checkpoints, %d transactions: the ring has not turned over enough to prove anything", checkpoints, txns)
	}
}

// TestReplayFindsTheFirstDifference replays with a compiler that differs in one
// column of one pod.
func TestReplayFindsTheFirstDifference(t *testing.T) {
	w := newRun(t, 1, 1<<20)
	w.sh.Put(&intent.Node{Name: "n0", Zone: "n0", ID: 2, Subnets: prefixes("10.244.0.0/24")})
	w.settle()
	before := w.steps
	w.sh.Put(&intent.Pod{Namespace: "demo", Name: "p", UID: "1", Node: "n0", Attachments: []intent.Attachment{{
		Network: intent.DefaultNetwork, MAC: "0a:58:0a:f4:00:03", Addresses: prefixes("10.244.0.3/24"),
	}}})
	w.settle()
	file := w.dump()
	if rep := replayed(t, file, compile.Kinds()); rep.First != 0 {
		t.Fatalf("with the same compiler: %+v", rep)
	}
	kinds := compile.Kinds()
	for i, k := range kinds {
		if k.Name != "pod" {
			continue
		}
		kinds[i].Compile = func(v *intent.View, key string) rows.Output {
			out := k.Compile(v, key)
			for j := range out.Rows {
				out.Rows[j].Columns = append(out.Rows[j].Columns, rows.Column{Name: "type", Value: rows.Str("x")})
			}
			return out
		}
	}
	rep := replayed(t, file, kinds)
	if rep.First != before+1 || !strings.Contains(rep.Differs, "in NB") {
		t.Errorf("found step %d: %s; wanted step %d and a transaction in NB", rep.First, rep.Differs, before+1)
	}
}

// TestCrashKeepsTheLastStep records a step that never ends.
func TestCrashKeepsTheLastStep(t *testing.T) {
	w := newRun(t, 1, 1<<20)
	w.settle()
	w.recorder.Before([]engine.Event{{Put: &intent.Namespace{Name: "fatal"}}})
	var b bytes.Buffer
	if err := w.recorder.Crash(&b); err != nil {
		t.Fatal(err)
	}
	f, err := Open(&b)
	if err != nil {
		t.Fatal(err)
	}
	last := Replayed{}
	rep, err := Replay(f, compile.Kinds(), func(s Replayed) error { last = s; return nil })
	if err != nil || !rep.Open || !last.Open || last.Events[0].Put.Key().Name != "fatal" {
		t.Errorf("%v, found %+v", err, rep)
	}
}

// TestGuardSavesAndLetsGo holds what a panic in a step leaves.
func TestGuardSavesAndLetsGo(t *testing.T) {
	w := newRun(t, 1, 1<<20)
	w.settle()
	path := filepath.Join(t.TempDir(), "state", "crash.flight")
	run := w.recorder.Guard(path, func(context.Context) error {
		w.recorder.Before([]engine.Event{{Tick: 7}})
		panic("a bug")
	})
	func() {
		defer func() {
			if p := recover(); p != "a bug" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = run(t.Context())
	}()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if rep := replayed(t, file, compile.Kinds()); !rep.Open || rep.First != 0 {
		t.Errorf("found %+v", rep)
	}
}

func TestDamagedFiles(t *testing.T) {
	w := newRun(t, 1, 1<<20)
	w.settle()
	file := w.dump()
	if f, err := Open(bytes.NewReader(file[:len(file)/2])); err == nil {
		if _, err := Replay(f, compile.Kinds(), nil); err == nil || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("found %v", err)
		}
	}
	if _, err := Open(strings.NewReader("kind: Pod")); err == nil {
		t.Error("YAML was opened as a recording")
	}
}

// podStep is a step with a pod and the transaction that comes of it.
func podStep() ([]engine.Event, engine.Ready) {
	ip := netip.MustParseAddr("10.244.0.9")
	port := rows.Child("NB:Logical_Switch_Port", "demo_p", rows.Ref{Table: "NB:Logical_Switch", ID: "n0"}, "ports", map[string]rows.Value{
		"name": rows.Str("demo_p"), "addresses": rows.Str("0a:58:0a:f4:00:09 10.244.0.9"),
		"options": rows.Map(map[string]string{"requested-chassis": "n0", "iface-id-ver": "1"}),
	})
	events := []engine.Event{{Tick: 1}, {Put: &intent.Pod{
		Namespace: "demo", Name: "p", UID: "1", Node: "n0", Labels: map[string]string{"app": "a", "tier": "b"},
		Attachments: []intent.Attachment{{Network: intent.DefaultNetwork, MAC: rows.MAC(ip), Addresses: []netip.Prefix{netip.PrefixFrom(ip, 24)}}},
	}}}
	return events, engine.Ready{Txns: []engine.Txn{{DB: rows.NB, ID: 1, Groups: []engine.GroupOps{
		{Group: "pod/demo/p", Ops: []engine.Op{{Kind: engine.Insert, Owner: "pod/demo/p", Row: port}}},
	}}}}
}

// TestRecordingAllocatesNothing counts allocations of one step with a pod in it
// once the ring has its memory.
func TestRecordingAllocatesNothing(t *testing.T) {
	w := newRun(t, 1, 16<<20)
	events, ready := podStep()
	n := testing.AllocsPerRun(200, func() {
		w.recorder.Before(events)
		w.recorder.After(ready)
	})
	if n > 0 {
		t.Errorf("%v allocations a step, wanted none", n)
	}
}

func BenchmarkRecordPod(b *testing.B) {
	w := newRun(b, 1, 16<<20)
	events, ready := podStep()
	b.ReportAllocs()
	for b.Loop() {
		w.recorder.Before(events)
		w.recorder.After(ready)
	}
}
