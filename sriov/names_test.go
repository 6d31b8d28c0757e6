package sriov_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNameTakenMeanwhile: another device of the node has the name now.
func TestNameTakenMeanwhile(t *testing.T) {
	w := newWorld(t, "connectx-6")
	before := w.all()
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	w.kernel.Udev("ens1f0np0v1", "ens1f0np0v0")
	if err := w.keeper.Release(context.Background(), a.Device, a.Owner); !errors.Is(err, unix.EEXIST) {
		t.Fatalf("got %v", err)
	}
	w.kernel.Udev("ens1f0np0v0", "ens1f0np0v1")
	w.release(a)
	w.same(before, "released again")
}

// TestNamesInTheSandbox: it has names that the function has, or had, with the node; the
// function comes and goes by a namespace where they are not.
func TestNamesInTheSandbox(t *testing.T) {
	w := newWorld(t, "connectx-6")
	host := w.kernel.Host()
	l, err := w.kernel.Link(host, "ens1f0np0v0")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"enp59s0f0v0", "enp59s0f0np0v0"} {
		if err := w.kernel.AddAltName(host, l.Index, name); err != nil {
			t.Fatal(err)
		}
	}
	before := w.all()
	for _, name := range []string{"ens1f0np0v0", "enp59s0f0v0"} {
		a := w.wish("0000:3b:00.2", "pod-"+name)
		w.kernel.Intrude(a.Owner.Netns, name)
		given := w.attach(a)
		if in := w.kernel.In(a.Owner.Netns); !strings.Contains(in, "net1 "+given.MAC+" 1400 up true") {
			t.Errorf("%s: the sandbox has %s", name, in)
		}
		w.release(a)
		w.same(before, "released beside "+name)
	}
}
