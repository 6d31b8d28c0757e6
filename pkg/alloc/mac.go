package alloc

import (
	"net"
	"net/netip"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// MAC derives a pod interface's MAC from its address: rows.MAC, as bytes. A
// dual-stack interface uses its IPv4 address.
func MAC(ip netip.Addr) net.HardwareAddr {
	mac, err := net.ParseMAC(rows.MAC(ip.Unmap().WithZone("")))
	if err != nil {
		panic(err) // rows.MAC writes six bytes
	}
	return mac
}

// MACOf is the MAC of an interface with these addresses: its first IPv4
// address's, else its first address's. Nil when there is none.
func MACOf(addresses []netip.Prefix) net.HardwareAddr {
	for _, a := range addresses {
		if a.Addr().Unmap().Is4() {
			return MAC(a.Addr())
		}
	}
	if len(addresses) == 0 {
		return nil
	}
	return MAC(addresses[0].Addr())
}
