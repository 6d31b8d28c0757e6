package packets

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// chunk is how much a stream's sender hands to its kernel at once, in bytes.
const chunk = 128 << 10

// Stream sends over one TCP connection for as long as it is told and returns how
// many bytes a second arrived, from the first that was read to the last.
func Stream(from, to Place, length time.Duration) (float64, error) {
	var listener *net.TCPListener
	err := to.Do(func() error {
		var err error
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("stream: listen on %s: %w", to.Name, err)
	}
	defer listener.Close()
	until := time.Now().Add(length)
	_ = listener.SetDeadline(until)
	sent := make(chan error, 1)
	go func() { sent <- pour(from, listener.Addr().String(), until) }()
	rate, err := drain(listener, until.Add(5*time.Second))
	if err := errors.Join(<-sent, err); err != nil {
		return 0, fmt.Errorf("stream from %s to %s: %w", from.Name, to.Name, err)
	}
	return rate, nil
}

// pour writes to an address until the time is over.
func pour(from Place, to string, until time.Time) error {
	var conn net.Conn
	err := from.Do(func() error {
		var err error
		conn, err = (&net.Dialer{Deadline: until}).Dial("tcp", to)
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	// A write that the path does not take in time is the sender's end, no error.
	_ = conn.SetWriteDeadline(until)
	for data := payload(chunk); time.Now().Before(until); {
		var timeout net.Error
		if _, err := conn.Write(data); errors.As(err, &timeout) && timeout.Timeout() {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// drain counts one connection's bytes until the sender closes it.
func drain(l net.Listener, patience time.Time) (float64, error) {
	conn, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(patience) // what is still in buffers arrives after the sender's end
	var total int
	var first, last time.Time
	for buf := make([]byte, chunk); ; {
		n, err := conn.Read(buf)
		if n > 0 {
			if last = time.Now(); first.IsZero() {
				first = last
			} else {
				total += n
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if total == 0 {
		return 0, errors.New("nothing arrived")
	}
	return float64(total) / last.Sub(first).Seconds(), nil
}
