package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netns"
)

// pod is a network namespace with a function of the NIC.
type pod struct {
	name, device, netns string
	addr                netip.Addr
	representor         string
}

// in runs fn in the pod's network namespace: sockets that it opens belong there.
func (p pod) in(fn func() error) error {
	done := make(chan error, 1)
	go func() { // ends with fn; its thread ends with it, for it stays locked
		runtime.LockOSThread()
		ns, err := netns.GetFromPath(p.netns)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// streamPort is that of both streams.
const streamPort = 5001

// tcp sends from one pod to another for a time.
type tcp struct {
	conn   net.Conn
	served net.Listener
	first  time.Duration // from the first SYN to the connection
}

func dialTCP(from, to pod) (*tcp, error) {
	t := &tcp{}
	at := netip.AddrPortFrom(to.addr, streamPort).String()
	err := to.in(func() (err error) { t.served, err = net.Listen("tcp", at); return err })
	if err != nil {
		return nil, err
	}
	go sink(t.served)
	err = from.in(func() (err error) {
		begun := time.Now()
		t.conn, err = net.DialTimeout("tcp", at, patience)
		t.first = time.Since(begun)
		return err
	})
	if err != nil {
		t.served.Close()
		return nil, fmt.Errorf("TCP from %s to %s: %w", from.name, to.name, err)
	}
	return t, nil
}

// sink reads what comes, until the listener is closed.
func sink(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { // ends with the connection
			defer c.Close()
			_, _ = io.Copy(io.Discard, c)
		}()
	}
}

// send sends for a time, and gives how many bytes were taken.
func (t *tcp) send(d time.Duration) (int64, error) {
	buf := make([]byte, 64<<10)
	var sent int64
	for end := time.Now().Add(d); time.Now().Before(end); {
		if err := t.conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return sent, err
		}
		n, err := t.conn.Write(buf)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

func (t *tcp) close() { _ = errors.Join(t.conn.Close(), t.served.Close()) }

// udp sends datagrams that come back, for a time, and gives how many went and came.
func udp(from, to pod, d time.Duration) (sent, back int, err error) {
	at := netip.AddrPortFrom(to.addr, streamPort)
	var server net.PacketConn
	if err := to.in(func() (err error) { server, err = net.ListenPacket("udp", at.String()); return err }); err != nil {
		return 0, 0, err
	}
	defer server.Close()
	go reflect(server)
	var conn net.Conn
	if err := from.in(func() (err error) { conn, err = net.Dial("udp", at.String()); return err }); err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	buf := make([]byte, 512)
	for end := time.Now().Add(d); time.Now().Before(end); {
		if _, err := conn.Write(buf); err != nil {
			return sent, back, err
		}
		sent++
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return sent, back, err
		}
		if _, err := conn.Read(buf); err == nil {
			back++
		}
	}
	return sent, back, nil
}

// reflect sends datagrams back, until the socket is closed.
func reflect(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}
