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
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return mayFragment(c, fragment) }}
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

func mayFragment(c syscall.RawConn, fragment bool) error {
	mode := unix.IP_PMTUDISC_DO
	if fragment {
		mode = unix.IP_PMTUDISC_DONT
	}
	var err error
	ctl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, mode)
	})
	return errors.Join(ctl, err)
}
