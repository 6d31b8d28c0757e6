package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// The patience of Keep: a program that a signal ends is started again at once, but
// one that lives less than short for the tries'th time in a row is the kubelet's to
// hold back.
const (
	short = time.Second
	tries = 5
)

// Keep runs the program as a child and starts it again at once when a signal ends
// it. It is for the programs without which a node's packets stop: a kubelet takes
// a second to see that a container has ended, and longer each time.
//
// Signals that ask this process to end are passed on; it then ends as the program
// does. A program that ends by itself, with whatever code, ends Keep with an error.
func (d Daemon) Keep(ctx context.Context, env []string) error {
	// The kernel kills the child with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	asked := make(chan os.Signal, 4)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(asked)
	// The caller's context ends by the same signals: what the program needs first
	// must not be cut short by them, and the program ends it itself.
	ctx = context.WithoutCancel(ctx)
	for quick := 0; quick < tries; {
		began := time.Now()
		killed, err := d.once(ctx, env, asked)
		if !killed {
			return err
		}
		slog.Error("killed; starting it again", "daemon", d.Name, "err", err, "lived", time.Since(began).Round(time.Millisecond))
		if quick++; time.Since(began) >= short {
			quick = 0
		}
	}
	return fmt.Errorf("%s: killed %d times within %v of its start", d.Name, tries, short)
}

// once runs the program to its end; killed says that a signal ended it that
// nobody had asked us to pass on.
func (d Daemon) once(ctx context.Context, env []string, asked <-chan os.Signal) (killed bool, err error) {
	if err := d.prepare(ctx); err != nil {
		return false, err
	}
	path, err := exec.LookPath(d.Argv[0])
	if err != nil {
		return false, fmt.Errorf("%s: %w", d.Name, err)
	}
	child := exec.Command(path, d.Argv[1:]...)
	child.Args, child.Env, child.Stdout, child.Stderr = d.Argv, env, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		return false, fmt.Errorf("%s: %w", d.Name, err)
	}
	beside, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if d.Beside != nil {
		wg.Go(func() { d.Beside(beside) })
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }() // ends with the child
	ending := false
	for {
		select {
		case s := <-asked:
			ending = true
			_ = child.Process.Signal(s)
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) && !ending {
				status, ok := exit.Sys().(syscall.WaitStatus)
				killed = ok && status.Signaled()
			}
			if ending {
				return false, nil
			}
			return killed, fmt.Errorf("%s ended: %w", d.Name, errors.Join(err, errEnded))
		}
	}
}

// errEnded makes an end without an error one: a daemon has no reason to end.
var errEnded = errors.New("nobody asked it to")
