// Package intent holds what the cluster says, as small values parsed and
// validated once at the door (intent/kube, or YAML files), and answers reads of
// it in a way that is recorded: a unit that has read a key or an index bucket is
// run again when that changes, and only then.
//
//	door ── Put/Delete ──> Store ── Changes (keys, buckets) ──> engine's dirty set
//	                         │
//	                       View  <── reads, recorded ── units and derivations
//
// Invariants: objects are immutable; a Put of an equal object is no change;
// derived kinds (Set, Member) are settled for the whole batch before any unit
// runs. Kubernetes types never come in here.
package intent
