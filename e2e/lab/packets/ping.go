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
	TTL    int // of the reply
	Source netip.Addr
	RTT    time.Duration
	Copies int // replies to this one request; more than 1 is a fault
	// TooBigMTU is the MTU of an ICMP "fragmentation needed" that came instead.
	TooBigMTU int
}

// ErrNoEcho means that no reply came in time.
var ErrNoEcho = errors.New("no echo reply")

// Ping sends one IPv4 echo request of size payload bytes and waits for the reply,
// then a moment for copies of it. It sends up to three requests with one id.
func Ping(from Place, to netip.Addr, size int, dontFragment bool, timeout time.Duration) (Echo, error) {
	var e Echo
	err := from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		mode := unix.IP_PMTUDISC_DONT
		if dontFragment {
			mode = unix.IP_PMTUDISC_PROBE // DF, whatever the route's MTU is believed to be
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode); err != nil {
			return err
		}
		id := uint16(time.Now().UnixNano()) ^ uint16(os.Getpid())
		for seq := uint16(1); seq <= 3; seq++ {
			sent := time.Now()
			if err := unix.Sendto(fd, request(id, seq, size), 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			if e, err = await(fd, id, seq, sent, timeout/3); err == nil || e.TooBigMTU != 0 {
				return err
			}
		}
		return err
	})
	return e, err
}

// request is an ICMP echo request (RFC 792).
func request(id, seq uint16, size int) []byte {
	b := make([]byte, 8, 8+size)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], seq)
	b = append(b, payload(size)...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// await reads until the reply has come and no copy of it follows for 50 ms.
func await(fd int, id, seq uint16, sent time.Time, timeout time.Duration) (Echo, error) {
	var e Echo
	until := sent.Add(timeout)
	buf := make([]byte, 1<<16)
	for {
		left := time.Until(until)
		if left <= 0 {
			break
		}
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return e, err
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil || n < 28 {
			continue
		}
		head := int(buf[0]&15) * 4
		icmp := buf[head:n]
		if mtu := tooBig(icmp, id); mtu != 0 {
			e.TooBigMTU = mtu
			return e, fmt.Errorf("packet too big: path MTU is %d", mtu)
		}
		if icmp[0] != 0 || binary.BigEndian.Uint16(icmp[4:]) != id || binary.BigEndian.Uint16(icmp[6:]) != seq {
			continue
		}
		if e.Copies++; e.Copies == 1 {
			src, _ := netip.AddrFromSlice(buf[12:16])
			e.TTL, e.Source, e.RTT = int(buf[8]), src, time.Since(sent)
			until = time.Now().Add(50 * time.Millisecond)
		}
	}
	if e.Copies == 0 {
		return e, ErrNoEcho
	}
	return e, nil
}

// tooBig reads "fragmentation needed" about a request of ours (RFC 1191).
func tooBig(icmp []byte, id uint16) int {
	if len(icmp) < 8+28 || icmp[0] != 3 || icmp[1] != 4 {
		return 0
	}
	inner := icmp[8:]
	head := int(inner[0]&15) * 4
	if len(inner) < head+6 || binary.BigEndian.Uint16(inner[head+4:]) != id {
		return 0
	}
	return int(binary.BigEndian.Uint16(icmp[6:]))
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
