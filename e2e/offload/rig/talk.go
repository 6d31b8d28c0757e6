package rig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// Stream is a TCP connection to a pod, on which one byte goes to and fro.
type Stream struct {
	stop chan struct{}
	done chan error
	end  func()
}

// Talk opens a connection from a place to a port of a pod, and keeps it busy until
// Close.
func Talk(from Place, to *Pod, port uint16) (*Stream, error) {
	return TalkBy(from, netip.AddrPortFrom(to.Addr.Addr(), port), port, to)
}

// TalkBy is Talk to an address behind which is a port of one of these pods.
func TalkBy(from Place, address netip.AddrPort, port uint16, to ...*Pod) (*Stream, error) {
	var listeners []net.Listener
	end := func() {
		for _, l := range listeners {
			l.Close()
		}
	}
	for _, p := range to {
		err := p.In(func() error {
			l, err := net.Listen("tcp", netip.AddrPortFrom(p.Addr.Addr(), port).String())
			if err == nil {
				listeners = append(listeners, l)
				go echo(l)
			}
			return err
		})
		if err != nil {
			end()
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return dial(from, address, end)
}

// echo serves connections until the listener is closed.
func echo(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func dial(from Place, to netip.AddrPort, end func()) (*Stream, error) {
	var conn net.Conn
	err := from.In(func() (err error) {
		conn, err = net.DialTimeout("tcp", to.String(), Patience)
		return err
	})
	if err != nil {
		end()
		return nil, err
	}
	s := &Stream{stop: make(chan struct{}), done: make(chan error, 1), end: func() { conn.Close(); end() }}
	go func() { s.done <- s.chat(conn) }() // ends with Close, or the connection
	return s, nil
}

// chat sends a byte and reads it back, again and again.
func (s *Stream) chat(c net.Conn) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	buf := []byte{0}
	for {
		select {
		case <-s.stop:
			return nil
		case <-tick.C:
		}
		if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
			return err
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return err
		}
	}
}

// Close ends the connection. It is an error if a byte had not come back in time.
func (s *Stream) Close() error {
	close(s.stop)
	err := <-s.done
	s.end()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("a byte did not come back within %s: %w", Patience, err)
	}
	return err
}
