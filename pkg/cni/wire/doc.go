// Package wire is what portolan-cni and portolan-node say to each other, and
// what both say to the container runtime: one Call, one Reply, CNI errors.
//
//	runtime ── env, stdin ──> portolan-cni ── Call, one line of JSON ──> portolan-node
//	        <── stdout, exit ──            <── Reply, one line of JSON ──
//
// One call uses one connection of a unix socket. The caller keeps its side open
// until it has the reply: a connection that ends before that tells the server
// that the runtime has given up, and the server undoes what it has done. HTTP
// would say no more and would make the program that every pod start executes
// more than twice as large and slower to begin.
//
// The package imports only small parts of the standard library, for the same
// reason; it reads no environment.
package wire
