package ovsdb

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

const testZone = "z1"

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// connect dials and takes the first snapshot.
func connect(t *testing.T, cfg Config) (*Conn, engine.Snapshot) {
	t.Helper()
	if cfg.Zone == "" {
		cfg.Zone = testZone
	}
	cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx := testContext(t)
	c, err := Dial(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, snapshot(t, c)
}

func snapshot(t *testing.T, c *Conn) engine.Snapshot {
	t.Helper()
	s, err := c.Snapshot(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nbServer runs an OVN_Northbound with its NB_Global row.
func nbServer(t *testing.T) *ovsdbtest.Server {
	t.Helper()
	s := ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-nb"))
	s.Transact("OVN_Northbound", `{"op":"insert","table":"NB_Global","row":{}}`)
	return s
}

func TestSnapshotMakesTheSingleton(t *testing.T) {
	for db, schema := range map[rows.DB]string{rows.NB: "ovn-nb", rows.SB: "ovn-sb", rows.OVS: "vswitch"} {
		s := ovsdbtest.StartServer(t, ovsdbtest.Schema(schema))
		_, first := connect(t, Config{DB: db, Endpoint: s.Endpoint})
		_, second := connect(t, Config{DB: db, Endpoint: s.Endpoint})
		if len(first.Rows) != 1 || len(second.Rows) != 1 || first.Rows[0].UUID != second.Rows[0].UUID {
			t.Errorf("%s: found %v, then %v; wanted the same one row", db, first.Rows, second.Rows)
		}
	}
}

// until waits for a state of the connection.
func until(t *testing.T, c *Conn, what string, cond func(State) bool) {
	t.Helper()
	ctx := testContext(t)
	for !cond(c.State()) {
		select {
		case <-c.Changed():
		case <-ctx.Done():
			t.Fatalf("waited for %s: state is %+v", what, c.State())
		}
	}
}

func TestDialRefusesAnOlderSchema(t *testing.T) {
	for _, c := range []struct {
		name, column string
		want         string
	}{
		{"column", "tier", `has no column "tier" of table "ACL": its schema is version 7.11.0; OVN 25.03 (schema 7.11.0) or newer is needed`},
		{"table", "", `has no table "ACL"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ovsdbtest.StartServer(t, edited(t, func(tables map[string]any) {
				if c.column != "" {
					acl := tables["ACL"].(map[string]any)
					delete(acl["columns"].(map[string]any), c.column)
					return
				}
				delete(tables, "ACL")
				for _, name := range []string{"Logical_Switch", "Port_Group"} {
					delete(tables[name].(map[string]any)["columns"].(map[string]any), "acls")
				}
			}))
			_, err := Dial(testContext(t), Config{DB: rows.NB, Endpoint: s.Endpoint})
			var schema *SchemaError
			if !errors.As(err, &schema) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), s.Endpoint) {
				t.Fatalf("found %v, wanted a SchemaError with %q", err, c.want)
			}
		})
	}
}

func TestDialAcceptsANewerSchema(t *testing.T) {
	s := ovsdbtest.StartServer(t, edited(t, func(tables map[string]any) {
		columns := tables["Logical_Switch"].(map[string]any)["columns"].(map[string]any)
		columns["novelty"] = map[string]any{"type": "string"}
		tables["Novelty"] = map[string]any{"columns": map[string]any{"x": map[string]any{"type": "integer"}}, "isRoot": true}
	}))
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch","row":{"name":"s"}}`)
	_, snap := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint})
	if len(snap.Rows) != 1 {
		t.Fatalf("found %v, wanted NB_Global alone", snap.Rows)
	}
}

// edited writes a changed copy of the northbound schema.
func edited(t *testing.T, edit func(tables map[string]any)) string {
	t.Helper()
	text, err := os.ReadFile(ovsdbtest.Schema("ovn-nb"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	edit(schema["tables"].(map[string]any))
	delete(schema, "cksum")
	if text, err = json.Marshal(schema); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nb.ovsschema")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, Config{DB: rows.NB, Endpoint: "unix:/nonexistent/db.sock"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("found %v, wanted the deadline and the last reason", err)
	}
}

func TestLockIsHeldByOne(t *testing.T) {
	s := nbServer(t)
	first, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint, Lock: true})
	second, err := Dial(testContext(t), Config{DB: rows.NB, Endpoint: s.Endpoint, Zone: testZone, Lock: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	if st := second.State(); st.Up || !strings.Contains(st.Err, "lock") {
		t.Fatalf("the second holds the lock too: %+v", st)
	}
	res := second.Apply(testContext(t), txnOf(switchGroup("g", "s2")))
	if res.Failed["g"].Class != engine.IO {
		t.Fatalf("found %+v, wanted an IO failure without the lock", res)
	}
	mustCommit(t, first, switchGroup("g", "s1"))
	first.Close()
	snap := snapshot(t, second) // waits for the lock
	if len(snap.Rows) != 2 {
		t.Fatalf("found %v, wanted NB_Global and what the first wrote", refs(snap))
	}
	mustCommit(t, second, switchGroup("g", "s2"))
}

func TestEveryTransactionAssertsTheLock(t *testing.T) {
	s := nbServer(t)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint, Lock: true})
	ctx := testContext(t)
	r, _, err := c.session(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Give the lock away behind the connection's back: what the server knows decides.
	if err := r.call(ctx, "unlock", []any{LockName}, nil); err != nil {
		t.Fatal(err)
	}
	res := c.Apply(ctx, txnOf(switchGroup("g", "s")))
	if f := res.Failed["g"]; f.Class != engine.IO || !strings.Contains(f.Err, "not owner") {
		t.Fatalf("found %+v, wanted the assertion to fail", res)
	}
}

func TestStolenLockEndsTheConnection(t *testing.T) {
	s := nbServer(t)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint, Lock: true})
	stream, err := dial(testContext(t), s.Endpoint, nil)
	if err != nil {
		t.Fatal(err)
	}
	thief := newRPC(stream, func(string, json.RawMessage) {})
	defer thief.close(errClosed)
	epoch := c.State().Epoch
	if err := thief.call(testContext(t), "steal", []any{LockName}, nil); err != nil {
		t.Fatal(err)
	}
	until(t, c, "a new connection without the lock", func(st State) bool { return st.Epoch > epoch && !st.Up })
	thief.close(errClosed)
	until(t, c, "the lock", func(st State) bool { return st.Up })
}

func TestReconnect(t *testing.T) {
	s := nbServer(t)
	proxy := ovsdbtest.StartProxy(t, s.Endpoint)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: proxy.Endpoint})
	epoch := c.State().Epoch
	proxy.Refuse(true)
	proxy.Cut()
	until(t, c, "the loss", func(st State) bool { return !st.Up })
	proxy.Refuse(false)
	until(t, c, "the return", func(st State) bool { return st.Up && st.Epoch > epoch })
	res := c.Apply(testContext(t), txnOf(switchGroup("g", "s")))
	if f := res.Failed["g"]; f.Class != engine.IO || !strings.Contains(f.Err, "snapshot") {
		t.Fatalf("found %+v, wanted a refusal until there is a snapshot", res)
	}
	snapshot(t, c)
	mustCommit(t, c, switchGroup("g", "s"))

	s.Kill()
	until(t, c, "the server's end", func(st State) bool { return !st.Up })
	s.Start()
	if n := len(snapshot(t, c).Rows); n != 2 {
		t.Fatalf("found %d rows after the server's restart, wanted 2", n)
	}
}

func TestHvCfgRings(t *testing.T) {
	s := nbServer(t)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint})
	s.Transact("OVN_Northbound", `{"op":"update","table":"NB_Global","where":[],"row":{"hv_cfg":7}}`)
	until(t, c, "hv_cfg", func(st State) bool { return st.HvCfg == 7 })
	if err := c.Refresh(testContext(t)); err != nil || c.State().HvCfg != 7 {
		t.Fatalf("refresh: %v, %+v", err, c.State())
	}
}

func TestForeignDeletionIsDrift(t *testing.T) {
	s := nbServer(t)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint})
	mustCommit(t, c, switchGroup("g", "s1"), switchGroup("h", "s2"))
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch","row":{"name":"other"}}`,
		`{"op":"delete","table":"Logical_Switch","where":[["name","==","other"]]}`)
	mustCommit(t, c, engine.GroupOps{Group: "h", Ops: []engine.Op{{Kind: engine.Delete, Row: rows.Row{Ref: switchRef("s2")}}}})
	if d := c.State().Drift; d != 0 {
		t.Fatalf("drift %d from our own deletion and a stranger's row, wanted 0", d)
	}
	s.Transact("OVN_Northbound", `{"op":"delete","table":"Logical_Switch","where":[["name","==","s1"]]}`)
	until(t, c, "drift", func(st State) bool { return st.Drift == 1 })
}

func TestAForeignRowsEndIsTold(t *testing.T) {
	s := nbServer(t)
	c, _ := connect(t, Config{DB: rows.NB, Endpoint: s.Endpoint})
	s.Transact("OVN_Northbound", `{"op":"insert","table":"Logical_Switch","row":{"name":"other"}}`)
	s.Transact("OVN_Northbound", `{"op":"delete","table":"Logical_Switch","where":[["name","==","other"]]}`)
	until(t, c, "a foreign row's end", func(st State) bool { return st.Left == 1 && st.Drift == 0 })
}
