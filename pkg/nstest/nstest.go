// Package nstest runs a test binary in namespaces of its own, so that what its tests do
// to links, mounts and processes goes with them. Inputs are the namespaces and what is
// to run in them; the output is the exit status.
//
//	go test ──> binary ──> the same binary, in new namespaces ──> TestMain's inside
//
// Invariants: the machine's own namespaces are not touched; when the first process ends,
// however it ends, the second does, too.
package nstest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// mark is in the environment of the process inside, and of those that it starts: the
// directory.
const mark = "PORTOLAN_TEST_APART"

// Dir is a directory that goes with the namespaces; "" outside of them.
func Dir() string { return os.Getenv(mark) }

// Main is a TestMain's: it starts the binary again with the same arguments in namespaces
// (syscall.CLONE_…) and gives its exit status; there it calls inside. With a mount
// namespace, no mount inside is seen outside. With a PID namespace the process inside is
// PID 1, which takes all others with it. Without one it gets a SIGTERM when the first ends,
// to stop what it has started.
func Main(namespaces uintptr, inside func() int) int {
	if Dir() == "" {
		return outside(namespaces)
	}
	if namespaces&syscall.CLONE_NEWNS != 0 {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, "mount namespace:", err)
			return 1
		}
	}
	return inside()
}

func outside(namespaces uintptr) int {
	dir, err := os.MkdirTemp("", "ptt-") // sockets are in it: a short path
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	end := syscall.SIGTERM
	if namespaces&syscall.CLONE_NEWPID != 0 {
		end = syscall.SIGKILL
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c := exec.CommandContext(ctx, "/proc/self/exe", os.Args[1:]...)
	c.Cancel = func() error { return c.Process.Signal(end) }
	c.Env = append(os.Environ(), mark+"="+dir)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Pdeathsig: end}
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
