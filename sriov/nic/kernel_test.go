//go:build kernel

package nic_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
)

// TestKernelLinks changes a veth pair of a namespace of its own: no NIC is here, and what
// is not said of e-switches is the same for any device.
func TestKernelLinks(t *testing.T) {
	runtime.LockOSThread() // the thread ends with the test, and the namespace with it
	if _, err := netns.New(); err != nil {
		t.Fatal(err)
	}
	k, err := nic.NewKernel("/sys")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "pf"
	pair := netlink.NewVeth(attrs)
	pair.PeerName = "vf"
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.SetUp("pf"), k.SetMTU("pf", 1400)); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("pf")
	if err != nil || l.Attrs().MTU != 1400 || l.Attrs().RawFlags&1 == 0 {
		t.Errorf("%+v, %v", l.Attrs(), err)
	}
	if o, err := k.Offload("pf"); err != nil || o != nic.Fixed {
		t.Errorf("hw-tc-offload %q, %v: a veth has none", o, err)
	}
	if err := k.SetMTU("nobody", 1500); err == nil {
		t.Error("a device that is not there was changed")
	}
	// Where there is no devlink, or no such device, it says so.
	if err := k.SetMode("pci", "0000:00:00.0", sriov.Switchdev); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error %v", err)
	}
}
