package compile_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The cluster of the benchmarks: one zone with every node rendered in full, the
// largest thing that one engine is asked to hold.
const (
	benchNodes = 500
	benchPods  = 50_000
)

func benchNode(i int) *intent.Node {
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/256), byte(i), 0}), 24)
	ip := netip.AddrFrom4([4]byte{172, 18, byte(i / 250), byte(2 + i%250)})
	return &intent.Node{
		Name: fmt.Sprintf("node%d", i), Zone: "global", ID: i + 2, Subnets: []netip.Prefix{subnet},
		Chassis: fmt.Sprintf("chassis%d", i), EncapIPs: []netip.Addr{ip},
		Gateway: intent.Gateway{
			Bridge: "br-ex", MAC: rows.MAC(ip), Addresses: []netip.Prefix{netip.PrefixFrom(ip, 16)},
			NextHops: []netip.Addr{netip.MustParseAddr("172.18.255.254")},
		},
	}
}

func benchPod(i int) *intent.Pod {
	node := i % benchNodes
	subnet := benchNode(node).Subnets[0]
	address, _ := rows.Nth(subnet, 3+(i/benchNodes)%250)
	gateway, _ := rows.Nth(subnet, 1)
	return &intent.Pod{
		Namespace: fmt.Sprintf("ns%d", i%100), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
		Node: fmt.Sprintf("node%d", node), Labels: map[string]string{"app": fmt.Sprintf("app%d", i%200)},
		Attachments: []intent.Attachment{{
			Network: intent.DefaultNetwork, MAC: rows.MAC(address.Addr()), Addresses: []netip.Prefix{address}, Gateways: []netip.Addr{gateway.Addr()},
		}},
	}
}

func benchEvents() []engine.Event {
	events := []engine.Event{{Put: &intent.Cluster{
		Zone: "global", GlobalZone: true, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")},
		JoinSubnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, TransitNets: []netip.Prefix{netip.MustParsePrefix("100.88.0.0/16")}, MTU: 1400,
	}}}
	for i := range benchNodes {
		events = append(events, engine.Event{Put: benchNode(i)})
	}
	for i := range benchPods {
		events = append(events, engine.Event{Put: benchPod(i)})
	}
	return events
}

func benchEngine() *engine.Engine {
	return engine.New(engine.Config{Kinds: compile.Kinds(), Databases: []rows.DB{rows.NB, rows.SB}, Strict: true})
}

// accept answers transactions as a database that takes them all, until there are
// none, and lets all chassis install them.
func accept(e *engine.Engine, r engine.Ready) {
	cfg := int64(0)
	for len(r.Txns) > 0 {
		var results []engine.Event
		for _, t := range r.Txns {
			cfg = max(cfg, t.NbCfg)
			results = append(results, engine.Event{Result: &engine.Result{DB: t.DB, Txn: t.ID}})
		}
		r = e.Step(results)
	}
	e.Step([]engine.Event{{Installed: cfg}})
}

func empty() []engine.Event {
	return []engine.Event{{Synced: true}, {Snapshot: &engine.Snapshot{DB: rows.NB}}, {Snapshot: &engine.Snapshot{DB: rows.SB}}}
}

func loaded(events []engine.Event) *engine.Engine {
	e := benchEngine()
	accept(e, e.Step(append(slices.Clone(events), empty()...)))
	return e
}

// BenchmarkHeap is what a pod takes in memory, all told and by parts: the intent as
// the door hands it in, the store's indexes over it, and the engine (units, ledger,
// what it read last).
func BenchmarkHeap(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC() // what the first one's finalizers let go
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	for b.Loop() {
		empty := heap()
		events := benchEvents()
		objects := heap()
		store := intent.NewStore()
		for _, e := range events {
			store.Put(e.Put)
		}
		store.Take()
		indexed := heap()
		runtime.KeepAlive(store)
		store = nil
		before := heap()
		e := loaded(events)
		whole := heap()
		runtime.KeepAlive(events)
		b.ReportMetric((objects-empty)/benchPods, "intent-B/pod")
		b.ReportMetric((indexed-objects)/benchPods, "index-B/pod")
		b.ReportMetric((whole-before-(indexed-objects))/benchPods, "engine-B/pod")
		b.ReportMetric((whole-before+objects-empty)/benchPods, "all-B/pod")
		runtime.KeepAlive(e)
	}
}

// BenchmarkInitialCompile is a first start on an empty database: every unit
// compiled and every transaction made.
func BenchmarkInitialCompile(b *testing.B) {
	events := benchEvents()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var keep *engine.Engine
	for b.Loop() {
		keep = loaded(events)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	stats := keep.Stats()
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/benchPods, "heapbytes/pod")
	b.ReportMetric(float64(stats.Compiles), "compiles")
	b.ReportMetric(float64(stats.Ops), "ops")
	runtime.KeepAlive(keep)
}

// BenchmarkPodAdd adds one pod to a full cluster, to the end of its transaction.
func BenchmarkPodAdd(b *testing.B) {
	e := loaded(benchEvents())
	next, before := benchPods, e.Stats()
	b.ReportAllocs()
	for b.Loop() {
		accept(e, e.Step([]engine.Event{{Put: benchPod(next)}}))
		next++
	}
	after, n := e.Stats(), float64(next-benchPods)
	b.ReportMetric(float64(after.Compiles-before.Compiles)/n, "compiles/op")
	b.ReportMetric(float64(after.Ops-before.Ops)/n, "ops/op")
}

// BenchmarkPodAddWithDeadChassis does so while one chassis does not answer, so
// that nothing is ever installed.
func BenchmarkPodAddWithDeadChassis(b *testing.B) {
	e := benchEngine()
	r := e.Step(append(benchEvents(), empty()...))
	step := func(r engine.Ready) {
		for len(r.Txns) > 0 {
			var results []engine.Event
			for _, t := range r.Txns {
				results = append(results, engine.Event{Result: &engine.Result{DB: t.DB, Txn: t.ID}})
			}
			r = e.Step(results)
		}
	}
	step(r)
	next := benchPods
	b.ReportAllocs()
	for b.Loop() {
		step(e.Step([]engine.Event{{Put: benchPod(next)}}))
		next++
	}
}

// BenchmarkRestart starts a fresh engine on a full database: it must write nothing.
func BenchmarkRestart(b *testing.B) {
	events := benchEvents()
	full := loaded(events)
	snapshots := []engine.Event{{Synced: true}}
	for _, db := range []rows.DB{rows.NB, rows.SB} {
		snapshots = append(snapshots, engine.Event{Snapshot: snapshotOf(full, db)})
	}
	txns := 0
	for b.Loop() {
		e := benchEngine()
		r := e.Step(append(slices.Clone(events), snapshots...))
		txns += len(r.Txns)
	}
	if txns > 0 {
		b.Fatalf("a restart writes %d transactions", txns)
	}
	b.ReportMetric(0, "ops")
}

// snapshotOf is what a database holds when everything is written.
func snapshotOf(e *engine.Engine, db rows.DB) *engine.Snapshot {
	rs, es := e.Desired(db)
	if len(es) > 0 {
		panic("edges are not folded here")
	}
	s := &engine.Snapshot{DB: db}
	for _, r := range rs {
		u, _ := e.Owner(r.Ref)
		s.Rows = append(s.Rows, engine.ActualRow{Ref: r.Ref, Owner: u.String(), UUID: r.UUID(), Parent: r.Parent, Columns: r.Columns})
	}
	return s
}
