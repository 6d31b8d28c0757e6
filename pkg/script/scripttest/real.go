package scripttest

import (
	"context"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// limit bounds one call to a real database.
const limit = 30 * time.Second

// real is a real database in a shell.
type real struct{ conn *ovsdb.Conn }

func (r real) Name() rows.DB { return r.conn.DB() }

func (r real) Apply(t engine.Txn) engine.Result {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return r.conn.Apply(ctx, t)
}

func (r real) Snapshot() (engine.Snapshot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return r.conn.Snapshot(ctx)
}

// Real starts a zone's databases with a northd, and an Open_vSwitch database, all
// empty, and a tracer that asks ovn-trace.
func Real(t testing.TB) ([]script.Database, script.Tracer) {
	t.Helper()
	dbs, ovn := Zone(t)
	trace := func(s *script.Shell, from, to string) (string, bool, error) {
		p, err := s.PacketOf(from, to)
		if err != nil {
			return "", false, err
		}
		text := ovn.Trace(p.Datapath, p.Flow)
		return p.Flow + "\n" + text, script.Delivered(text), nil
	}
	return dbs, trace
}

// Zone starts a zone's databases with a northd, and an Open_vSwitch database, all empty.
func Zone(t testing.TB) ([]script.Database, *ovsdbtest.OVN) {
	t.Helper()
	ovn := ovsdbtest.Start(t)
	ovs := ovsdbtest.StartOVS(t, false)
	return []script.Database{
		dial(t, rows.NB, ovn.NB.Endpoint), dial(t, rows.SB, ovn.SB.Endpoint), dial(t, rows.OVS, ovs.Endpoint),
	}, ovn
}

// RealServers starts empty databases without a northd: what is written stays as it is.
func RealServers(t testing.TB) []script.Database {
	t.Helper()
	nb := ovsdbtest.StartServer(t, ovsdbtest.Schema("ovn-nb"))
	return []script.Database{dial(t, rows.NB, nb.Endpoint), dial(t, rows.OVS, ovsdbtest.StartOVS(t, false).Endpoint)}
}

func dial(t testing.TB, db rows.DB, endpoint string) script.Database {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db, Endpoint: endpoint, Zone: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return real{c}
}
