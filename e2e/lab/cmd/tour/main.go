// Command tour shows a lab that is up, with Portolan in it: each command as one
// would type it with what it prints, and each claim with the packets that decide it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/e2e/lab/tour"
)

func main() {
	root := flag.String("root", ".", "the checkout: its bin/lab and e2e/demo are used")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := tour.Run(ctx, tour.Config{Root: *root, Out: os.Stdout, Colour: colour()})
	if err != nil {
		fmt.Fprintln(os.Stderr, "tour:", err)
		os.Exit(1)
	}
}

// colour is for terminals whose owner has not declined it (no-color.org).
func colour() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return err == nil && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
