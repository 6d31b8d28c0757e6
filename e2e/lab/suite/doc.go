// Package suite holds the tests that need the lab: a real cluster with Portolan
// as its network, up on this machine (`lab up`). Every claim is made with
// packets that the tests send and receive themselves (package packets).
package suite
