//go:build kernel

package sriov_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/sriov"
)

// TestKernelUevents: what the kernel tells of network devices, and of others by order, is
// heard within a second.
func TestKernelUevents(t *testing.T) {
	heard := make(chan sriov.Uevent, 1000)
	if err := sriov.Uevents(t.Context(), func(u sriov.Uevent) { heard <- u }); err != nil {
		t.Fatal(err)
	}
	wait := func(what string, is func(sriov.Uevent) bool) {
		t.Helper()
		late := time.After(time.Second)
		for {
			select {
			case u := <-heard:
				if is(u) {
					return
				}
			case <-late:
				t.Fatalf("%s: nothing is heard in a second", what)
			}
		}
	}
	of := func(action, name string) func(sriov.Uevent) bool {
		return func(u sriov.Uevent) bool {
			return u.Action == action && u.Subsystem == "net" && u.Values["INTERFACE"] == name && !u.OfFunction()
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uev0"
	pair := netlink.NewVeth(attrs)
	pair.PeerName = "uev1"
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	wait("a pair is made", of("add", "uev0"))
	// Nothing here has a driver to lose: the kernel is asked to say so of a device (since 4.13).
	if err := os.WriteFile(nstest.Dir()+"/sys/class/net/uev0/uevent", []byte("unbind"), 0); err != nil {
		t.Fatal(err)
	}
	wait("a device is unbound", of("unbind", "uev0"))
	if err := netlink.LinkDel(pair); err != nil {
		t.Fatal(err)
	}
	wait("a pair is removed", of("remove", "uev0"))
}

// TestKernelWatch: a NIC of this machine that says it is bound rings; what nobody is about
// does not.
func TestKernelWatch(t *testing.T) {
	nic := ""
	classes, err := filepath.Glob(nstest.Dir() + "/sys/bus/pci/devices/*/class")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range classes {
		if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), "0x02") {
			nic = filepath.Dir(file)
		}
	}
	if nic == "" {
		t.Skip("this machine has no NIC on PCI, of which the kernel could tell")
	}
	bell := sriov.Watch(t.Context(), func(string) bool { return false })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uev2"
	pair := netlink.NewVeth(attrs)
	pair.PeerName = "uev3"
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.LinkDel(pair) }()
	select {
	case <-bell:
		t.Error("it rings for a device that nobody is about")
	case <-time.After(50 * time.Millisecond):
	}
	for _, action := range []string{"unbind", "bind"} {
		if err := os.WriteFile(nic+"/uevent", []byte(action), 0); err != nil {
			t.Fatal(err)
		}
		select {
		case <-bell:
		case <-time.After(time.Second):
			t.Errorf("%s of %s: nothing rings in a second", action, filepath.Base(nic))
		}
	}
}
