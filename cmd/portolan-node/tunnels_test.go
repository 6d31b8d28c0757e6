package main

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/portolan-cni/portolan/pkg/host"
)

func ips(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// TestTunnels: an address is there as long as a pool or an interface has it, and after a
// start as long as it is not known who has; the first always is.
func TestTunnels(t *testing.T) {
	var told [][]netip.Addr
	tun := &tunnels{
		first: netip.MustParseAddr("172.18.0.2"), earlier: ips("172.18.0.2", "172.19.0.2"), woken: make(chan struct{}, 1),
		find: func(list []netip.Addr) (host.Tunnels, error) {
			list = slices.DeleteFunc(slices.Clone(list), func(a netip.Addr) bool { return a == netip.MustParseAddr("172.99.0.2") })
			return host.Tunnels{Addresses: list}, nil
		},
	}
	tun.look()
	tun.tell = func(f host.Tunnels) { told = append(told, f.Addresses) }
	for _, c := range []struct {
		what string
		do   func()
		want []netip.Addr
	}{
		{"after a start", func() {}, ips("172.18.0.2", "172.19.0.2")},
		{"an interface has it", func() { tun.use(ips("172.19.0.2")); tun.settle() }, ips("172.18.0.2", "172.19.0.2")},
		{"a pool asks for another, and for one that the machine has not", func() { tun.want(ips("172.20.0.2", "172.18.0.2", "172.99.0.2")) },
			ips("172.18.0.2", "172.19.0.2", "172.20.0.2")},
		{"the interface goes", func() { tun.use(nil) }, ips("172.18.0.2", "172.20.0.2")},
		{"the pool goes", func() { tun.want(nil) }, ips("172.18.0.2")},
	} {
		c.do()
		tun.look()
		if got := tun.all(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	if len(told) != 4 { // the second changes nothing
		t.Errorf("told %v", told)
	}
	for setting, want := range map[string][]netip.Addr{
		"172.18.0.2, 172.19.0.2,x": ips("172.19.0.2"), "172.18.0.12": nil, "": nil,
	} {
		if got := furtherOf(setting); !slices.Equal(got, want) {
			t.Errorf("ovn-encap-ip %q read as %v, want %v", setting, got, want)
		}
	}
}
