package packets

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Sniffer counts the frames that one interface receives and a filter takes.
type Sniffer struct {
	fd     int
	wg     sync.WaitGroup
	mu     sync.Mutex // guards frames
	frames [][]byte
	stop   func()
}

// Sniff begins to look at the frames that arrive on a place's interface.
func Sniff(p Place, iface string, take func(frame []byte) bool) (*Sniffer, error) {
	s := &Sniffer{}
	err := p.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		// Without a protocol until it is bound: else it hears all interfaces meanwhile.
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		tv := unix.Timeval{Usec: 50_000} // how late a Close may be noticed
		// The kernel takes a frame's VLAN tag off and tells it beside.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index})
	})
	if err != nil {
		return nil, fmt.Errorf("sniff %s on %s: %w", iface, p.Name, err)
	}
	stop := make(chan struct{})
	s.wg.Add(1)
	go func() { defer s.wg.Done(); s.read(stop, take) }()
	s.stop = func() { close(stop); s.wg.Wait(); _ = unix.Close(s.fd) }
	return s, nil
}

func (s *Sniffer) read(stop <-chan struct{}, take func([]byte) bool) {
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, used, _, from, err := unix.Recvmsg(s.fd, buf, oob, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if frame := retagged(buf[:n], oob[:used]); take(frame) {
			s.mu.Lock()
			s.frames = append(s.frames, bytes.Clone(frame))
			s.mu.Unlock()
		}
	}
}

// tagHere says in auxdata that the frame had a tag (TP_STATUS_VLAN_VALID).
const tagHere = 1 << 4

// retagged is a frame as it was on the wire: with the tag that the kernel has put into
// the auxdata (struct tpacket_auxdata).
func retagged(frame, oob []byte) []byte {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(frame) < 12 {
		return frame
	}
	for _, c := range list {
		if c.Header.Level != unix.SOL_PACKET || c.Header.Type != unix.PACKET_AUXDATA || len(c.Data) < 20 ||
			binary.NativeEndian.Uint32(c.Data)&tagHere == 0 {
			continue
		}
		out := binary.BigEndian.AppendUint16(bytes.Clone(frame[:12]), unix.ETH_P_8021Q)
		return append(binary.BigEndian.AppendUint16(out, binary.NativeEndian.Uint16(c.Data[16:])), frame[12:]...)
	}
	return frame
}

// VLAN is the VLAN that a frame's tag names; 0: it has none.
func VLAN(frame []byte) int {
	if len(frame) < 16 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_8021Q {
		return 0
	}
	return int(binary.BigEndian.Uint16(frame[14:]) & 0xfff)
}

// Count is how many frames the filter has taken so far.
func (s *Sniffer) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames)
}

// Close stops looking and returns what was taken.
func (s *Sniffer) Close() [][]byte {
	s.stop()
	return s.frames
}

// Send puts a frame on a place's interface as it is.
func Send(p Place, iface string, frame []byte, times int) error {
	return p.Do(func() error {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range times {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				return fmt.Errorf("send on %s of %s: %w", iface, p.Name, err)
			}
		}
		return nil
	})
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
