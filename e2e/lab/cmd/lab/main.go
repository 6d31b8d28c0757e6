// Command lab runs a real Kubernetes cluster on this machine, for Portolan's
// tests and for whoever wants to look. See e2e/lab/README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/portolan-cni/portolan/e2e/lab/cli"
	"github.com/portolan-cni/portolan/e2e/lab/site"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := site.Check(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(2)
	}
	c := cli.Config{
		Repo:  os.Getenv("PORTOLAN_REPO"),
		Cache: or(os.Getenv("PORTOLAN_CACHE"), "/var/cache/portolan-lab"),
		State: filepath.Join("/var/lib", site.Base()+"-lab"),
		Run:   filepath.Join("/run", site.Base()+"-lab"),
	}
	if err := cli.Command(c).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
