package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// zone is one chassis' OVS and OVN: userspace datapath, all sockets in dir.
type zone struct {
	dir string
}

func (z *zone) socket(db string) string { return "unix:" + filepath.Join(z.dir, db+".sock") }

// startZone starts everything but ovn-controller, which needs the settings that
// Portolan writes.
func startZone(ctx context.Context, dir string) (*zone, error) {
	z := &zone{dir: dir}
	for db, schema := range map[string]string{"ovs": "vswitch", "nb": "ovn-nb", "sb": "ovn-sb"} {
		file := filepath.Join(dir, db+".db")
		if err := z.tool(ctx, "ovsdb-tool", "create", file, ovsdbtest.Schema(schema)); err != nil {
			return nil, err
		}
		if err := z.daemon("ovsdb-server", db, file, "--remote=p"+z.socket(db)); err != nil {
			return nil, err
		}
	}
	if err := z.vsctl(ctx, "--no-wait", "init", "--", "add-br", gatewayBridge, "--", "set", "bridge", gatewayBridge, "datapath_type=netdev"); err != nil {
		return nil, err
	}
	if err := z.daemon("ovs-vswitchd", "vswitchd", z.socket("ovs"), "--disable-system"); err != nil {
		return nil, err
	}
	if err := z.daemon("ovn-northd", "northd", "--ovnnb-db="+z.socket("nb"), "--ovnsb-db="+z.socket("sb")); err != nil {
		return nil, err
	}
	// ovn-controller 25.03.0 ends by SIGSEGV when it comes before northd has made
	// the southbound database's SB_Global row.
	return z, z.nbctl(ctx, "--wait=sb", "sync")
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

// daemon starts a program in the foreground of a process that ends with the
// process namespace.
func (z *zone) daemon(name, as string, args ...string) error {
	c := ovsdbtest.Command(name, append(args, "--log-file="+filepath.Join(z.dir, as+".log"), "-vconsole:off",
		"--unixctl="+filepath.Join(z.dir, as+".ctl"))...)
	c.Env = append(os.Environ(), "OVS_RUNDIR="+z.dir, "OVS_LOGDIR="+z.dir, "OVN_RUNDIR="+z.dir, "OVN_LOGDIR="+z.dir)
	if err := c.Start(); err != nil {
		return err
	}
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
