package packets

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Echo is the answer to a ping, as the asker's kernel received it.
type Echo struct {
	TTL    int // of the reply: IPv6's hop limit
	Source netip.Addr
	RTT    time.Duration
	Copies int // replies to this one request; more than 1 is a fault
	// TooBigMTU is the MTU of an ICMP "fragmentation needed" or ICMPv6 "packet too
	// big" that came instead.
	TooBigMTU int
}

// ErrNoEcho means that no reply came in time.
var ErrNoEcho = errors.New("no echo reply")

// Ping sends one echo request of size payload bytes and waits for the reply,
// then a moment for copies of it. It sends up to three requests with one id.
// whole forbids that a request is cut, here or on the way.
func Ping(from Place, to netip.Addr, size int, whole bool, timeout time.Duration) (Echo, error) {
	var e Echo
	err := from.Do(func() error {
		p, err := openPinger(to, whole)
		if err != nil {
			return err
		}
		defer unix.Close(p.fd)
		for seq := uint16(1); seq <= 3; seq++ {
			sent := time.Now()
			if err := p.send(seq, size); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			if e, err = p.await(seq, sent, timeout/3); err == nil || e.TooBigMTU != 0 {
				return err
			}
		}
		return err
	})
	return e, err
}

// pinger is a raw ICMP socket.
type pinger struct {
	fd  int
	to  netip.Addr
	id  uint16
	buf []byte
}

func openPinger(to netip.Addr, whole bool) (*pinger, error) {
	domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() {
		domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, err
	}
	mode := unix.IP_PMTUDISC_DONT
	if whole {
		mode = unix.IP_PMTUDISC_PROBE // whole, whatever the route's MTU is believed to be
	}
	err = discover(fd, FamilyOf(to), mode, whole)
	if to.Is6() {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &pinger{fd: fd, to: to, id: uint16(time.Now().UnixNano()) ^ uint16(os.Getpid()), buf: make([]byte, 1<<16)}, nil
}

// send sends an echo request (RFC 792, RFC 4443 §4.1).
func (p *pinger) send(seq uint16, size int) error {
	b := make([]byte, 8, 8+size)
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], seq)
	if p.to.Is6() {
		b[0] = 128 // the kernel adds the checksum
		return unix.Sendto(p.fd, append(b, payload(size)...), 0, &unix.SockaddrInet6{Addr: p.to.As16()})
	}
	b[0] = 8
	b = append(b, payload(size)...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return unix.Sendto(p.fd, b, 0, &unix.SockaddrInet4{Addr: p.to.As4()})
}

// message is one ICMP message as it came.
type message struct {
	icmp   []byte
	ttl    int
	source netip.Addr
}

// receive reads one message; false when none came, or one too short to be one.
func (p *pinger) receive() (message, bool) {
	var m message
	oob := make([]byte, 64)
	n, used, _, from, err := unix.Recvmsg(p.fd, p.buf, oob, 0)
	if err != nil {
		return m, false
	}
	if p.to.Is6() { // the kernel gives the message without its header
		sa, ok := from.(*unix.SockaddrInet6)
		if !ok || n < 8 {
			return m, false
		}
		m.icmp, m.source, m.ttl = p.buf[:n], netip.AddrFrom16(sa.Addr), hopLimit(oob[:used])
		return m, true
	}
	if n < 28 {
		return m, false
	}
	m.icmp, m.ttl = p.buf[int(p.buf[0]&15)*4:n], int(p.buf[8])
	m.source, _ = netip.AddrFromSlice(p.buf[12:16])
	return m, true
}

// hopLimit finds the hop limit in control messages; 0 when it is not there.
func hopLimit(oob []byte) int {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for _, c := range list {
		if c.Header.Level == unix.IPPROTO_IPV6 && c.Header.Type == unix.IPV6_HOPLIMIT && len(c.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(c.Data))
		}
	}
	return 0
}

// await reads until the reply has come and no copy of it follows for 50 ms.
func (p *pinger) await(seq uint16, sent time.Time, timeout time.Duration) (Echo, error) {
	var e Echo
	reply := byte(0)
	if p.to.Is6() {
		reply = 129
	}
	until := sent.Add(timeout)
	for {
		left := time.Until(until)
		if left <= 0 {
			break
		}
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return e, err
		}
		m, ok := p.receive()
		if !ok {
			continue
		}
		if mtu := p.tooBig(m.icmp); mtu != 0 {
			e.TooBigMTU = mtu
			return e, fmt.Errorf("packet too big: path MTU is %d", mtu)
		}
		if m.icmp[0] != reply || binary.BigEndian.Uint16(m.icmp[4:]) != p.id || binary.BigEndian.Uint16(m.icmp[6:]) != seq {
			continue
		}
		if e.Copies++; e.Copies == 1 {
			e.TTL, e.Source, e.RTT = m.ttl, m.source, time.Since(sent)
			until = time.Now().Add(50 * time.Millisecond)
		}
	}
	if e.Copies == 0 {
		return e, ErrNoEcho
	}
	return e, nil
}

// tooBig reads "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443
// §3.2) about a request of ours.
func (p *pinger) tooBig(icmp []byte) int {
	if len(icmp) < 8+28 {
		return 0
	}
	inner := icmp[8:]
	head, mtu := 40, int(binary.BigEndian.Uint32(icmp[4:]))
	if p.to.Is4() {
		head, mtu = int(inner[0]&15)*4, int(binary.BigEndian.Uint16(icmp[6:]))
	}
	isTooBig := p.to.Is4() && icmp[0] == 3 && icmp[1] == 4 || p.to.Is6() && icmp[0] == 2
	if !isTooBig || len(inner) < head+6 || binary.BigEndian.Uint16(inner[head+4:]) != p.id {
		return 0
	}
	return mtu
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
