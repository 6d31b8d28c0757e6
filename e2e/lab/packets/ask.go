package packets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrSpoiled means that what arrived is not what was sent.
var ErrSpoiled = errors.New("content changed on the way")

// payload is size bytes that are different at every offset.
func payload(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i*7 + i>>8)
	}
	return data
}

// TCP sends size bytes and reads them back; the answer says what the server saw.
func TCP(from Place, to netip.AddrPort, size int, timeout time.Duration) (Answer, error) {
	var a Answer
	err := from.Do(func() error {
		conn, err := (&net.Dialer{Timeout: timeout}).DialContext(context.Background(), "tcp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(timeout))
		data := payload(size)
		sent := make(chan error, 1)
		go func() {
			err := binary.Write(conn, binary.BigEndian, uint32(size))
			if err == nil {
				_, err = conn.Write(data)
			}
			sent <- err
		}()
		dec := json.NewDecoder(conn)
		if err := dec.Decode(&a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		back, err := io.ReadAll(io.MultiReader(dec.Buffered(), conn))
		if err := errors.Join(err, <-sent); err != nil {
			return err
		}
		if !bytes.HasSuffix(back, data) || a.Sum != sha256.Sum256(data) {
			return ErrSpoiled
		}
		return nil
	})
	return a, err
}

// UDP sends one datagram of size bytes and waits for one of the same size. It
// sends again, at most three times: the first packets of a flow may be lost while
// neighbours are resolved. fragment allows it to be cut on the way.
func UDP(from Place, to netip.AddrPort, size int, fragment bool, timeout time.Duration) (Answer, error) {
	var a Answer
	err := from.Do(func() error {
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return mayFragment(c, FamilyOf(to.Addr()), fragment) }}
		conn, err := d.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		data, buf := payload(size), make([]byte, 1<<16)
		for try := range 3 {
			if _, err := conn.Write(data); err != nil {
				return err
			}
			_ = conn.SetReadDeadline(time.Now().Add(timeout / 3))
			n, err := conn.Read(buf)
			if err != nil && try < 2 {
				continue
			}
			if err != nil {
				return err
			}
			if err := json.NewDecoder(bytes.NewReader(buf[:n])).Decode(&a); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			if a.Sum != sha256.Sum256(data) || n < size {
				return ErrSpoiled
			}
			return nil
		}
		return nil
	})
	return a, err
}

// mayFragment allows or forbids that what a socket sends is cut, here or on the way.
func mayFragment(c syscall.RawConn, f Family, fragment bool) error {
	mode := unix.IP_PMTUDISC_DO
	if fragment {
		mode = unix.IP_PMTUDISC_DONT
	}
	var err error
	ctl := c.Control(func(fd uintptr) { err = discover(int(fd), f, mode, !fragment) })
	return errors.Join(ctl, err)
}

// discover sets how a socket learns the path's MTU (IP_PMTUDISC_*, whose numbers
// are IPv6's too). whole forbids that this host cuts a packet, which IPv6 has an
// option of its own for (RFC 3542 §11.2).
func discover(fd int, f Family, mode int, whole bool) error {
	if f == IPv4 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
	}
	flag := 0
	if whole {
		flag = 1
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, mode),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, flag))
}
