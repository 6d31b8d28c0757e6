package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// zone is one chassis' OVS and OVN: userspace datapath, all sockets in dir.
type zone struct {
	dir  string
	pids map[string]int // of its daemons, by what they are started as
}

func (z *zone) socket(db string) string { return "unix:" + filepath.Join(z.dir, db+".sock") }

// startZone starts everything but ovn-controller, which needs the settings that
// Portolan writes.
func startZone(ctx context.Context, dir string) (*zone, error) {
	z := &zone{dir: dir}
	if err := z.database(ctx, "ovs", "vswitch"); err != nil {
		return nil, err
	}
	if err := z.vsctl(ctx, "--no-wait", "init", "--", "add-br", gatewayBridge, "--", "set", "bridge", gatewayBridge, "datapath_type=netdev"); err != nil {
		return nil, err
	}
	if err := z.daemon("ovs-vswitchd", "vswitchd", z.socket("ovs"), "--disable-system"); err != nil {
		return nil, err
	}
	return z, z.startNorth(ctx)
}

// startNorth starts the zone's two databases and northd.
func (z *zone) startNorth(ctx context.Context) error {
	if err := errors.Join(z.database(ctx, "nb", "ovn-nb"), z.database(ctx, "sb", "ovn-sb")); err != nil {
		return err
	}
	if err := z.daemon("ovn-northd", "northd", "--ovnnb-db="+z.socket("nb"), "--ovnsb-db="+z.socket("sb")); err != nil {
		return err
	}
	// ovn-controller 25.03.0 ends by SIGSEGV when it comes before northd has made
	// the southbound database's SB_Global row.
	return z.nbctl(ctx, "--wait=sb", "sync")
}

// database makes an empty database and starts its server. It returns when that
// listens: ovn-nbctl does not wait for it.
func (z *zone) database(ctx context.Context, name, schema string) error {
	file := filepath.Join(z.dir, name+".db")
	if err := z.tool(ctx, "ovsdb-tool", "create", file, ovsdbtest.Schema(schema)); err != nil {
		return err
	}
	if err := z.daemon("ovsdb-server", name, file, "--remote=p"+z.socket(name)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("unix", socketOf(z.socket(name)))
		if err == nil {
			return conn.Close()
		}
		if pause(ctx, 10*time.Millisecond) != nil {
			return errors.Join(err, z.tails())
		}
	}
}

func (z *zone) startController() error {
	return z.daemon("ovn-controller", "controller", z.socket("ovs"))
}

func (z *zone) vsctl(ctx context.Context, args ...string) error {
	return z.tool(ctx, "ovs-vsctl", append([]string{"--db=" + z.socket("ovs"), "--retry", "--timeout=20"}, args...)...)
}

func (z *zone) nbctl(ctx context.Context, args ...string) error {
	return z.tool(ctx, "ovn-nbctl", append([]string{"--db=" + z.socket("nb"), "--timeout=20"}, args...)...)
}

func (z *zone) tool(ctx context.Context, name string, args ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := ovsdbtest.Command(name, args...)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s%w", name, args, err, out, z.tails())
	}
	return nil
}

// output runs a tool and gives what it prints.
func (z *zone) output(name string, args ...string) (string, error) {
	out, err := ovsdbtest.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return string(out), nil
}

// feed runs a tool on a text.
func (z *zone) feed(ctx context.Context, text, name string, args ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := ovsdbtest.Command(name, args...)
	c.Stdin = strings.NewReader(text)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

// daemon starts a program in the foreground of a process that ends with the
// process namespace.
func (z *zone) daemon(name, as string, args ...string) error {
	c := ovsdbtest.Command(name, append(args, "--log-file="+filepath.Join(z.dir, as+".log"), "-vconsole:off",
		"--unixctl="+filepath.Join(z.dir, as+".ctl"))...)
	c.Env = append(os.Environ(), "OVS_RUNDIR="+z.dir, "OVS_LOGDIR="+z.dir, "OVN_RUNDIR="+z.dir, "OVN_LOGDIR="+z.dir)
	if err := c.Start(); err != nil {
		return err
	}
	if z.pids == nil {
		z.pids = map[string]int{}
	}
	z.pids[as] = c.Process.Pid
	go func() { _ = c.Wait() }() // it runs until it is killed
	return nil
}

// tails is the end of each daemon's log, for the report of a failure.
func (z *zone) tails() error {
	logs, _ := filepath.Glob(filepath.Join(z.dir, "*.log"))
	var all []error
	for _, l := range logs {
		if b, err := os.ReadFile(l); err == nil {
			all = append(all, fmt.Errorf("%s: %s", filepath.Base(l), b[max(0, len(b)-1000):]))
		}
	}
	return errors.Join(all...)
}
