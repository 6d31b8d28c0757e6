package sriov

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Uevent is what the kernel tells of one of its objects (Documentation/core-api/kobject.rst;
// lib/kobject_uevent.c has the form).
type Uevent struct {
	Action    string // "add", "remove", "bind", "unbind", "change", "move" ...
	Path      string // below sysfs: "/devices/pci0000:00/0000:00:02.0/0000:01:10.0"
	Subsystem string // "pci", "auxiliary", "net" ...
	// Values are its other words, such as PCI_CLASS, DRIVER and INTERFACE.
	Values map[string]string
}

// ParseUevent reads a message of the kernel's; false: it is none, as what udev sends on.
func ParseUevent(message []byte) (Uevent, bool) {
	head, rest, _ := bytes.Cut(message, []byte{0})
	action, path, ok := strings.Cut(string(head), "@")
	if !ok || action == "" || !strings.HasPrefix(path, "/") {
		return Uevent{}, false
	}
	u := Uevent{Action: action, Path: path, Values: map[string]string{}}
	for word := range bytes.SplitSeq(rest, []byte{0}) {
		if key, value, ok := strings.Cut(string(word), "="); ok && key != "" {
			u.Values[key] = value
		}
	}
	u.Subsystem = u.Values["SUBSYSTEM"]
	return u, true
}

// networkClass begins PCI_CLASS of a network controller, which the kernel writes in hex
// without zeros before it: 20000 is Ethernet.
const networkClass = "2"

// OfFunction reports whether it is of a NIC or its functions: one has come or gone, or has
// been given to another driver.
func (u Uevent) OfFunction() bool {
	switch u.Action {
	case "add", "remove", "bind", "unbind":
	default:
		return false
	}
	class := u.Values["PCI_CLASS"]
	return u.Subsystem == "pci" && len(class) == 5 && strings.HasPrefix(class, networkClass) || u.Subsystem == "auxiliary"
}

// ueventBuffer is more than the kernel writes into one message (UEVENT_BUFFER_SIZE and the head).
const ueventBuffer = 8192

// ueventQueue is how many bytes of messages may wait: a NIC that makes its functions
// sends some for each of hundreds.
const ueventQueue = 1 << 20

// kernelsGroup is that of the kernel's own messages; 2 is udev's.
const kernelsGroup = 1

// Uevents calls f of each message of the kernel's until ctx ends, from one goroutine, and
// with nothing in it when some were lost. Of network devices those of the namespace of
// whoever calls are told, of all else everything.
func Uevents(ctx context.Context, f func(Uevent)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("listening to uevents: %w", err)
	}
	// Else fewer fit, and f is told.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, ueventQueue)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelsGroup}); err != nil {
		return errors.Join(fmt.Errorf("listening to uevents: %w", err), unix.Close(fd))
	}
	socket := os.NewFile(uintptr(fd), "uevents")
	conn, err := socket.SyscallConn()
	if err != nil {
		return errors.Join(fmt.Errorf("listening to uevents: %w", err), socket.Close())
	}
	context.AfterFunc(ctx, func() { socket.Close() })
	go func() { // ends when the socket is closed
		buffer := make([]byte, ueventBuffer)
		for {
			var n int
			var from unix.Sockaddr
			var failed error
			err := conn.Read(func(fd uintptr) bool {
				n, from, failed = unix.Recvfrom(int(fd), buffer, 0)
				return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
			})
			switch sender, ok := from.(*unix.SockaddrNetlink); {
			case err != nil:
				return
			case errors.Is(failed, unix.ENOBUFS):
				f(Uevent{})
			case failed != nil:
				socket.Close()
				return
			case ok && sender.Pid == 0: // by nobody but the kernel
				if u, ok := ParseUevent(buffer[:n]); ok {
					f(u)
				}
			}
		}
	}()
	return nil
}
