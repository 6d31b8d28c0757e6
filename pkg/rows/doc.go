// Package rows is the output language of the compiler: what a unit says a
// database should hold. It answers "which rows, with which identity, and which
// shared set and map entries", and nothing of how they get there.
//
//	Output ── Rows ──> Row{Ref, Parent, Uses, Columns}   owned by one unit
//	       └─ Edges ─> Edge{Row, Column, Key, Value}     counted by contributor
//
// A Row has a stable ID from which its UUID is derived (decision 2), so a
// restored database diffs to nothing and no reply has to be waited for. A row of
// a non-root table names its one Parent; row and parent reference are one thing.
// An Edge is one element of a shared set or one entry of a shared map: members
// emit edges, aggregates never list their members.
//
// Invariants: values are immutable once built; the order of elements in a set
// or map value is canonical; text form and value are equivalent (Parse(Format(x))
// == x). Columns that northd or ovn-controller write cannot be named: the schema
// here leaves them out.
package rows
