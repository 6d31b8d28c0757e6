// Package restart answers what a restart of a node's agent costs with so and so
// many pods: what is written (it must be nothing), how long it takes until the
// engine is at rest, and how much memory the agent then holds.
//
//	API server (client-go's fake) ── watch ──> door ──> driver, engine ── proxy ──> ovsdb-server NB, SB
//	          ^── annotations ───────────────── CNI server ─────────────── proxy ──> ovsdb-server OVS
//
// The databases are real, the parts are those of portolan-node; the kernel's
// links are a fake, and northd is not there, since nothing is to reach it. What
// is written is counted on the wire: operations that change something, in
// transactions; patches, in the API server.
//
// Invariant: nothing is counted by asking those who might have written it.
package restart
