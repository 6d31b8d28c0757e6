// Package engine makes databases hold what units say. It is a deterministic
// state machine on one goroutine: events in, Ready out; no I/O and no clock
// inside, so the same events give the same transactions, bit for bit.
//
//	Event ──> Step ──> dirty units ──compile──> desired ─┐
//	                                                     ├─ diff ─> Ready{Txns, Problems}
//	Result, Snapshot ───────────────────────> committed ─┘
//
// The caller performs the transactions of a Ready and steps the engine with
// their Results. Desired is what the units last said; committed (the ledger) is
// what the database was last known to hold of ours. The difference is grouped by
// the units' groups; a group is written whole or not at all, and one whose
// parent, strong, weak or name target is missing is parked, visibly, until the
// target comes (decisions 1 to 12).
//
// Invariants: nothing is written to a database before its Snapshot and the
// Synced event; at most one transaction per database is under way; a row is
// never deleted because a unit could not be applied, only because no unit says
// it any more; output depends on the current intent, never on its history.
package engine
