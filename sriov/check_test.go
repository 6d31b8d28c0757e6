package sriov_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/sriov"
)

// impatient starts a keeper for devices that do not return.
func (w *world) impatient() {
	w.patience = 300 * time.Millisecond
	w.start()
}

// TestCheckSays: a pod whose device lacks something is told what, and is not whole.
func TestCheckSays(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *world, ns sriov.Namespace, l sriov.Link) error
		want []string
	}{
		"representor down": {func(w *world, _ sriov.Namespace, _ sriov.Link) error {
			port, err := w.kernel.Link(w.kernel.Host(), "ens1f0np0_0")
			if err != nil {
				return err
			}
			return w.kernel.SetUp(w.kernel.Host(), port.Index, false)
		}, []string{"representor ens1f0np0_0: it is down; look what takes it down"}},
		"representor gone": {func(w *world, _ sriov.Namespace, _ sriov.Link) error { w.kernel.DropLink("ens1f0np0_0"); return nil }, []string{"looking at representor ens1f0np0_0"}},
		"another name": {func(w *world, ns sriov.Namespace, l sriov.Link) error {
			if err := w.kernel.SetUp(ns, l.Index, false); err != nil {
				return err
			}
			return w.kernel.Set(ns, l.Index, sriov.Change{Name: "eth7"})
		}, []string{"interface net1: it is named eth7 in the sandbox"}},
		"another MAC": {func(w *world, ns sriov.Namespace, l sriov.Link) error {
			if err := w.kernel.SetUp(ns, l.Index, false); err != nil {
				return err
			}
			return w.kernel.Set(ns, l.Index, sriov.Change{MAC: mac(77)})
		}, []string{"its MAC is " + mac(77).String() + ", and was given as " + mac(3).String()}},
		"PF reset": {func(w *world, _ sriov.Namespace, _ sriov.Link) error {
			w.kernel.Reset("0000:3b:00.2", "eth3")
			return nil
		}, []string{"interface net1: it is not in the sandbox /run/netns/pod; look whether the NIC was reset"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "connectx-6")
			a := w.wish("0000:3b:00.2", "pod")
			w.attach(a)
			if err := w.keeper.Check(context.Background(), a.Device, a.Owner); err != nil {
				t.Fatal(err)
			}
			ns, err := w.kernel.Open(a.Owner.Netns)
			if err != nil {
				t.Fatal(err)
			}
			l, err := w.kernel.Link(ns, "net1")
			if err == nil {
				err = c.do(w, ns, l)
			}
			if err != nil {
				t.Fatal(err)
			}
			err = w.keeper.Check(context.Background(), a.Device, a.Owner)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("it says %v, want %q", err, want)
				}
			}
		})
	}
}

// TestReleaseSays: what keeps a device from coming back is named, and the record stays
// until it has.
func TestReleaseSays(t *testing.T) {
	for name, c := range map[string]struct {
		do, undo func(w *world, a sriov.Attachment)
		want     string
	}{
		"a process keeps the sandbox": {func(w *world, a sriov.Attachment) {
			w.impatient()
			w.kernel.Linger = 2 * time.Second
			w.kernel.End(a.Owner.Netns)
		}, func(w *world, _ sriov.Attachment) { w.patience = time.Minute; w.start() }, "it is neither in the sandbox /run/netns/pod nor with the node; look for a process that keeps"},
		"the driver refuses": {func(w *world, _ sriov.Attachment) { w.kernel.Fail("SetVF", context.DeadlineExceeded, 1) }, func(*world, sriov.Attachment) {}, "driver mlx5_core refuses it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "connectx-6")
			before := w.all()
			a := w.wish("0000:3b:00.2", "pod")
			w.attach(a)
			c.do(w, a)
			if err := w.keeper.Release(context.Background(), a.Device, a.Owner); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v, want %q", err, c.want)
			}
			if r, err := w.keeper.Records(); len(r) != 1 || err != nil {
				t.Fatalf("records %+v, %v", r, err)
			}
			c.undo(w, a)
			w.release(a)
			w.same(before, "released")
		})
	}
}

// TestUpOnlyInTheSwitch: a representor is up only while it is a port: before and after, its
// function's packets would come to the node, or to whom had it before.
func TestUpOnlyInTheSwitch(t *testing.T) {
	w := newWorld(t, "connectx-6")
	var seen []string
	w.after = func(op string) {
		if op != "Plug" && op != "Unplug" {
			return
		}
		port, err := w.kernel.Link(w.kernel.Host(), "ens1f0np0_0")
		if err != nil {
			t.Error(err)
		}
		if seen = append(seen, op); port.Up {
			t.Errorf("at %s the representor is up", op)
		}
	}
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	if port, err := w.kernel.Link(w.kernel.Host(), "ens1f0np0_0"); err != nil || !port.Up {
		t.Errorf("attached: %+v, %v", port, err)
	}
	w.release(a)
	if strings.Join(seen, " ") != "Plug Unplug" {
		t.Errorf("the switch was told %q", seen)
	}
}

// TestMendRaises: a representor that somebody takes down under a pod is brought up.
func TestMendRaises(t *testing.T) {
	w := newWorld(t, "connectx-6")
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	port, err := w.kernel.Link(w.kernel.Host(), "ens1f0np0_0")
	if err == nil {
		err = w.kernel.SetUp(w.kernel.Host(), port.Index, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	if done, err := w.keeper.Mend(context.Background(), a.Device, a.Owner); err != nil || done == nil {
		t.Errorf("mended %+v, %v", done, err)
	}
	if err := w.keeper.Check(context.Background(), a.Device, a.Owner); err != nil {
		t.Error(err)
	}
}
