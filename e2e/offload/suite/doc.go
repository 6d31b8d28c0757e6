// Package suite holds the tests that run inside guests (build tag guest): what
// real kernels, drivers and Open vSwitch do with SR-IOV functions, representors
// and offloaded flows, and what Portolan makes of it. TestDebian… runs with
// Debian's kernel, TestOwn… with the kernel of our own configuration; the test of
// package offload compiles them, boots a guest for each kernel, and passes on
// how they went.
package suite
