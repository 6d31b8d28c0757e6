// Package trace answers: where does this packet go, and who stops it?
//
//	Packet ──Flow──> ovn-trace in the sender's zone ──Parse──> Zone{Hops, Verdict}
//	                        │ leaves by the transit switch's remote port
//	                        └──Onward──> ovn-trace in the next zone … ──> Path
//
// ovn-trace(8) walks the logical flows of one southbound database, so it ends
// where the zone does; a Path is joined from as many walks as there are zones. A
// verdict names the logical flow that decided, by that the northbound row it was
// made from, and by that row's owner the object somebody wrote (Decider).
//
// Everything here is text in and values out; who runs ovn-trace, and where, the
// callers know.
package trace
