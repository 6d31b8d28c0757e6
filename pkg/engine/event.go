package engine

import (
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Event is one input of the engine. Exactly one field is set; the recorded
// sequence of events replays a run.
type Event struct {
	Put       intent.Object // an object as it is now
	Delete    *intent.Key   // an object is gone
	Synced    bool          // every source has delivered what it had at start
	Snapshot  *Snapshot     // a database as it is now
	Result    *Result       // a transaction's end
	Down      rows.DB       // a database's connection is lost: write nothing until its Snapshot
	Installed int64         // NB_Global.hv_cfg has reached this value
	Tick      int64         // time, in milliseconds since the driver began
}
