package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/engine/enginetest"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

// looked is a settled shell with a switch, a port in it and an option.
func looked(t *testing.T) (*script.Shell, *enginetest.DB) {
	t.Helper()
	db := enginetest.New(rows.NB)
	sh := script.New(script.Config{Kinds: toyKinds(), Door: toyDoor, Databases: []script.Database{scripttest.Simulated{DB: db}}})
	objects, _ := toyDoor([]byte(`unit node/n1
NB:Logical_Switch(n1)
  name "n1"
edge NB:NB_Global(.).options mine="1"
unit pod/a@g
NB:Logical_Switch_Port(a)  parent NB:Logical_Switch(n1).ports
  name "a"
  addresses "router"
`))
	for _, o := range objects {
		sh.Put(o)
	}
	if err := sh.Settle(); err != nil {
		t.Fatal(err)
	}
	return sh, db
}

func TestLookFindsWhoSaysWhat(t *testing.T) {
	sh, _ := looked(t)
	e := sh.Engine()
	port := rows.Ref{Table: "NB:Logical_Switch_Port", ID: "a"}
	pod := engine.Unit{Kind: "pod", Key: "a@g"}
	if r, ok := e.Row(port); !ok || r.Unit != pod || !r.Written {
		t.Errorf("found %+v", r)
	}
	if _, ok := e.Row(rows.Ref{Table: "NB:Logical_Switch_Port", ID: "b"}); ok {
		t.Error("a row that nobody says was found")
	}
	option := rows.Entry(rows.Ref{Table: "NB:NB_Global", ID: rows.Singleton}, "options", "mine", "")
	if x, ok := e.Edge(option); !ok || x.Edge.Value != rows.S("1") || len(x.Units) != 1 || !x.Written {
		t.Errorf("found %+v", x)
	}
	if len(e.Rows(rows.NB)) != 2 || len(e.Edges(rows.NB)) != 1 || len(e.UnitInfos()) != 2 {
		t.Errorf("found %v, %v, %v", e.Rows(rows.NB), e.Edges(rows.NB), e.UnitInfos())
	}
	key := intent.Key{Kind: kindSaid, Name: "pod/a@g"}
	if got := e.Spawners(pod); !slices.Equal(got, []intent.Key{key}) {
		t.Errorf("spawners %v", got)
	}
	if got := e.Spawned(key); !slices.Equal(got, []engine.Unit{pod}) {
		t.Errorf("spawned %v", got)
	}
}

// TestStatusSaysSinceWhen holds the age of what waits: it counts from the first
// refusal, through all tries, and ends with success.
func TestStatusSaysSinceWhen(t *testing.T) {
	sh, _ := looked(t)
	since := func() int64 {
		st := sh.Engine().Statuses()
		if len(st) != 1 {
			t.Fatalf("found %v", st)
		}
		return st[0].Since
	}
	sh.Tick(5_000)
	sh.Fail("g", engine.Failure{Class: engine.Constraint, Err: "no"})
	objects, _ := toyDoor([]byte("unit pod/a@g\nNB:Logical_Switch_Port(a)  parent NB:Logical_Switch(n1).ports\n  name \"a\"\n"))
	sh.Put(objects[0])
	settle(t, sh)
	if since() != 5_000 {
		t.Errorf("since %d, wanted 5000", since())
	}
	sh.Tick(30_000)
	settle(t, sh)
	if since() != 5_000 {
		t.Errorf("after another try since %d, wanted 5000", since())
	}
	sh.Mend()
	sh.Tick(400_000)
	settle(t, sh)
	if st := sh.Engine().Statuses(); len(st) != 0 {
		t.Errorf("found %v", st)
	}
}

func settle(t *testing.T, sh *script.Shell) {
	t.Helper()
	if err := sh.Settle(); err != nil {
		t.Fatal(err)
	}
}

// TestCompareNamesTheDrift changes a database behind the engine's back: each
// change is named, and nothing else is.
func TestCompareNamesTheDrift(t *testing.T) {
	port := rows.Ref{Table: "NB:Logical_Switch_Port", ID: "a"}
	cases := []struct {
		name string
		spin func(s *engine.Snapshot)
		want string // kind, row and column
	}{
		{"nothing", func(*engine.Snapshot) {}, ""},
		{"missing", func(s *engine.Snapshot) {
			s.Rows = slices.DeleteFunc(s.Rows, func(r engine.ActualRow) bool { return r.Ref == port })
		}, "1 NB:Logical_Switch_Port(a) "},
		{"column", func(s *engine.Snapshot) {
			for i := range s.Rows {
				if s.Rows[i].Ref == port {
					s.Rows[i].Columns = []rows.Column{{Name: "name", Value: rows.Str("a")}, {Name: "type", Value: rows.Str("x")}}
				}
			}
		}, "2 NB:Logical_Switch_Port(a) addresses, 2 NB:Logical_Switch_Port(a) type"},
		{"surplus", func(s *engine.Snapshot) {
			ref := rows.Ref{Table: "NB:Logical_Switch", ID: "old"}
			s.Rows = append(s.Rows, engine.ActualRow{Ref: ref, UUID: ref.UUID(), Owner: "node/old"})
		}, "3 NB:Logical_Switch(old) "},
		{"uuid", func(s *engine.Snapshot) {
			for i := range s.Rows {
				if s.Rows[i].Ref == port {
					s.Rows[i].UUID = "another"
				}
			}
		}, "2 NB:Logical_Switch_Port(a) uuid"},
		{"element", func(s *engine.Snapshot) {
			for i := range s.Rows {
				if s.Rows[i].ID == rows.Singleton {
					s.Rows[i].Columns = []rows.Column{{Name: "options", Value: rows.Map(map[string]string{"mine": "2", "other": "x"})}}
				}
			}
		}, "2 NB:NB_Global(.) options"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sh, db := looked(t)
			snap := db.Snapshot()
			c.spin(&snap)
			x, ok := sh.Engine().Expect(rows.NB)
			if !ok {
				t.Fatal("no database NB")
			}
			var got []string
			for _, d := range x.Compare(snap) {
				if d.Pending {
					t.Errorf("%+v is pending, and the engine knows nothing of it", d)
				}
				got = append(got, strings.Join([]string{string('0' + rune(d.Kind)), d.Ref.String(), d.Column}, " "))
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("found %q, wanted %q", text, c.want)
			}
			if ops := sh.Ops(); len(sh.Engine().Statuses()) != 0 || len(ops) == 0 {
				t.Error("the comparison has changed the engine")
			}
		})
	}
}
