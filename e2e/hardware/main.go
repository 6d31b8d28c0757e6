package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config is what the run is told.
type config struct {
	nic     string // network device or PCI address
	force   bool   // also a NIC that is in use
	root    string // directory tree that has OVN and OVS
	bin     string // directory of Portolan's programs
	seconds time.Duration
	out     io.Writer
}

func main() {
	c := config{out: os.Stdout}
	flag.StringVar(&c.nic, "nic", "", "network `device` or PCI address of the physical function")
	flag.BoolVar(&c.force, "force", false, "also if the NIC has the default route, is in a bond or bridge, or has functions in use")
	flag.StringVar(&c.root, "ovn-root", "/var/cache/portolan-lab/ovn-root", "`directory` tree with OVN and OVS (make ovn-root)")
	flag.StringVar(&c.bin, "bin", "bin", "`directory` of portolan, portolan-node and portolan-cni (make build)")
	flag.DurationVar(&c.seconds, "for", 5*time.Second, "`time` that each stream is measured")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(exit(run(ctx, c)))
}

// errTable is of a run whose table has rows that are not as they should be.
var errTable = errors.New("not all is in hardware")

// exit gives the exit code: 0, 1 where a row failed, 2 where there is no table.
func exit(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errTable):
		return 1
	}
	fmt.Fprintln(os.Stderr, "hardware:", err)
	return 2
}

// run is the whole of it.
func run(ctx context.Context, c config) (err error) {
	m, err := openMachine()
	if err != nil {
		return err
	}
	defer m.close()
	pf, err := m.check(c)
	if err != nil {
		return err
	}
	before, err := m.state(pf)
	if err != nil {
		return err
	}
	t := &table{}
	fmt.Fprintf(c.out, "NIC %s (%s), driver %s, mode %s, %d of %d VFs\n", pf.Netdev, pf.ID, pf.Driver, pf.Mode, pf.VFs, pf.MaxVFs)
	measured := m.measure(ctx, c, pf, t)
	// Whatever has happened, and also after an interrupt: as it was.
	restored := m.restore(pf, before, t)
	printed := t.print(c.out)
	switch {
	case measured != nil || restored != nil || printed != nil:
		return errors.Join(measured, restored, printed)
	case t.failed():
		return errTable
	}
	return nil
}
