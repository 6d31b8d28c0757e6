// Package delegate runs plugins of others for interfaces of pods, where Portolan is the
// runtime's only plugin: through libcni, in the node's plugin directory and file system.
//
//	cni.Agent ── Add, Check, Del ──> Plugins ──> libcni ──> /opt/cni/bin/bridge …
//	                                    │
//	                                    └──> a record per delegation, and libcni's results
//
// Invariants: a record is there before the first plugin is executed, and goes after
// the last has undone its part, so that a process that is killed, and a definition that
// is deleted, leave nothing that is not known. While a plugin runs that an earlier
// process has started, Open does not return: two never work on one sandbox. What is
// executed is a file of the plugin directory and nothing else.
package delegate
