// Package script is the language in which people and tests ask a compiler what
// it does: verbs on intent (apply, delete, step), on what came of it (rows,
// edges, ops, explain, problems, waiting, trace), and on what may go wrong
// (restart, fail, lose, down, up). A test's script and the portolan command run
// the same verbs, so what a test can ask, an operator can ask.
//
//	files ──door──> intent ──Shell──> engine ──transactions──> Databases
//	                          │  ^                                 │
//	     output of a verb <───┘  └──── results, snapshots ─────────┘
//
// A script is a txtar archive: its comment holds one command a line, its files
// are what commands read and compare with. The Shell is one goroutine without a
// clock: it drives the engine until nothing is left to do, and time passes by
// the verb tick. The verbs are listed by Verbs.
package script
