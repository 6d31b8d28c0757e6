// Command bench times CNI's ADD and DEL side by side: Portolan's, the reference
// plugins ptp and host-local, and the least that OVN itself takes.
//
//	bench [-samples 200] [-lead 200ms] [-shim bin/portolan-cni]
//
//	bench ── builds the reference plugins, starts itself in private namespaces
//	   └─ bench inside ── OVS, OVN, a zone's driver and CNI server ──> contenders in turn ──> table
//
// Each sample has a new network namespace. The contenders take turns, so that
// whatever else the machine does falls on all of them alike, and each has the same
// pause before it, which is as long as the kubelet takes from a pod's binding to
// its ADD. Only the ADD and the DEL are timed.
//
// All of it is in network, mount and process namespaces of its own, which end with
// the program, however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Set in the private namespaces: the run directory, and where the plugins are.
const (
	envInside  = "PTB_INSIDE"
	envPlugins = "PTB_PLUGINS"
)

// options are the program's flags.
type options struct {
	samples int
	lead    time.Duration // between a pod's binding and its ADD
	shim    string
}

func main() {
	var o options
	flag.IntVar(&o.samples, "samples", 200, "ADDs and DELs of each contender")
	flag.DurationVar(&o.lead, "lead", 200*time.Millisecond, "how long before its ADD a pod is bound, and the pause before any")
	flag.StringVar(&o.shim, "shim", "bin/portolan-cni", "the plugin that is executed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, o))
}

// run gives the exit code: 0, 1 for a failure, 130 when interrupted.
func run(ctx context.Context, o options) int {
	var err error
	if dir := os.Getenv(envInside); dir != "" {
		err = inside(ctx, o, dir)
	} else {
		err = outside(ctx, o)
	}
	switch {
	case ctx.Err() != nil:
		return 130
	case err != nil && !errors.As(err, new(*exec.ExitError)): // the program inside has said why
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil {
		return 1
	}
	return 0
}

// outside prepares what needs the world, then starts the program again inside.
func outside(ctx context.Context, o options) error {
	if os.Getuid() != 0 || o.samples < 1 {
		return errors.New("it needs root, for its namespaces, and at least one sample")
	}
	shim, err := filepath.Abs(o.shim)
	if err == nil {
		_, err = os.Stat(shim)
	}
	if err != nil {
		return fmt.Errorf("%w; make build builds it", err)
	}
	plugins, err := referencePlugins(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "ptb-") // sockets are in it: a short path
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c := exec.CommandContext(ctx, "/proc/self/exe", "-samples", fmt.Sprint(o.samples), "-lead", o.lead.String(), "-shim", shim)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	c.Env = append(os.Environ(), envInside+"="+dir, envPlugins+"="+plugins)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL,
	}
	return c.Run()
}

// inside is process 1 of the private namespaces: what it starts ends with it.
func inside(ctx context.Context, o options, dir string) error {
	if err := private(); err != nil {
		return err
	}
	z, err := startZone(ctx, dir)
	if err != nil {
		return err
	}
	n, err := startNode(ctx, z)
	if err != nil {
		return errors.Join(err, z.tails())
	}
	defer n.close()
	floor, err := newFloor(ctx, z)
	if err != nil {
		return err
	}
	all := []contender{
		&portolan{node: n, shim: o.shim, prepared: true}, &portolan{node: n, shim: o.shim},
		newPTP(os.Getenv(envPlugins), dir), floor,
	}
	times, err := race(ctx, o, all)
	if err != nil {
		return errors.Join(err, z.tails())
	}
	report(os.Stdout, o, all, times)
	n.stages.print(os.Stdout)
	return nil
}

// private makes mounts of our own of what would reach the machine's.
func private() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	return errors.Join(syscall.Mount("ptb", netnsDir, "tmpfs", 0, ""), syscall.Mount("proc", "/proc", "proc", 0, ""))
}
