// Package enginetest simulates the databases that the engine drives, for tests
// that need thousands of transactions a second. It answers what ovsdb-server
// would answer, and where ovsdb-server silently loses something, so does it.
//
//	engine.Txn ──> DB.Apply ──> copy of the rows ── operations, in order
//	                                │
//	                                ├── strong references hold, orphans vanish,
//	                                │   weak references to the missing vanish,
//	                                │   sizes and unique indexes are checked
//	                                └── commit, or bisect at group borders
//
// What a real server loses without a word is written down (Lost, Dangling), so a
// test can say: never an orphan, never a user before its name.
//
// Invariants: a refused transaction changes nothing; Snapshot is a function of
// the rows alone; rows that are not ours are changed by nobody but Foreign.
package enginetest
