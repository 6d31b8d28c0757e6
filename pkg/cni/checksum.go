package cni

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// txOff turns transmit checksum offload of a device off: a veth otherwise passes
// packets whose checksum nobody has computed, and vswitchd forwards them so. It
// works in the calling thread's network namespace.
//
// It is the old ioctl that sets all of them (ETHTOOL_STXCSUM, linux/ethtool.h) and
// not a library: those look features up by name, over a buffer of 1 MiB, which
// took a millisecond for each end.
func txOff(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{command: unix.ETHTOOL_STXCSUM}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); e != 0 {
		return fmt.Errorf("turning off checksum offload of %s: %w", device, e)
	}
	return nil
}
