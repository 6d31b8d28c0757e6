// Package inspect answers questions about a running compiler: what it wants in
// the databases, which unit says so and why, what it waits for, and where the
// databases differ. It is the read-only API of every process that has an engine,
// and the client of it.
//
//	portolan ──Client──> unix socket ──Server──> Driver.Do ──> engine
//	                                     ├─────> a read of the databases, for diff
//	                                     └─────> an engine of its own, for plan
//
// Nothing here changes anything: a plan is made by a second engine from a copy of
// the intent. What needs the engine runs on the driver's loop and is short;
// what is long (reading a database, planning, text) runs on the request's own
// goroutine. Answers are JSON; the exported types are its contract, and a field
// that is absent is zero.
package inspect
