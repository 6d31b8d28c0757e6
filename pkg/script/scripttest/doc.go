// Package scripttest runs scripts as tests: each as it is written, and each
// again in other orders. What a compiler makes must depend on the intent as it
// is now, never on how it came to be; so whatever a script does, these hold:
//
//	incremental    == everything compiled anew
//	the database   == what units want, unless a group waits
//	done twice     == no operation
//	a restart      == no operation
//	all deleted    == an empty database, and nothing of others touched
//
// The expansions are: reversed, split (one object a step), squashed (one step),
// duplicated, and restarted (before every step, with what came in between).
package scripttest
