package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Fence keeps a second agent off a node: two would undo each other's routes, and
// give one address twice. It is a lock on a file, which the kernel takes back when
// its holder ends, however that happens.
type Fence struct{ file *os.File }

// fencePace is how often a fence that is held is tried again.
const fencePace = 50 * time.Millisecond

// TakeFence takes the fence at a path, which all agents of a node share. One that
// is held is waited for, no longer than patience: an agent that is being replaced
// may still be ending. The error then names the holder.
func TakeFence(ctx context.Context, path string, patience time.Duration) (*Fence, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("fence: %w", err)
	}
	tick := time.NewTicker(fencePace)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return (&Fence{f}).sign()
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("fence %s: %w", path, err), f.Close())
		}
		if time.Now().After(deadline) {
			holder, _ := os.ReadFile(path)
			return nil, errors.Join(fmt.Errorf("another agent runs on this node: %s holds %s; end it first (if it is of an earlier installation, "+
				"delete its DaemonSet), or two would undo each other's work", strings.TrimSpace(string(holder)), path), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-tick.C:
		}
	}
}

// sign writes who holds the fence, for the error of the next one.
func (f *Fence) sign() (*Fence, error) {
	text := fmt.Sprintf("%s, process %d, since %s\n", strings.Join(os.Args[:1], " "), os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	err := f.file.Truncate(0)
	if err == nil {
		_, err = f.file.WriteAt([]byte(text), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fence: %w", err), f.Close())
	}
	return f, nil
}

// Close gives the fence back. Its file stays: removing it would let two agents hold
// a lock each, on two files of one name.
func (f *Fence) Close() error { return f.file.Close() }
