// Package ovsdb makes OVSDB databases hold what the engine decided, and tells
// the engine what they hold. Its inputs are engine.Txns, its outputs
// engine.Results and engine.Snapshots.
//
//	Sink ──events──> Driver ──Txn──> Conn.Apply ──transact──> ovsdb-server
//	                   ^  ^──Result── encode, check counts,       │
//	                   │              bisect                      │
//	                   └──Snapshot, Down, Installed── Conn <──────┘ select, monitor
//
// A Conn is one JSON-RPC session: the lock it holds and the transactions that
// assert it share the connection, as RFC 7047 §4.1.8 wants. libovsdb 0.8.1 has
// neither the lock call nor a way to its RPC client, so the session is our own
// (rpc.go); libovsdb gives the schema's types and the generated models.
//
// Invariants: a transaction is sent only on a connection that has given a
// Snapshot; every reply's count is checked, since a mutate of a missing row is
// no error; groups are never split; text of operations is a function of the
// Txn alone.
package ovsdb
