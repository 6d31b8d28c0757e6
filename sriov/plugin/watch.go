package plugin

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watchDir rings whenever something comes into a directory or leaves it, until ctx
// ends. A directory that is not there, or goes, is looked for.
func watchDir(ctx context.Context, dir string, bell chan<- struct{}) {
	for {
		watchOnce(ctx, dir, bell)
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookAgain):
		}
	}
}

func watchOnce(ctx context.Context, dir string, bell chan<- struct{}) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return // the caller looks again anyway, only less often
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM|unix.IN_DELETE_SELF|unix.IN_ONLYDIR); err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	buffer := make([]byte, 4096)
	for {
		n, err := f.Read(buffer)
		if err != nil {
			return
		}
		select {
		case bell <- struct{}{}:
		default:
		}
		if gone(buffer[:n]) {
			return
		}
	}
}

// gone reports whether the events say that the directory itself was removed.
func gone(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := uint32(events[4]) | uint32(events[5])<<8 | uint32(events[6])<<16 | uint32(events[7])<<24
		size := uint32(events[12]) | uint32(events[13])<<8 | uint32(events[14])<<16 | uint32(events[15])<<24
		if mask&(unix.IN_DELETE_SELF|unix.IN_IGNORED) != 0 {
			return true
		}
		events = events[min(len(events), unix.SizeofInotifyEvent+int(size)):]
	}
	return false
}
