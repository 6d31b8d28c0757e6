// Package kube is the door between Kubernetes and intent: the only package that
// imports client-go, and the only one that knows what a Kubernetes object looks
// like.
//
//	API server ── Watch ──┐
//	                      ├── ParseNode, ParsePod, … ──> Sink: intent objects, Problems
//	YAML files ─ WatchDir ┘
//	API server <── Patcher (annotations), Recorder (Events) ── agent, allocator
//
// Inputs are trimmed to the fields that are read before they are cached.
// A malformed field is a Problem that names the object, the field, what was found
// and what to do; the rest of the object is used. Status conditions are never
// intent, and neither is anything else that nobody reads.
//
// Invariants: the parse functions are pure; a Sink is never called from two
// goroutines at once; Synced comes after every object of the first list; writers
// never block their caller.
package kube
