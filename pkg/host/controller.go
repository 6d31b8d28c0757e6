package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Controller is the node's ovn-controller, which may be told to leave the flows of
// br-int as they are: while a database that it reads is being filled again it
// would take away what is merely not there yet.
type Controller struct {
	runDir string // of OVN's daemons
	hold   *Fence // while it is held
}

// NewController gives the ovn-controller whose run files are in runDir (/run/ovn).
func NewController(runDir string) *Controller { return &Controller{runDir: runDir} }

// holdFile is locked while an ovn-controller may not start.
func holdFile(runDir string) string { return filepath.Join(runDir, "ovn-controller.hold") }

// Hold keeps ovn-controller from changing flows until Release: one that runs is
// paused, one that is to start waits (AwaitRelease). The hold ends with this
// process, but an ovn-controller that was paused stays so.
func (c *Controller) Hold(ctx context.Context) error {
	if c.hold == nil {
		f, err := TakeFence(ctx, holdFile(c.runDir), time.Second)
		if err != nil {
			return err
		}
		c.hold = f
	}
	_, err := c.call(ctx, "debug/pause")
	return err
}

// Release lets ovn-controller work again, also one that an earlier agent has held.
func (c *Controller) Release(ctx context.Context) error {
	var err error
	if c.Paused(ctx) {
		_, err = c.call(ctx, "debug/resume")
	}
	if err == nil && c.hold != nil {
		err = c.hold.Close()
		c.hold = nil
	}
	return err
}

// Paused reports whether ovn-controller runs and has been told to wait.
func (c *Controller) Paused(ctx context.Context) bool {
	status, err := c.call(ctx, "debug/status")
	return err == nil && strings.TrimSpace(status) == "paused"
}

// call asks ovn-controller; one that does not run has nothing to be told.
func (c *Controller) call(ctx context.Context, method string, args ...string) (string, error) {
	socket, err := controlSocket(c.runDir, "ovn-controller")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	out, err := unixctl(ctx, socket, method, args...)
	if gone(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("ovn-controller: %w", err)
	}
	return out, nil
}

// AwaitRelease returns when no agent holds ovn-controller, which is to be started.
func AwaitRelease(ctx context.Context, runDir string) error {
	f, err := TakeFence(ctx, holdFile(runDir), 365*24*time.Hour)
	if err != nil {
		return err
	}
	return f.Close()
}

// gone reports that nobody listens on a socket whose file, or pidfile, was left.
func gone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED)
}
