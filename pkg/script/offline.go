package script

import (
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Offline makes databases that do not exist: empty, and everything is accepted.
// With them a Shell answers what would be written, on any machine.
func Offline(names ...rows.DB) []Database {
	dbs := make([]Database, 0, len(names))
	for _, n := range names {
		dbs = append(dbs, offline(n))
	}
	return dbs
}

type offline rows.DB

func (o offline) Name() rows.DB { return rows.DB(o) }

func (o offline) Apply(t engine.Txn) engine.Result {
	return engine.Result{DB: t.DB, Txn: t.ID}
}

func (o offline) Snapshot() (engine.Snapshot, error) {
	return engine.Snapshot{DB: rows.DB(o)}, nil
}
