package sriov_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/portolan-cni/portolan/sriov"
)

// killed is what a step panics with when the process is to die there.
type killed struct{ step string }

// until runs f and kills it after a number of steps; it returns where, "" when f ended
// before.
func (w *world) until(steps int, f func()) (at string) {
	defer func() {
		w.after = nil
		w.kernel.Die()
		if r := recover(); r != nil {
			k, ok := r.(killed)
			if !ok {
				panic(r)
			}
			at = k.step
		}
	}()
	n := 0
	w.after = func(step string) {
		if n++; n == steps {
			panic(killed{step})
		}
	}
	f()
	return ""
}

// whole demands that a device is wholly its owner's or wholly the node's.
func (w *world) whole(before string, a sriov.Attachment, when string) (owned bool) {
	w.t.Helper()
	records, err := w.keeper.Records()
	if err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
	if len(records) == 0 {
		w.same(before, when)
		if in := w.kernel.In(a.Owner.Netns); in != "" {
			w.t.Errorf("%s: the device is the node's, and the sandbox has %s", when, in)
		}
		return false
	}
	if err := w.keeper.Check(context.Background(), a.Device, a.Owner); err != nil {
		w.t.Errorf("%s: the device is half its owner's: %v", when, err)
	}
	return true
}

// TestKilledAtEveryStep kills ADD and DEL after each change, and then the repair after a
// change of its own; a start must leave the device wholly the pod's or wholly the node's.
func TestKilledAtEveryStep(t *testing.T) {
	for name, c := range kinds() {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/sandbox gone %t", name, gone), func(t *testing.T) {
				t.Parallel()
				ctx := context.Background()
				seen := map[string]bool{}
				for step := 1; ; step++ {
					w := newWorld(t, c[0], "a-0")
					w.kernel.Exclusive = true
					before := w.all()
					a := w.wish(c[1], "pod")
					attached := false
					at := w.until(step, func() {
						if _, err := w.keeper.Attach(ctx, a); err != nil {
							t.Fatal(err)
						}
						attached = true
						if err := w.keeper.Release(ctx, a.Device, a.Owner); err != nil {
							t.Fatal(err)
						}
					})
					if at == "" {
						break
					}
					seen[at] = true
					when := fmt.Sprintf("killed after step %d (%s)", step, at)
					if gone {
						w.kernel.End(a.Owner.Netns)
					}
					// A repair that is killed too is repeated.
					w.start()
					second := w.until(1+rand.New(rand.NewPCG(uint64(step), 1)).IntN(8), func() { _, _ = w.keeper.Repair(ctx) })
					if second != "" {
						when += ", and its repair after " + second
					}
					w.start()
					if _, err := w.keeper.Repair(ctx); err != nil {
						t.Errorf("%s: %v", when, err)
					}
					if w.whole(before, a, when); gone {
						w.same(before, when)
					}
					if !attached && at != "record written" {
						w.same(before, when)
					}
					w.release(a)
					w.same(before, when+", then released")
				}
				if !seen["record written"] || !seen["record removed"] || len(seen) < 3 {
					t.Errorf("steps seen: %v", seen)
				}
			})
		}
	}
}
