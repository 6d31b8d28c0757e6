// Package metrics is what each process tells Prometheus of itself, and /healthz
// and /readyz beside it.
//
//	New("node") ─> Set ─┬─ Compiler   what has an engine: portolan-node, portolan-controller
//	                    ├─ Node       CNI calls, annotations
//	                    ├─ Offload    where packets are moved: portolan_offload_WHAT
//	                    └─ Manager    allocation
//	                         └─> Handler: /metrics /healthz /readyz
//
// Names are portolan_PROCESS_WHAT, so that one process's figures are found by
// their beginning, and those of all that compile by one pattern. What can be
// counted where it happens is counted there; what is a state is read when it is
// asked for, from the engine's own goroutine, without sorting or copying: a scrape
// of an engine with ten thousand pods takes about a millisecond of it.
// docs/metrics.md lists every name and is checked against this package.
package metrics
