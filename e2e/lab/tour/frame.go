package tour

import (
	"encoding/binary"
	"net/netip"
)

// packet is the IPv4 part of a frame that a sniffer has caught.
type packet struct {
	src, dst netip.Addr
	protocol byte
	data     []byte // after the IPv4 header
}

const (
	icmp = 1
	tcp  = 6
	udp  = 17
	// genevePort is the UDP port of tunnels (RFC 8926).
	genevePort = 6081
)

// ipv4Of reads an Ethernet frame without VLAN tags.
func ipv4Of(frame []byte) (packet, bool) {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return packet{}, false
	}
	ip := frame[14:]
	head := int(ip[0]&15) * 4
	if head < 20 || len(ip) < head {
		return packet{}, false
	}
	return packet{netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20])), ip[9], ip[head:]}, true
}

// asks reports whether the packet opens a TCP connection to a port.
func (p packet) asks(port uint16) bool {
	return p.protocol == tcp && len(p.data) >= 20 && binary.BigEndian.Uint16(p.data[2:]) == port && p.data[13] == 0x02
}

// echoRequest reports whether the packet is a ping's question.
func (p packet) echoRequest() bool { return p.protocol == icmp && len(p.data) > 0 && p.data[0] == 8 }

// inner is the packet in a Geneve tunnel.
func (p packet) inner() (packet, bool) {
	if p.protocol != udp || len(p.data) < 16 || binary.BigEndian.Uint16(p.data[2:]) != genevePort {
		return packet{}, false
	}
	options := int(p.data[8]&0x3f) * 4
	if len(p.data) < 16+options {
		return packet{}, false
	}
	return ipv4Of(p.data[16+options:])
}
