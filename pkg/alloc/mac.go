package alloc

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

// MAC derives a pod interface's MAC from its address, as OVN-Kubernetes does, so
// that operators recognise it: 0a:58 and the four bytes of an IPv4 address, or
// the first four bytes of the SHA-256 of an IPv6 address's text. A dual-stack
// interface uses its IPv4 address.
func MAC(ip netip.Addr) net.HardwareAddr {
	if ip = ip.Unmap(); ip.Is4() {
		b := ip.As4()
		return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
	}
	sum := sha256.Sum256([]byte(ip.WithZone("").String()))
	return net.HardwareAddr{0x0a, 0x58, sum[0], sum[1], sum[2], sum[3]}
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
