// Package alloc answers "which address, id or subnet may this owner have", in
// memory and without I/O: the caller persists the answer and, after a restart,
// gives it back with Reserve before it allocates anything new.
//
//	Pool     a node's pod addresses, by pod UID     next-fit, 60 s of rest while there is room
//	IDs      node ids, by node name                 lowest free, 5 min of rest, always
//	Subnets  node subnets, by node name             lowest free, 5 min of rest, always
//
// Rest matters because of who else may still believe in the old owner: another
// zone's address sets hold a dead pod's address until its own informer has seen
// the deletion (decision 17).
//
// Invariants: one owner has at most one allocation, and asking twice gives the
// same one; a reserved value is never given to another owner; time comes only
// from the clock that the caller passes in. All types are safe for concurrent use.
package alloc
