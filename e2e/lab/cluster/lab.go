// Package cluster is the lab as a whole: it brings a cluster up, down, and a
// node of it down and back; it is where the order of things stands.
//
// One directory of state on a real file system (Dirs.State) says which lab was
// asked for and how far it came. A lab that is not marked as up is a wreck of an
// interrupted run, and the next up or down clears it away whole.
package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Dirs are the places of a lab on this machine.
type Dirs struct {
	State string // on a real file system: nodes' disks, logs, keys
	Run   string // mount points
}

// Lab is one lab: the one that package site names. Its addresses are those of every lab.
type Lab struct {
	Dirs    Dirs
	Builder build.Builder
	Out     io.Writer // progress lines
	Keep    bool      // a lab whose Up failed stays, to be looked at
	began   time.Time
}

// record is what is remembered about a lab between commands.
type record struct {
	Options  plan.Options   `json:"options"`
	Products build.Products `json:"products"`
	Up       bool           `json:"up"` // false: on its way, or interrupted
}

// New gives the lab of this machine.
func New(d Dirs, b build.Builder, out io.Writer) *Lab {
	return &Lab{Dirs: d, Builder: b, Out: out, began: time.Now()}
}

// say prints a progress line with the time since the command began.
func (l *Lab) say(format string, args ...any) {
	fmt.Fprintf(l.Out, "%6.1fs %s\n", time.Since(l.began).Seconds(), fmt.Sprintf(format, args...))
}

func (l *Lab) recordPath() string        { return filepath.Join(l.Dirs.State, "lab.json") }
func (l *Lab) pki() string               { return filepath.Join(l.Dirs.State, "pki") }
func (l *Lab) state(n plan.Node) string  { return filepath.Join(l.Dirs.State, "nodes", n.Name) }
func (l *Lab) runDir(n plan.Node) string { return filepath.Join(l.Dirs.Run, n.Name) }

// Kubeconfig is the administrator's kubeconfig, good in the lab's namespaces.
func (l *Lab) Kubeconfig() string { return filepath.Join(l.pki(), "admin.conf") }

// read gives the record; none is found as fs.ErrNotExist.
func (l *Lab) read() (record, error) {
	var r record
	b, err := os.ReadFile(l.recordPath())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s: %w", l.recordPath(), err)
	}
	return r, nil
}

func (l *Lab) write(r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(l.Dirs.State, 0o755); err != nil {
		return err
	}
	half := l.recordPath() + ".half"
	if err := os.WriteFile(half, b, 0o644); err != nil {
		return err
	}
	return os.Rename(half, l.recordPath())
}

// Plan is the plan of the lab that is up.
func (l *Lab) Plan() (plan.Plan, error) {
	r, err := l.current()
	if err != nil {
		return plan.Plan{}, err
	}
	return plan.Of(r.Options), nil
}

// current is the record of a lab that is up, or an error that says what to do.
func (l *Lab) current() (record, error) {
	r, err := l.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, errors.New("no lab is up on this machine: start one with `lab up`")
	case err != nil:
		return r, err
	case !r.Up:
		return r, errors.New("the lab is not up (starting, or its start was interrupted): run `lab up` again")
	}
	return r, nil
}

// lock lets one command at a time change the lab. It waits for another to end.
func (l *Lab) lock() (func(), error) {
	if err := os.MkdirAll(l.Dirs.State, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(l.Dirs.State, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		l.say("another lab command is at work; waiting for it")
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err != nil {
			return nil, fmt.Errorf("lock of the lab: %w", err)
		}
	}
	return func() { f.Close() }, nil
}

// Down ends whatever of a lab there is, also the rest of an interrupted one.
// The logs stay until the next up.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return l.down(ctx)
}

func (l *Lab) down(ctx context.Context) error {
	// The record goes first: what is half gone must not look up.
	err := os.Remove(l.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	errs := []error{err, node.CrashAll(ctx), wire.Down(ctx), os.RemoveAll(l.Dirs.Run), os.RemoveAll(l.pki())}
	states, err := filepath.Glob(filepath.Join(l.Dirs.State, "nodes", "*", "fs"))
	errs = append(errs, err)
	for _, s := range states {
		errs = append(errs, os.RemoveAll(s))
	}
	return errors.Join(errs...)
}
