package packets

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frame is an Ethernet frame to forge.
type Frame struct {
	Src, Dst net.HardwareAddr
}

// UDP makes a datagram over IPv4 or IPv6, as its addresses are.
func (f Frame) UDP(src, dst netip.AddrPort, data []byte) []byte {
	udp := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(udp[0:], src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(data)))
	udp = append(udp, data...)
	sum := pseudo(src.Addr(), dst.Addr(), 17, len(udp))
	binary.BigEndian.PutUint16(udp[6:], fold(sum, udp))
	if src.Addr().Is6() {
		return f.ethernet(0x86dd, ipv6(src.Addr(), dst.Addr(), 17, 64, udp))
	}
	return f.ethernet(0x0800, ipv4(src.Addr(), dst.Addr(), 17, udp))
}

// ARPReply makes a gratuitous claim of an address.
func (f Frame) ARPReply(claimed netip.Addr, to netip.Addr) []byte {
	b := make([]byte, 28)
	copy(b, []byte{0, 1, 8, 0, 6, 4, 0, 2})
	copy(b[8:], f.Src)
	copy(b[14:], claimed.AsSlice())
	copy(b[18:], f.Dst)
	copy(b[24:], to.AsSlice())
	return f.ethernet(0x0806, b)
}

// NeighbourAdvertisement claims an address for the frame's source, overriding what
// is known (RFC 4861 §4.4), and says that it is a router's. from and to are the
// packet's own addresses.
func (f Frame) NeighbourAdvertisement(claimed, from, to netip.Addr) []byte {
	body := []byte{136, 0, 0, 0, 0xa0, 0, 0, 0} // router, override
	body = append(body, claimed.AsSlice()...)
	return f.discovery(from, to, append(append(body, 2, 1), f.Src...))
}

// RouterAdvertisement says that the frame's source is the default router, that
// prefix is on the link, and that addresses are to be made from it (RFC 4861
// §4.2), for half an hour each.
func (f Frame) RouterAdvertisement(from, to netip.Addr, prefix netip.Prefix) []byte {
	const half = 1800                                                    // seconds
	body := []byte{134, 0, 0, 0, 64, 0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // hop limit 64, preference high
	binary.BigEndian.PutUint16(body[6:], half)
	body = append(append(body, 1, 1), f.Src...)
	info := []byte{3, 4, byte(prefix.Bits()), 0xc0} // on link, autonomous
	info = binary.BigEndian.AppendUint32(info, half)
	info = binary.BigEndian.AppendUint32(info, half)
	info = append(append(info, 0, 0, 0, 0), prefix.Masked().Addr().AsSlice()...)
	return f.discovery(from, to, append(body, info...))
}

// discovery wraps a message of neighbour discovery, whose hop limit of 255 proves
// that no router has passed it on.
func (f Frame) discovery(from, to netip.Addr, icmp []byte) []byte {
	sum := pseudo(from, to, 58, len(icmp))
	binary.BigEndian.PutUint16(icmp[2:], fold(sum, icmp))
	return f.ethernet(0x86dd, ipv6(from, to, 58, 255, icmp))
}

func (f Frame) ethernet(kind uint16, data []byte) []byte {
	b := make([]byte, 0, 14+len(data))
	b = append(append(b, f.Dst...), f.Src...)
	return append(binary.BigEndian.AppendUint16(b, kind), data...)
}

func ipv4(src, dst netip.Addr, proto byte, data []byte) []byte {
	h := make([]byte, 20, 20+len(data))
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(data)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, data...)
}

func ipv6(src, dst netip.Addr, next, hopLimit byte, data []byte) []byte {
	h := make([]byte, 40, 40+len(data))
	h[0], h[6], h[7] = 0x60, next, hopLimit
	binary.BigEndian.PutUint16(h[4:], uint16(len(data)))
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	return append(h, data...)
}

// pseudo sums the pseudo header of a transport checksum (RFC 768, RFC 8200 §8.1).
func pseudo(src, dst netip.Addr, proto, length int) uint32 {
	var sum uint32
	for _, a := range [][]byte{src.AsSlice(), dst.AsSlice()} {
		for i := 0; i < len(a); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(a[i:]))
		}
	}
	return sum + uint32(proto) + uint32(length)
}

func fold(sum uint32, b []byte) uint16 {
	sum += uint32(^checksum(b))
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// LinkLocal is the address that a kernel makes of a MAC (RFC 4291, appendix A).
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	a := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
	return netip.AddrFrom16(a)
}
