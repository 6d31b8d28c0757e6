// Package daemon turns a process into one of OVS's or OVN's programs: it makes
// what the program needs first (directories, its database file), and then is that
// program, so that signals and exit codes are the program's own and a container
// needs no shell.
//
//	Daemon{Dirs, Prepare, Argv} ─┬─ Become ──> ovsdb-server, ovn-northd, ovn-controller …
//	                             └─ Keep ────> the datapath's programs, as children
package daemon

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// The places that all pods of a node share (hostPath).
const (
	OVSRun = "/run/openvswitch"
	OVNRun = "/run/ovn"
	OVSVar = "/var/lib/openvswitch"
)

// OVSSocket is where a node's Open_vSwitch database is.
const OVSSocket = "unix:" + OVSRun + "/db.sock"

// Daemon is a program as a container runs it: in the foreground, logging to the
// container's log, with the run files where its tools look by default.
type Daemon struct {
	Name  string // of the subcommand
	Short string // for help
	Dirs  []string
	// Prepare is done before the program starts; nil: nothing.
	Prepare func(context.Context) error
	// Beside runs while the program does, until its context ends; nil: nothing does.
	// Only a program that is kept (Keep) has it.
	Beside func(context.Context)
	Kept   bool // Run keeps the program, and does not become it
	Argv   []string
}

// Run becomes the program, or keeps it; it returns when that fails or ends.
func (d Daemon) Run(ctx context.Context, env []string) error {
	if d.Kept {
		return d.Keep(ctx, env)
	}
	return d.Become(ctx, env)
}

// Become replaces this process, with an environment; it returns only when it fails.
func (d Daemon) Become(ctx context.Context, env []string) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	path, err := exec.LookPath(d.Argv[0])
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return fmt.Errorf("%s: run %s: %w", d.Name, path, syscall.Exec(path, d.Argv, env))
}

// prepare makes what the program needs first.
func (d Daemon) prepare(ctx context.Context) error {
	for _, dir := range d.Dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	if d.Prepare != nil {
		if err := d.Prepare(ctx); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

// Logged adds the options by which a daemon logs to its container's log alone.
func Logged(argv ...string) []string {
	return append(argv, "-vconsole:info", "-vsyslog:off", "-vfile:off")
}

// tool runs a program that ends by itself, and returns what it prints.
func tool(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
