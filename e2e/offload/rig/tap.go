package rig

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// geneve is the tunnels' UDP port (RFC 8926).
const geneve = 6081

// Tap notes which packets in Geneve tunnels pass a device, both ways.
type Tap struct {
	name  string // in what Ways says
	fd    int
	ended chan struct{}

	mu   sync.Mutex // guards seen
	seen map[tunneled]int
}

// tunneled is a packet of IPv4 in a tunnel over IPv4.
type tunneled struct{ from, to, source, destination netip.Addr }

// Tap begins to note what passes a device, until the test ends. Ways calls it by a name.
func (h *Host) Tap(device, name string) *Tap {
	h.t().Helper()
	p := &Tap{name: name, ended: make(chan struct{}), seen: map[tunneled]int{}}
	err := h.In(func() (err error) {
		if p.fd, err = packetSocket(device); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptPacketMreq(p.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, membership(device)),
			unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}))
	})
	if err != nil {
		h.t().Fatalf("%s: tap on %s: %v", h.Name, device, err)
	}
	stop := make(chan struct{})
	go p.read(stop)
	h.t().Cleanup(func() { close(stop); <-p.ended })
	return p
}

func (p *Tap) read(stop chan struct{}) {
	defer close(p.ended)
	defer unix.Close(p.fd)
	buf := make([]byte, 2048)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, _, err := unix.Recvfrom(p.fd, buf, 0)
		if err != nil {
			continue // the timeout, or the device is down
		}
		if t, ok := parseTunneled(buf[:n]); ok {
			p.mu.Lock()
			p.seen[t]++
			p.mu.Unlock()
		}
	}
}

// Forget forgets what has passed.
func (p *Tap) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.seen)
}

// Ways are the tunnels that packets between two addresses have passed the device in since
// Forget, each once, as "NAME FROM>TO SOURCE>DESTINATION", sorted.
func (p *Tap) Ways(a, b netip.Addr) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for t := range p.seen {
		if t.source == a && t.destination == b || t.source == b && t.destination == a {
			out = append(out, fmt.Sprintf("%s %s>%s %s>%s", p.name, t.from, t.to, t.source, t.destination))
		}
	}
	slices.Sort(out)
	return out
}

// parseTunneled reads a frame: Ethernet, IPv4, UDP, Geneve, Ethernet, IPv4.
func parseTunneled(frame []byte) (t tunneled, ok bool) {
	outer, rest, ok := parseIPv4(frame)
	if !ok || outer.protocol != unix.IPPROTO_UDP || len(rest) < 16 || binary.BigEndian.Uint16(rest[2:]) != geneve {
		return t, false
	}
	header := 8 + 4*int(rest[8]&0x3f)
	if len(rest) < 8+header {
		return t, false
	}
	inner, _, ok := parseIPv4(rest[8+header:])
	return tunneled{outer.source, outer.destination, inner.source, inner.destination}, ok
}

type packet struct {
	protocol            byte
	source, destination netip.Addr
}

// parseIPv4 reads an Ethernet frame of IPv4, and gives what is behind the header.
func parseIPv4(frame []byte) (p packet, rest []byte, ok bool) {
	if len(frame) < 34 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return p, nil, false
	}
	ip := frame[14:]
	length := 4 * int(ip[0]&0xf)
	if ip[0]>>4 != 4 || length < 20 || len(ip) < length {
		return p, nil, false
	}
	return packet{ip[9], netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))}, ip[length:], true
}
