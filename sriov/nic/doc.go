// Package nic answers: what has to be done to a NIC so that it has the functions, the
// e-switch mode, the drivers and the MTU that are asked for; and it does that. Input: a
// physical function as it is found, and what is wanted of it. Output: steps, in the
// order that its driver needs; the NIC, or an error that names the step.
//
//	Inventory ──> Look ──> NIC ──Plan(Wanted)──> steps ──Apply──> Machine
//	                ^                                                │
//	                └──────────── until nothing is left ─────────────┘
//
// Invariants: what is there decides, never what was done before: after each round the
// NIC is looked at again. A step waits for what it is for, no longer than it is told to.
// Which functions a step takes away is said before it is taken; that nobody has them is
// the caller's to know.
package nic
