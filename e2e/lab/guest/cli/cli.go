// Package cli is the command line of guest: it reads flags into values, and asks
// package guest.
package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/e2e/lab/build"
	"github.com/portolan-cni/portolan/e2e/lab/cache"
	"github.com/portolan-cni/portolan/e2e/lab/guest"
)

// Config is where things are, from the environment.
type Config struct {
	Repo  string // checkout; empty: found from this binary or the working directory
	Cache string
	Log   string // directory for the logs of builds and of guests that failed
	Out   io.Writer
	Err   io.Writer
}

// Exit is the error of a command that ran in a guest and ended with another code than 0.
type Exit struct{ Code int }

func (e Exit) Error() string { return fmt.Sprintf("the command ended with %d", e.Code) }

// Exit codes of guest itself, beside those of commands.
const (
	codeTimeout = 124
	codeGuest   = 125 // there was no command's exit code
)

// Code is the exit code for what Execute gave.
func Code(err error) int {
	var exit Exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.Code
	case errors.Is(err, guest.ErrTimeout):
		return codeTimeout
	}
	return codeGuest
}

func (c Config) builder() (guest.Builder, error) {
	repo, err := build.FindRepo(c.Repo)
	if err != nil {
		return guest.Builder{}, err
	}
	return guest.Builder{Builder: build.Builder{Repo: repo, Cache: cache.Store{Dir: c.Cache}, Log: c.Log, Out: c.Err}}, nil
}

// Command is the root command.
func (c Config) Command() *cobra.Command {
	root := &cobra.Command{Use: "guest", Short: "virtual machines with real Linux kernels, for SR-IOV and offload", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(
		c.simple("build", "make QEMU, Debian's kernel and the image, if the cache has none", func(cmd *cobra.Command, b guest.Builder) error {
			_, err := b.Make(cmd.Context(), guest.Debian)
			return err
		}),
		c.simple("update", "ask the mirror for the newest versions, of which the next guest is made", func(cmd *cobra.Command, b guest.Builder) error {
			return b.Refresh(cmd.Context())
		}),
		c.kernel(), c.run())
	return root
}

func (c Config) simple(name, short string, do func(*cobra.Command, guest.Builder) error) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		b, err := c.builder()
		if err != nil {
			return err
		}
		return do(cmd, b)
	}}
}

func (c Config) kernel() *cobra.Command {
	var cached bool
	cmd := c.simple("kernel", "build the own kernel, if the cache has none, and print its directory", func(cmd *cobra.Command, b guest.Builder) error {
		if cached {
			_, err := b.Make(cmd.Context(), guest.Own)
			return err
		}
		dir, err := b.BuildKernel(cmd.Context())
		if err == nil {
			fmt.Fprintln(c.Out, dir)
		}
		return err
	})
	cmd.Flags().BoolVar(&cached, "cached", false, "build no kernel: fail if the cache has none")
	return cmd
}

func (c Config) run() *cobra.Command {
	var kernel string
	r := guest.Run{Stdout: c.Out, Stderr: c.Err}
	cmd := &cobra.Command{Use: "run -- COMMAND…", Short: "boot a guest, run a command in it as root, and end with its exit code", Args: cobra.MinimumNArgs(1)}
	f := cmd.Flags()
	f.StringVar(&kernel, "kernel", string(guest.Debian), "debian, or own (with netdevsim's switchdev and conntrack in TC)")
	f.StringArrayVar(&r.Shares, "share", nil, "a directory that the guest sees at the same path, and may write; several times")
	f.StringArrayVar(&r.Env, "env", nil, "NAME=VALUE for the command; several times")
	f.StringVar(&r.Dir, "dir", "", "working directory in the guest")
	f.DurationVar(&r.Timeout, "timeout", 30*time.Minute, "of all, booting included")
	f.IntVar(&r.Machine.CPUs, "cpus", 2, "number of processors")
	f.StringVar(&r.Machine.Memory, "memory", "2G", "memory")
	f.BoolVar(&r.Machine.NICs, "nics", true, "two igb NICs with seven virtual functions each, on one wire")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		b, err := c.builder()
		if err != nil {
			return err
		}
		parts, err := b.Make(cmd.Context(), guest.Kernel(kernel))
		if err != nil {
			return err
		}
		r.Argv, r.Log = args, filepath.Join(c.Log, "guest-"+kernel+".serial.log")
		code, times, err := parts.Run(cmd.Context(), r)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.Err, "guest: Linux %s booted in %.1f s; %s ended after %.1f s with %d\n", times.Kernel, times.Booted.Seconds(), args[0], times.Ended.Seconds(), code)
		if code != 0 {
			return Exit{code}
		}
		return nil
	}
	return cmd
}
