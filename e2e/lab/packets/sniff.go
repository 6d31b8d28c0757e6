package packets

import (
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
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		tv := unix.Timeval{Usec: 50_000} // how late a Close may be noticed
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
	buf := make([]byte, 1<<16)
	for {
		select {
		case <-stop:
			return
		default:
		}
		n, from, err := unix.Recvfrom(s.fd, buf, 0)
		if err != nil {
			continue
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if take(buf[:n]) {
			s.mu.Lock()
			s.frames = append(s.frames, append([]byte(nil), buf[:n]...))
			s.mu.Unlock()
		}
	}
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
