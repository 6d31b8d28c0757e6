// Package kube is the door between Kubernetes and intent: the only package that
// imports client-go, and the only one that knows what a Kubernetes object looks
// like.
//
//	API server ── Watch ──┐
//	                      ├── ParseNode, ParsePod, … ──> Sink: intent objects, Problems
//	YAML files ─ WatchDir ┘
//	API server <── Patcher (annotations), NodeNetworkWriter ── agent
//	API server <── AnnotateNode, Teller (Events) ── manager
//
// Inputs are trimmed to the fields that are read before they are cached.
// A malformed field is a Problem that names the object, the field, what was found
// and what to do; the rest of the object is used. Status conditions are never
// intent, and neither is anything else that nobody reads. What a Node last said well
// stays in force where an annotation of it is malformed or removed.
//
// Invariants: the parse functions are pure (a Watch adds the past of Nodes); a Sink
// is never called from two
// goroutines at once; Synced comes after every object of the first list; a Patcher
// never blocks its caller.
package kube
