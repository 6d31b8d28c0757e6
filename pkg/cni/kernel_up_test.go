//go:build kernel

package cni_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestKernelHostsEndIsUpBeforeItsPort holds the order that a race with vswitchd
// needs: it reads a new device's flags and writes all of them, so a device that is
// brought up meanwhile may be taken down again.
func TestKernelHostsEndIsUpBeforeItsPort(t *testing.T) {
	links, err := cni.NewVeths(true, intent.AttachmentGroup)
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	d := cni.Device{Host: "p0123456789ab", MAC: net.HardwareAddr{0x0a, 0x58, 10, 244, 0, 9}, MTU: 1400, Alias: "test"}
	at := cni.Endpoint{Netns: sandbox(t, "up"), IfName: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.244.0.9/24")}}
	if err := links.Create(cni.Pair{Device: d, Endpoint: at}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = links.Delete(d.Host) }()
	host, err := net.InterfaceByName(d.Host)
	if err != nil {
		t.Fatal(err)
	}
	if host.Flags&net.FlagUp == 0 {
		t.Errorf("%s is down when its pair has been made, and its port is written next", d.Host)
	}
	// More queues cost an RCU grace period each end, and are turned off again by the kernel.
	if l, err := netlink.LinkByName(d.Host); err != nil || l.Attrs().NumTxQueues != 1 || l.Attrs().NumRxQueues != 1 {
		t.Errorf("%s has %d and %d queues: %v", d.Host, l.Attrs().NumTxQueues, l.Attrs().NumRxQueues, err)
	}
}
