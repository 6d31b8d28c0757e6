package ovsdb

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// thing is intent for tests: a switch, or a port on the switch named by on.
type thing struct{ kind, name, on string }

func (t *thing) Key() intent.Key            { return intent.Key{Kind: intent.Kind(t.kind), Name: t.name} }
func (t *thing) Buckets() []intent.Bucket   { return nil }
func (t *thing) Equal(o intent.Object) bool { return *t == *o.(*thing) }
func aSwitch(name string) *thing            { return &thing{kind: "switch", name: name} }
func aPort(name, on string) *thing          { return &thing{kind: "port", name: name, on: on} }
func byName(o intent.Object) string         { return o.Key().Name }
func spawnedBy(k intent.Kind) map[intent.Kind]func(intent.Object) string {
	return map[intent.Kind]func(intent.Object) string{k: byName}
}

// toyKinds compile switches and ports; every port joins one port group, which
// comes with the switches, and one key of NB_Global is ours.
func toyKinds() []engine.UnitKind {
	all := groupRef("all")
	return []engine.UnitKind{
		{Name: "switch", Spawn: spawnedBy("switch"), Compile: func(_ *intent.View, key string) (out rows.Output) {
			out.Add(switchRow(key))
			if key == "n1" {
				out.Add(rows.New(all.Table, all.ID, map[string]rows.Value{"name": rows.Str("all")}))
				out.Link(rows.Entry(rows.Ref{Table: "NB:NB_Global", ID: rows.Singleton}, "options", "ours", "yes"))
			}
			return out
		}},
		{Name: "port", Spawn: spawnedBy("port"), Compile: func(v *intent.View, key string) (out rows.Output) {
			p, ok := intent.Get[*thing](v, intent.Key{Kind: "port", Name: key})
			if !ok {
				return out
			}
			out.Add(portRow(key, p.on))
			out.Link(rows.Member(all, "ports", rows.R(portRef(key))))
			return out
		}},
	}
}

// rig is a driver on a real database behind a proxy.
type rig struct {
	t      *testing.T
	server *ovsdbtest.Server
	proxy  *ovsdbtest.Proxy
	conn   *Conn
	engine *engine.Engine
	driver *Driver
	stop   func()

	mu   sync.Mutex // guards txns
	txns []TxnStats
}

func startRig(t *testing.T, server *ovsdbtest.Server, cfg DriverConfig, things ...*thing) *rig {
	t.Helper()
	r := &rig{t: t, server: server, proxy: ovsdbtest.StartProxy(t, server.Endpoint)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	r.conn, err = Dial(testContext(t), Config{DB: rows.NB, Endpoint: r.proxy.Endpoint, Zone: testZone, Lock: true, Logger: log, Observe: r.observe})
	if err != nil {
		t.Fatal(err)
	}
	r.engine = engine.New(engine.Config{Kinds: toyKinds(), Databases: []rows.DB{rows.NB}, Strict: true})
	cfg.Logger = log
	r.driver = NewDriver(cfg, r.engine, r.conn)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.driver.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done; r.conn.Close() })
	t.Cleanup(r.stop)
	for _, th := range things {
		r.driver.Sink().Put(th)
	}
	r.driver.Sink().Synced()
	return r
}

func (r *rig) observe(s TxnStats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.txns = append(r.txns, s)
}

func (r *rig) sent() []TxnStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.txns)
}

func (r *rig) wait(group string, m Mark) {
	r.t.Helper()
	if err := r.driver.Wait(testContext(r.t), group, m); err != nil {
		rep, _ := r.driver.Report(r.t.Context())
		r.t.Fatalf("%v: %+v", err, rep)
	}
}

// settled waits until nothing differs: statuses empty and every group committed.
func (r *rig) settled(things ...*thing) {
	r.t.Helper()
	for _, th := range things {
		r.wait(th.kind+"/"+th.name, Committed)
	}
}

// ports lists what the server holds, not what anybody believes.
func ports(s *ovsdbtest.Server) []string {
	names := strings.Fields(s.Dump("OVN_Northbound", "Logical_Switch_Port", "name"))
	slices.Sort(names)
	return names
}

func cluster(n int) []*thing {
	things := []*thing{aSwitch("n1"), aSwitch("n2")}
	for i := range n {
		things = append(things, aPort(fmt.Sprintf("p%02d", i), fmt.Sprintf("n%d", i%2+1)))
	}
	return things
}

func portNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("p%02d", i))
	}
	return names
}

func TestRestartWritesNothing(t *testing.T) {
	s, things := nbServer(t), cluster(40)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	if n := len(r.sent()); n != 1 {
		t.Errorf("%d transactions for one batch, wanted 1: %+v", n, r.sent())
	}
	r.stop()
	before := s.Save()
	r = startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	if sent := r.sent(); len(sent) != 0 {
		t.Fatalf("a restart wrote %+v", sent)
	}
	r.stop()
	if diff := cmp.Diff(string(before), string(s.Save())); diff != "" {
		t.Fatalf("the database file has changed:\n%s", diff)
	}
}

func TestRestartRemovesWhatNobodyWants(t *testing.T) {
	s, things := nbServer(t), cluster(6)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	r.stop()
	left := things[:5] // the switches and three ports
	r = startRig(t, s, DriverConfig{}, left...)
	r.settled(left...)
	r.settled(things...)
	if diff := cmp.Diff(portNames(3), ports(s)); diff != "" {
		t.Fatal(diff)
	}
	for _, th := range left {
		r.driver.Sink().Delete(th.Key())
	}
	r.settled(things...)
	if got := refs(snapshot(t, r.conn)); len(got) != 1 {
		t.Fatalf("left when everything is deleted: %v", got)
	}
}

func TestLostReplyIsNotWrittenTwice(t *testing.T) {
	s, things := nbServer(t), cluster(0)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	r.proxy.Take()
	r.proxy.Inject(ovsdbtest.CutBeforeReply, `"op":"insert"`)
	p := aPort("p", "n1")
	r.driver.Sink().Put(p)
	r.settled(p)
	if n := strings.Count(r.proxy.Take(), `"op":"insert"`); n != 1 {
		t.Errorf("%d inserts sent, wanted 1: the first was committed", n)
	}
	sent := r.sent()
	if last := sent[len(sent)-1]; !last.Lost {
		t.Errorf("the last transaction is %+v, wanted it lost and none after it", last)
	}
	if diff := cmp.Diff([]string{"p"}, ports(s)); diff != "" {
		t.Fatal(diff)
	}
}

func TestLostRequestIsWrittenAgain(t *testing.T) {
	s, things := nbServer(t), cluster(0)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	r.proxy.Inject(ovsdbtest.CutBeforeRequest, `"op":"insert"`)
	p := aPort("p", "n1")
	r.driver.Sink().Put(p)
	r.settled(p)
	if diff := cmp.Diff([]string{"p"}, ports(s)); diff != "" {
		t.Fatal(diff)
	}
}

func TestWipeAndRestore(t *testing.T) {
	s, things := nbServer(t), cluster(10)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	backup := s.Save()
	more := aPort("more", "n1")
	r.driver.Sink().Put(more)
	r.driver.Sink().Delete(things[2].Key())
	r.settled(more, things[2])
	want := append([]string{"more"}, portNames(10)[1:]...)
	if diff := cmp.Diff(want, ports(s)); diff != "" {
		t.Fatal(diff)
	}
	epoch := r.conn.State().Epoch
	s.Restore(backup)
	awaitPorts(t, r, epoch, want)
	epoch = r.conn.State().Epoch
	s.Wipe()
	awaitPorts(t, r, epoch, want)
}

// awaitPorts waits for a connection after epoch, then until the ports are those
// wanted, asking at every transaction's end.
func awaitPorts(t *testing.T, r *rig, epoch uint64, want []string) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		st := r.conn.State()
		if st.Epoch > epoch && st.Up && cmp.Equal(want, ports(r.server)) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("ports are %v, state %+v", ports(r.server), st)
		}
	}
}

func TestForeignDeletionIsRepaired(t *testing.T) {
	s, things := nbServer(t), cluster(4)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	epoch := r.conn.State().Epoch
	s.Transact("OVN_Northbound", `{"op":"delete","table":"Logical_Switch","where":[["name","==","n1"]]}`)
	awaitPorts(t, r, epoch-1, portNames(4))
}

func TestPeriodicCheckRepairsForeignChanges(t *testing.T) {
	s, things := nbServer(t), cluster(4)
	r := startRig(t, s, DriverConfig{Check: 20 * time.Millisecond}, things...)
	r.settled(things...)
	epoch := r.conn.State().Epoch
	s.Transact("OVN_Northbound", `{"op":"update","table":"Logical_Switch_Port","where":[["name","==","p00"]],"row":{"name":"broken"}}`)
	awaitPorts(t, r, epoch-1, portNames(4))
}

func TestInstalledFollowsHvCfg(t *testing.T) {
	s, things := nbServer(t), cluster(1)
	r := startRig(t, s, DriverConfig{}, things...)
	r.wait("port/p00", Committed)
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := r.driver.Wait(short, "port/p00", Installed); err == nil {
		t.Fatal("installed before any chassis said so")
	}
	s.Transact("OVN_Northbound", `{"op":"update","table":"NB_Global","where":[],"row":{"hv_cfg":1}}`)
	r.wait("port/p00", Installed)
}

func TestStrangersNameIsAProblemOfItsGroupAlone(t *testing.T) {
	s, things := nbServer(t), cluster(4)
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch_Port","uuid-name":"p","row":{"name":"p02"}}`,
		`{"op":"insert","table":"Logical_Switch","row":{"name":"theirs","ports":["named-uuid","p"]}}`)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(slices.Delete(slices.Clone(things), 4, 5)...)
	rep, err := r.driver.Report(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Statuses) != 1 || rep.Statuses[0].Group != "port/p02" || !strings.Contains(rep.Statuses[0].String(), "p02") {
		t.Fatalf("found %+v, wanted port/p02 alone", rep.Statuses)
	}
	t.Log(rep.Statuses[0])
	if diff := cmp.Diff(portNames(4), ports(s)); diff != "" {
		t.Fatal(diff)
	}
}

// TestWhatAStrangerHeldIsWrittenWhenItGoes has a foreign router, and a foreign switch
// with a port of a name that we want: all else is written, what is foreign stays as it
// is, nothing is written while it lasts, and the port comes when the stranger has gone.
func TestWhatAStrangerHeldIsWrittenWhenItGoes(t *testing.T) {
	s, things := nbServer(t), cluster(4)
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch_Port","uuid-name":"p","row":{"name":"p02"}}`,
		`{"op":"insert","table":"Logical_Switch","row":{"name":"theirs","ports":["named-uuid","p"]}}`,
		`{"op":"insert","table":"Logical_Router","row":{"name":"their-router","external_ids":["map",[["a","b"]]]}}`)
	theirs := s.Dump("OVN_Northbound", "Logical_Router")
	r := startRig(t, s, DriverConfig{}, things...) // which looks by itself in a minute: it is told
	r.settled(slices.Delete(slices.Clone(things), 4, 5)...)
	epoch, written := r.conn.State().Epoch, s.Dump("OVN_Northbound", "NB_Global", "nb_cfg")
	rep, err := r.driver.Report(testContext(t))
	if err != nil || len(rep.Statuses) != 1 || !rep.Statuses[0].Blocked() {
		t.Fatalf("found %+v, %v, wanted port/p02 blocked", rep.Statuses, err)
	}
	if m, ok := rep.Statuses[0].Refusal(); !ok || !strings.Contains(m, "(p02) to have its name, held by NB:Logical_Switch_Port row ") || !strings.Contains(m, "remove that row or give it another name") {
		t.Errorf("refusal %q", m)
	}
	if got := s.Dump("OVN_Northbound", "Logical_Router"); got != theirs {
		t.Errorf("their router is\n%s\nwas\n%s", got, theirs)
	}
	if got := s.Dump("OVN_Northbound", "NB_Global", "nb_cfg"); got != written {
		t.Errorf("something was written meanwhile: %s, was %s", got, written)
	}
	s.Transact("OVN_Northbound", `{"op":"delete","table":"Logical_Switch","where":[["name","==","theirs"]]}`)
	awaitPorts(t, r, epoch-1, portNames(4))
}

// TestTrafficFollowsTheDriver is the whole chain: intent, rows, northd, and what
// OVN would do with a packet.
func TestTrafficFollowsTheDriver(t *testing.T) {
	o, things := ovsdbtest.Start(t), cluster(4)
	r := startRig(t, o.NB, DriverConfig{}, things...)
	r.settled(things...)
	o.Sync()
	if n := strings.Count(o.SB.Dump("OVN_Southbound", "Port_Binding", "logical_port"), "\n"); n != 4 {
		t.Fatalf("%d port bindings, wanted 4", n)
	}
	o.Nbctl("lsp-set-addresses", "p02", "0a:00:00:00:00:02")
	out := o.Trace("n1", `inport=="p00" && eth.src==0a:58:0a:f4:01:05 && eth.dst==0a:00:00:00:00:02`)
	if !strings.Contains(out, `output to "p02"`) {
		t.Fatalf("the packet did not arrive:\n%s", out)
	}
}

func TestPortMovesToAnotherSwitch(t *testing.T) {
	s, things := nbServer(t), cluster(2)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	r.proxy.Take()
	r.driver.Sink().Put(aPort("p00", "n2"))
	r.settled(things...)
	if sent := r.proxy.Take(); strings.Contains(sent, `"op":"insert"`) || strings.Contains(sent, `"op":"delete"`) {
		t.Errorf("the row was made anew: %s", sent)
	}
	if got := find(t, snapshot(t, r.conn), portRef("p00")).Parent.Row; got != switchRef("n2") {
		t.Fatalf("p00 is on %v, wanted n2", got)
	}
}

func TestRestartRemovesACopyOfOurRow(t *testing.T) {
	s, things := nbServer(t), cluster(2)
	r := startRig(t, s, DriverConfig{}, things...)
	r.settled(things...)
	r.stop()
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch","row":{"name":"n1","external_ids":["map",[["portolan/id","n1"],["portolan/owner","switch/n1"],["portolan/zone","z1"]]]}}`,
		`{"op":"insert","table":"Logical_Switch","row":{"name":"n9","external_ids":["map",[["portolan/id","n9"],["portolan/owner","switch/n9"],["portolan/zone","z1"]]]}}`,
		`{"op":"insert","table":"Logical_Switch","row":{"name":"theirs"}}`)
	r = startRig(t, s, DriverConfig{}, append(things, aSwitch("n9"))...)
	r.settled(append(things, aSwitch("n9"))...)
	names := strings.Fields(s.Dump("OVN_Northbound", "Logical_Switch", "name"))
	slices.Sort(names)
	if diff := cmp.Diff([]string{"n1", "n2", "n9", "theirs"}, names); diff != "" {
		t.Fatal(diff)
	}
	if got := find(t, snapshot(t, r.conn), switchRef("n9")); got.UUID != switchRef("n9").UUID() {
		t.Errorf("n9 kept the UUID %s", got.UUID)
	}
}
