package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// golden counts packets of two addresses that pass a representor: those that the NIC
// did not move itself.
type golden struct {
	fd    int
	count atomic.Int64
	done  chan struct{}
}

// watch begins to count.
func watch(representor string, a, b netip.Addr) (*golden, error) {
	i, err := net.InterfaceByName(representor)
	if err != nil {
		return nil, err
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		return nil, err
	}
	wake := unix.Timeval{Usec: 100_000}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wake)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watching %s: %w", representor, err)
	}
	g := &golden{fd: fd, done: make(chan struct{})}
	go g.read(a, b) // ends with stop
	return g, nil
}

func (g *golden) read(a, b netip.Addr) {
	buf := make([]byte, 128)
	for {
		select {
		case <-g.done:
			unix.Close(g.fd)
			return
		default:
		}
		n, _, err := unix.Recvfrom(g.fd, buf, 0)
		if err == nil && between(buf[:n], a, b) {
			g.count.Add(1)
		}
	}
}

// stop ends counting, and gives the count.
func (g *golden) stop() int64 {
	close(g.done)
	return g.count.Load()
}

// between reports whether a frame is IPv4 from one of two addresses to the other.
func between(frame []byte, a, b netip.Addr) bool {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return false
	}
	from, to := netip.AddrFrom4([4]byte(frame[26:30])), netip.AddrFrom4([4]byte(frame[30:34]))
	return from == a && to == b || from == b && to == a
}
