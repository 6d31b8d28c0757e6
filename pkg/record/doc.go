// Package record is the engine's flight recorder: it keeps the last inputs of a
// running engine, writes them to a file, and runs an engine on a file again to
// find whether it answers as the first one did, bit for bit.
//
//	driver ──events──> Before ─┐              ┌─ generation: Checkpoint, steps ─┐
//	engine ──answer──> After ──┴─> bytes ──>  └─ generation: Checkpoint, steps ─┴─> Dump ─> file ─> Replay
//
// Events alone cannot be replayed without what was before them, so the recorder
// keeps two generations, each of which begins with a Checkpoint of the engine.
// When the younger has half of the limit, the older is dropped and a new one is
// begun; a dump begins at the older one's Checkpoint, and so holds half of the
// limit at least once so much has happened. Of what the engine answered each step
// keeps a digest a transaction: enough to say whether, where and in which
// transaction another run differs.
//
// Recording costs no allocation but the ring's own memory, takes no lock that a
// dump holds for longer than it takes to copy a few slices, and does no I/O. The
// encoding is derived from the types (Codec), so no field and no kind can be
// forgotten; a file says how its types were laid out, and a program whose types
// differ refuses it.
package record
