package cni

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// announce tells the links whose the addresses are now: a gratuitous ARP request
// (RFC 5227 §3) or an unsolicited neighbour advertisement (RFC 4861 §7.2.6) each.
// An address is used again after a minute's rest, and neighbours may remember its
// last owner. It sends in the calling thread's network namespace.
func announce(list []Pair) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	// The kernel waits for an RCU grace period, 10 ms and more, when a packet socket
	// is closed. The pod need not.
	defer func() { go unix.Close(fd) }()
	var errs []error
	for _, p := range list {
		request, err := unix.NewIfreq(p.IfName)
		if err == nil {
			err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("finding %s in %s: %w", p.IfName, p.Netns, err))
			continue
		}
		to := &unix.SockaddrLinklayer{Ifindex: int(request.Uint32())}
		for _, a := range p.Addresses {
			frame := arpAnnouncement(p.MAC, a.Addr())
			if a.Addr().Is6() {
				frame = neighbourAdvertisement(p.MAC, a.Addr())
			}
			if err := unix.Sendto(fd, frame, 0, to); err != nil {
				errs = append(errs, fmt.Errorf("announcing %s: %w", a.Addr(), err))
			}
		}
	}
	return errors.Join(errs...)
}

// arpAnnouncement is a broadcast ARP request whose sender and target are ip.
func arpAnnouncement(mac net.HardwareAddr, ip netip.Addr) []byte {
	f := ethernet(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, lengths, request
	f = append(f, mac...)
	f = append(f, ip.AsSlice()...)
	f = append(f, make([]byte, 6)...) // target hardware address: not known in a request
	return append(f, ip.AsSlice()...)
}

// neighbourAdvertisement is sent to all nodes, with the override flag and the
// target's link-layer address.
func neighbourAdvertisement(mac net.HardwareAddr, ip netip.Addr) []byte {
	allNodes := netip.MustParseAddr("ff02::1").As16()
	icmp := []byte{136, 0, 0, 0, 0x20, 0, 0, 0} // type, code, checksum, override
	icmp = append(icmp, ip.AsSlice()...)
	icmp = append(icmp, 2, 1) // option: target link-layer address, 8 bytes
	icmp = append(icmp, mac...)

	pseudo := append(append([]byte{}, ip.AsSlice()...), allNodes[:]...)
	pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(icmp)))
	pseudo = append(pseudo, 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))

	f := ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(icmp)))
	f = append(f, unix.IPPROTO_ICMPV6, 255) // 255 proves that no router has passed it on
	f = append(f, ip.AsSlice()...)
	f = append(f, allNodes[:]...)
	return append(f, icmp...)
}

func ethernet(dst, src net.HardwareAddr, proto uint16) []byte {
	f := append(append(make([]byte, 0, 96), dst...), src...)
	return binary.BigEndian.AppendUint16(f, proto)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
