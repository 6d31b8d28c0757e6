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

// IPv4UDP makes a UDP datagram over IPv4 with a recognisable payload.
func (f Frame) IPv4UDP(src, dst netip.AddrPort, data []byte) []byte {
	udp := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(udp[0:], src.Port())
	binary.BigEndian.PutUint16(udp[2:], dst.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(data)))
	udp = append(udp, data...)
	sum := pseudo(src.Addr(), dst.Addr(), 17, len(udp))
	binary.BigEndian.PutUint16(udp[6:], fold(sum, udp))
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

// pseudo sums the pseudo header of a transport checksum (RFC 768).
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
