package packets

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Answer is what a server saw of a question.
type Answer struct {
	Source netip.Addr `json:"source"`
	Size   int        `json:"size"`
	Sum    [32]byte   `json:"sum"`
}

// Server answers in a place until it is closed.
type Server struct {
	Place Place
	Port  int

	tcp net.Listener
	udp []*net.UDPConn
	wg  sync.WaitGroup
}

// Serve listens for TCP and UDP on one port, of every address of the place.
func Serve(p Place, port int) (*Server, error) {
	s := &Server{Place: p, Port: port}
	if err := p.Do(s.listen); err != nil {
		return nil, fmt.Errorf("serve on %s:%d: %w", p.Name, port, errors.Join(err, s.closeSockets()))
	}
	s.start(s.serveTCP)
	for _, conn := range s.udp {
		s.start(func() { serveUDP(conn) })
	}
	return s, nil
}

func (s *Server) listen() error {
	var err error
	if s.tcp, err = net.Listen("tcp", fmt.Sprintf(":%d", s.Port)); err != nil {
		return err
	}
	// One socket an address: an answer must leave with the address that was asked.
	for _, a := range s.Place.all() {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.AsSlice(), Port: s.Port})
		if err != nil {
			return err
		}
		s.udp = append(s.udp, conn)
		if err := conn.SetReadBuffer(4 << 20); err != nil {
			return err
		}
	}
	return nil
}

// Close stops answering.
func (s *Server) Close() {
	_ = s.closeSockets()
	s.wg.Wait()
}

func (s *Server) closeSockets() error {
	var errs []error
	if s.tcp != nil {
		errs = append(errs, s.tcp.Close())
	}
	for _, conn := range s.udp {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) start(fn func()) {
	s.wg.Add(1)
	go func() { defer s.wg.Done(); fn() }()
}

func (s *Server) serveTCP() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.start(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			var size uint32
			if binary.Read(conn, binary.BigEndian, &size) != nil || size > 64<<20 {
				return
			}
			data := make([]byte, size)
			if _, err := io.ReadFull(conn, data); err != nil {
				return
			}
			_ = json.NewEncoder(conn).Encode(answer(conn.RemoteAddr().(*net.TCPAddr).AddrPort(), data))
			_, _ = conn.Write(data)
		})
	}
}

// serveUDP answers a datagram with one of the same size: fragments both ways.
func serveUDP(conn *net.UDPConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		head, err := json.Marshal(answer(from, buf[:n]))
		if err != nil {
			continue
		}
		out := make([]byte, max(n, len(head)))
		copy(out, head)
		_, _ = conn.WriteToUDPAddrPort(out, from)
	}
}

func answer(from netip.AddrPort, data []byte) Answer {
	return Answer{Source: from.Addr().Unmap(), Size: len(data), Sum: sha256.Sum256(data)}
}
