// Command guest builds and runs virtual machines with real Linux kernels, in
// which SR-IOV and hardware offload are proven; docs/testing.md says how. In such
// a machine it is PID 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/portolan-cni/portolan/e2e/lab/guest/cli"
	"github.com/portolan-cni/portolan/e2e/lab/guest/inside"
	"github.com/portolan-cni/portolan/e2e/lab/site"
)

func main() {
	if inside.Is() {
		inside.Main()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := site.Check(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(2)
	}
	c := cli.Config{
		Repo: os.Getenv("PORTOLAN_REPO"), Cache: os.Getenv("PORTOLAN_CACHE"),
		Log: filepath.Join("/var/lib", site.Base()+"-lab", "log"), Out: os.Stdout, Err: os.Stderr,
	}
	if c.Cache == "" {
		c.Cache = "/var/cache/portolan-lab"
	}
	err := c.Command().ExecuteContext(ctx)
	if exit := (cli.Exit{}); err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, "guest:", err)
	}
	if ctx.Err() != nil {
		os.Exit(130)
	}
	os.Exit(cli.Code(err))
}
