package inspect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// lost is a database without a connection.
type lost struct{}

func (lost) DB() rows.DB { return rows.NB }
func (lost) Read(context.Context) (engine.Snapshot, error) {
	return engine.Snapshot{}, errors.New("connection refused")
}
func (lost) State() ovsdb.State {
	return ovsdb.State{Epoch: 3, Err: "connection refused"}
}

// served serves a source on a socket and gives a client of it.
func served(t *testing.T, src Source) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "inspect.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, path, NewServer(src)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	until(t, func() bool { _, err := os.Stat(path); return err == nil })
	return NewClient(Unix(path)), path
}

// until looks again and again, at most 10 s.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
	}
}

func TestStatusOverTheSocket(t *testing.T) {
	c, path := served(t, Source{
		Identity: Identity{Process: "portolan-node", Node: "n1", Zone: "n1"},
		Engine:   engine.New(engine.Config{Databases: []rows.DB{rows.NB}}), Driver: Still{}, Databases: []DB{lost{}},
		Ready: func() error { return errors.New("no subnet") },
	})
	until(t, func() bool { info, err := os.Stat(path); return err == nil && info.Mode().Perm() == 0o600 })
	st, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if st.Ready || st.NotReady != "no subnet" || st.Node != "n1" || len(st.Databases) != 1 {
		t.Errorf("found %+v", st)
	}
	if db := st.Databases[0]; db.Up || db.Generation != 3 || db.Error != "connection refused" || db.Name != "NB" {
		t.Errorf("found %+v", db)
	}
}

func TestUnknownPathIsAnAnswer(t *testing.T) {
	c, _ := served(t, Source{})
	_, err := c.Get(t.Context(), "/v1/nothing", nil)
	var a *AnswerError
	if !errors.As(err, &a) || a.Code != 404 {
		t.Errorf("found %v", err)
	}
}
