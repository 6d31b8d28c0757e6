// Package proc runs the programs the lab is made of (ip, ctr, kubectl, go …) and
// turns a failure into an error that holds what the program said.
package proc

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Cmd is one program call.
type Cmd struct {
	Argv  []string
	Dir   string
	Env   []string // added to the caller's
	Stdin io.Reader
	// Log, if set, gets everything the program prints, as it prints it.
	Log io.Writer
}

// Run runs a program to its end.
func Run(ctx context.Context, argv ...string) error {
	_, err := Cmd{Argv: argv}.Output(ctx)
	return err
}

// Output gives what a program printed on stdout.
func Output(ctx context.Context, argv ...string) (string, error) {
	return Cmd{Argv: argv}.Output(ctx)
}

// Output runs c. A cancelled context ends the program and its children: first
// SIGTERM, after five seconds SIGKILL.
func (c Cmd) Output(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	cmd.Dir, cmd.Stdin = c.Dir, c.Stdin
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, &said), &said
	if c.Log != nil {
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, &said, c.Log), io.MultiWriter(&said, c.Log)
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return stdout.String(), fmt.Errorf("%s: %w%s", strings.Join(brief(c.Argv), " "), err, tail(said.String()))
	}
	return stdout.String(), nil
}

// brief keeps an error readable when a command line is long.
func brief(argv []string) []string {
	if len(argv) > 8 {
		return append(append([]string{}, argv[:8]...), "…")
	}
	return argv
}

// tail is the end of what a program said, where its reason usually stands.
func tail(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	lines := strings.Split(s, "\n")
	if len(lines) > 15 {
		lines = lines[len(lines)-15:]
	}
	return "\n  " + strings.Join(lines, "\n  ")
}
