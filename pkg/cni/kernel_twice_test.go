//go:build kernel

package cni_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestKernelTwoInterfacesOfOneNetwork: what has the second's address leaves by the
// second, everything else by the first, whichever was made first.
func TestKernelTwoInterfacesOfOneNetwork(t *testing.T) {
	links, err := cni.NewVeths(true, intent.AttachmentGroup)
	if err != nil {
		t.Fatal(err)
	}
	ns := sandbox(t, "twice")
	prefixes := func(list ...string) (out []netip.Prefix) {
		for _, s := range list {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for rank, addrs := range map[int][]netip.Prefix{1: prefixes("10.7.0.6/24", "fd00:7::6/64"), 0: prefixes("10.7.0.5/24", "fd00:7::5/64")} {
		d := cni.Device{Host: []string{"paaaaaaaaaa70", "paaaaaaaaaa71"}[rank], MAC: net.HardwareAddr{0x0a, 0x58, 10, 7, 0, byte(5 + rank)}, MTU: 1400}
		e := cni.Endpoint{Netns: ns, IfName: []string{"net1", "net2"}[rank], Addresses: addrs, Rank: rank}
		if err := links.Create(cni.Pair{Device: d, Endpoint: e}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = links.Delete(d.Host) })
		if err := links.Configure(cni.Pair{Device: d, Endpoint: e}); err != nil {
			t.Fatal(err)
		}
		if err := links.Verify(d, e); err != nil {
			t.Error(err)
		}
	}
	for _, c := range [][3]string{
		{"10.7.0.9", "", "net1"}, {"10.7.0.9", "10.7.0.5", "net1"}, {"10.7.0.9", "10.7.0.6", "net2"},
		{"fd00:7::9", "fd00:7::5", "net1"}, {"fd00:7::9", "fd00:7::6", "net2"},
	} {
		args := []string{"ip", "route", "get", c[0]}
		if c[1] != "" {
			args = append(args, "from", c[1])
		}
		if got := in(t, ns, args...); !strings.Contains(got, "dev "+c[2]+" ") {
			t.Errorf("to %s from %q: %s, want by %s", c[0], c[1], got, c[2])
		}
	}
}
