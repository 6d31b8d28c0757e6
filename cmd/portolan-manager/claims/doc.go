// Package claims answers which networks there should be, and which definitions may
// attach pods to them. Definitions are NetworkAttachmentDefinitions as users write
// them; each claims a network by its name. The first claim, the oldest, says what
// the network is, and others have to agree.
//
//	definitions ─┐
//	networks ────┼─> Decide ──> networks as they should be, findings by definition
//	pods, blocks ┘
//
// Invariants: what is accepted and in use changes only where that does no harm; a
// definition that is deleted in use stays until its last pod has gone; the decision
// depends on what is there and not on the order in which it came, but for the ids,
// which package alloc gives. There is no I/O here: portolan-manager does it.
package claims
