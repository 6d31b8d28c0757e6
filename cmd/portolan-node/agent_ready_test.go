package main

import (
	"net"
	"net/netip"
	"testing"
)

// TestTheNodeNeedsItsAddressOfEachFamily: a link has a link-local address as soon
// as it is up; pods and node cannot talk by that.
func TestTheNodeNeedsItsAddressOfEachFamily(t *testing.T) {
	subnets := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	for _, c := range []struct {
		have    []string
		missing int
	}{
		{nil, 2},
		{[]string{"fe80::858:aff:fef4:102/64"}, 2},
		{[]string{"fe80::858:aff:fef4:102/64", "10.244.1.2/24"}, 1},
		{[]string{"10.244.1.3/24", "fd00:1::2/64"}, 1},
		{[]string{"fe80::858:aff:fef4:102/64", "10.244.1.2/24", "fd00:1::2/64"}, 0},
	} {
		var have []net.Addr
		for _, s := range c.have {
			ip, network, err := net.ParseCIDR(s)
			if err != nil {
				t.Fatal(err)
			}
			have = append(have, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		if got := missingManagement(have, subnets); len(got) != c.missing {
			t.Errorf("with %v: missing %v, wanted %d", c.have, got, c.missing)
		}
	}
}
