package engine

import (
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// UnitKind is one kind of unit as a feature registers it.
type UnitKind struct {
	// Name starts every unit's name: "pod" of "pod/default/web".
	Name string
	// Spawn gives, for each intent kind that brings units of this kind into
	// being, the unit key for an object, "" for none. A unit lives while any
	// object spawns it.
	Spawn map[intent.Kind]func(intent.Object) string
	// Group names the group that the unit of a key is committed in; nil: its own.
	Group func(key string) string
	// Compile is the unit itself: pure, total, deterministic.
	Compile func(v *intent.View, key string) rows.Output
}

// Unit names one unit: its kind and its key.
type Unit struct {
	Kind string
	Key  string
}

// String is the unit's text form, and what a row's portolan/owner holds.
func (u Unit) String() string { return u.Kind + "/" + u.Key }

// OpKind is what an Op does.
type OpKind uint8

// The operations. Their order is the order inside a group of one transaction.
const (
	Insert OpKind = iota + 1 // Row: insert with its UUID, and add it to its parent
	Update                   // Row.Columns: scalar columns to set; an empty Value resets to the default
	Remove                   // Edge: delete the element or key
	Add                      // Edge: insert the element or key
	Delete                   // Row: root: delete it; else remove it from its parent
)

var opNames = map[OpKind]string{Insert: "insert", Update: "update", Remove: "remove", Add: "add", Delete: "delete"}

// String is the operation's name.
func (k OpKind) String() string { return opNames[k] }

// Op is one change of one row.
type Op struct {
	Kind  OpKind
	Owner string    // of Insert: the unit, for external_ids portolan/owner
	Row   rows.Row  // of Insert, Update and Delete; Delete has Ref and Parent only
	UUID  string    // of Delete: the row's UUID where it is not the derived one
	Edge  rows.Edge // of Add and Remove
}

// GroupOps is what one group wants changed in one database. It is never split.
type GroupOps struct {
	Group string
	Ops   []Op
	// Needs names groups before it in the transaction without which this one must
	// not be committed: a database does not refuse a user without its name, or a
	// name's deletion under a user, and traffic would pass (decision 3).
	Needs []string
	// Tied says that this group and the one before it need each other.
	Tied bool
}

// Txn is one transaction: groups that may be bisected at the borders of Parts.
type Txn struct {
	DB     rows.DB
	ID     uint64 // counts up from 1 over all databases
	Groups []GroupOps
	NbCfg  int64 // NB only: the value to write into NB_Global.nb_cfg; 0: leave it
}

// Len counts the operations.
func (t Txn) Len() int {
	n := 0
	for _, g := range t.Groups {
		n += len(g.Ops)
	}
	return n
}

// Parts cuts a transaction's groups where it may be bisected. A part is not to be
// written when one that it needs was not: see Withhold.
func Parts(groups []GroupOps) [][]GroupOps {
	var parts [][]GroupOps
	for i, g := range groups {
		if i > 0 && g.Tied {
			parts[len(parts)-1] = append(parts[len(parts)-1], g)
			continue
		}
		parts = append(parts, groups[i:i+1:i+1])
	}
	return parts
}

// Withhold parts what may still be written once some groups have failed from
// what needs one of them, itself or through others. Those it adds to failed.
func Withhold(parts [][]GroupOps, failed map[string]Failure) (rest [][]GroupOps) {
	for _, part := range parts {
		missing := ""
		for _, g := range part {
			for _, need := range g.Needs {
				if _, bad := failed[need]; bad {
					missing = need
				}
			}
		}
		if missing == "" {
			rest = append(rest, part)
			continue
		}
		for _, g := range part {
			failed[g.Group] = Failure{Class: Withheld, Err: "not written without " + missing}
		}
	}
	return rest
}

// Class tells what may make a failed group succeed.
type Class uint8

// The classes of failure.
const (
	IO         Class = iota + 1 // the database could not be asked, or lost the answer: back off 1 s to 60 s
	Constraint                  // the database refused the content: back off to 5 min, shown as a problem
	Withheld                    // not tried: a group that it needs was not written. No fault of its own
	Vanished                    // a mutate counted no row: the ledger is wrong, resync the database
)

var classNames = map[Class]string{IO: "io", Constraint: "constraint", Withheld: "withheld", Vanished: "vanished"}

// String is the class's name.
func (c Class) String() string { return classNames[c] }

// Failure is why a group was not written.
type Failure struct {
	Class Class
	Err   string
}

// Result reports one transaction. Groups not named in Failed were committed,
// unless Lost.
type Result struct {
	DB     rows.DB
	Txn    uint64
	Failed map[string]Failure
	// Lost means that the connection broke with the transaction under way: it may
	// or may not have been committed. A Snapshot must follow.
	Lost bool
}

// ActualRow is a row as a database holds it: one of ours, or a singleton.
type ActualRow struct {
	rows.Ref        // singletons have ID rows.Singleton
	Owner    string // external_ids portolan/owner; "" for singletons and for tables without external_ids
	UUID     string // as found; a row of ours under another UUID is replaced
	Parent   rows.Parent
	Columns  []rows.Column // sorted, non-default, without our tags; references resolved to Refs
}

// Snapshot is the whole of what a database holds of ours. Strangers lists the
// unique names that rows of others hold, by "Table/index value".
type Snapshot struct {
	DB        rows.DB
	Rows      []ActualRow
	Strangers map[string]string // unique index value -> description of the row
	NbCfg     int64             // NB only: NB_Global.nb_cfg as found
	HvCfg     int64             // NB only: NB_Global.hv_cfg as found
}

// Status is where one group stands in one database.
type Status struct {
	Group   string
	DB      rows.DB
	Waiting []string // what is missing: a row, a name, or that another lets go
	Failure Failure  // of the last attempt; zero when there was none
	Retry   int64    // when it is tried again, in the driver's ticks; 0: on an event
	Since   int64    // the tick since which it is not as it should be
}

// String is one line for people.
func (s Status) String() string {
	if s.Failure.Err != "" {
		return fmt.Sprintf("%s in %s: %s", s.Group, s.DB, s.Failure.Err)
	}
	return fmt.Sprintf("%s in %s: waiting on %s", s.Group, s.DB, strings.Join(s.Waiting, ", "))
}

// Ready is what a Step asks the caller to do.
type Ready struct {
	Txns []Txn
	// Resync names databases whose ledger is doubted: take a Snapshot.
	Resync []rows.DB
	// Wake is the tick at which a Tick event is wanted; 0: none.
	Wake int64
}
