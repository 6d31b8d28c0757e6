// Package rig makes, inside a guest (bin/guest), what offload is tested on: hosts
// with network stacks and file systems of their own, wires between them, Open
// vSwitch and OVN on the guest's kernel, emulated NICs, pods.
//
//	Wire ──NIC or veth── Host{OVS, OVN or portolan-node} ──representor or veth── Pod
//
// It is for tests that run as root in a guest and nowhere else. Everything is made
// for one test and ends with it; a step that fails ends the test with what the
// program said. An emulated processor is 8 to 25 times slower than a real one, so
// nothing is waited for by the clock: Wait looks until Patience is over.
package rig

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// Patience is how long anything may take: more than ten times what is usual, as the
// guest may get only what others leave of the machine.
const Patience = 3 * time.Minute

// Lab is all that one test has made.
type Lab struct {
	t *testing.T // the test or subtest that runs: whose failures it is
}

// New begins a lab.
func New(t *testing.T) *Lab { return &Lab{t} }

// Run runs a subtest, whose failures are its own. What it makes ends with it.
func (l *Lab) Run(name string, fn func(t *testing.T)) {
	outer := l.t
	outer.Run(name, func(t *testing.T) {
		l.t = t
		defer func() { l.t = outer }()
		fn(t)
	})
}

// Wait looks until ok gives nil, and fails the test with its last error when
// Patience is over.
func Wait(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after %s: %v", what, Patience, err)
		}
		<-tick.C
	}
}

// Modules loads kernel modules, unless the guest's kernel has everything built in.
func Modules(t *testing.T, names ...string) {
	t.Helper()
	if _, err := os.Stat("/proc/modules"); err != nil {
		return
	}
	if out, err := exec.Command("modprobe", append([]string{"-a"}, names...)...).CombinedOutput(); err != nil {
		t.Fatalf("modprobe %v: %v: %s", names, err, out)
	}
}
