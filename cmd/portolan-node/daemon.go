package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// daemon is one of OVS's or OVN's programs as a container runs it: in the
// foreground, logging to the container's log, with the run files where their
// tools look by default.
type daemon struct {
	name     string
	short    string
	dirs     []string
	database database // zero: has none
	argv     []string
	bridge   string // that must be in the Open_vSwitch database first; "": none
}

// database is a file that ovsdb-server serves.
type database struct {
	file   string
	schema string
}

// The places that all pods of a node share (hostPath).
const (
	ovsRun = "/run/openvswitch"
	ovnRun = "/run/ovn"
	ovsVar = "/var/lib/openvswitch"
	ovnVar = "/var/lib/portolan/ovn"
)

// daemons lists what `portolan-node daemon` can become.
func daemons() []daemon {
	var (
		conf = database{ovsVar + "/conf.db", "/usr/share/openvswitch/vswitch.ovsschema"}
		nb   = database{ovnVar + "/ovnnb_db.db", "/usr/share/ovn/ovn-nb.ovsschema"}
		sb   = database{ovnVar + "/ovnsb_db.db", "/usr/share/ovn/ovn-sb.ovsschema"}
		db   = "unix:" + ovsRun + "/db.sock"
	)
	list := []daemon{
		{name: "ovsdb-server-ovs", short: "Serve Open_vSwitch's database", dirs: []string{ovsRun, ovsVar}, database: conf, argv: []string{
			"ovsdb-server", conf.file, "--remote=punix:" + ovsRun + "/db.sock", "--pidfile=" + ovsRun + "/ovsdb-server.pid",
		}},
		{name: "vswitchd", short: "Run Open vSwitch", dirs: []string{ovsRun}, argv: []string{
			"ovs-vswitchd", db, "--no-chdir", "--pidfile=" + ovsRun + "/ovs-vswitchd.pid",
		}},
		{name: "ovsdb-server-nb", short: "Serve OVN's northbound database", dirs: []string{ovnRun, ovnVar}, database: nb, argv: []string{
			"ovsdb-server", nb.file, "--remote=punix:" + ovnRun + "/ovnnb_db.sock", "--pidfile=" + ovnRun + "/ovnnb_db.pid",
			"--unixctl=" + ovnRun + "/ovnnb_db.ctl",
		}},
		{name: "ovsdb-server-sb", short: "Serve OVN's southbound database", dirs: []string{ovnRun, ovnVar}, database: sb, argv: []string{
			"ovsdb-server", sb.file, "--remote=punix:" + ovnRun + "/ovnsb_db.sock", "--pidfile=" + ovnRun + "/ovnsb_db.pid",
			"--unixctl=" + ovnRun + "/ovnsb_db.ctl",
		}},
		{name: "northd", short: "Run ovn-northd", dirs: []string{ovnRun}, argv: []string{
			"ovn-northd", "--ovnnb-db=unix:" + ovnRun + "/ovnnb_db.sock", "--ovnsb-db=unix:" + ovnRun + "/ovnsb_db.sock",
			"--no-chdir", "--pidfile=" + ovnRun + "/ovn-northd.pid",
		}},
		{name: "ovn-controller", short: "Run ovn-controller", dirs: []string{ovnRun}, argv: []string{
			"ovn-controller", db, "--no-chdir", "--pidfile=" + ovnRun + "/ovn-controller.pid",
		}, bridge: intent.IntegrationBridge},
	}
	for i := range list {
		list[i].argv = append(list[i].argv, "-vconsole:info", "-vsyslog:off", "-vfile:off")
	}
	return list
}

// daemonCommand is `portolan-node daemon NAME`: it prepares directories and the
// database file, then becomes the daemon, so that signals and exit codes are the
// daemon's own.
func daemonCommand() *cobra.Command {
	root := &cobra.Command{Use: "daemon", Short: "Become one of OVS's or OVN's daemons", Args: cobra.NoArgs}
	for _, d := range daemons() {
		root.AddCommand(&cobra.Command{
			Use: d.name, Short: d.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if d.bridge != "" {
					if err := waitBridge(cmd.Context(), d.bridge); err != nil {
						return fmt.Errorf("%s: %w", d.name, err)
					}
				}
				return d.become()
			},
		})
	}
	return root
}

// become replaces this process; it returns only when it fails.
func (d daemon) become() error {
	for _, dir := range d.dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	if d.database.file != "" {
		if err := d.database.prepare(ovsdbTool); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	path, err := exec.LookPath(d.argv[0])
	if err != nil {
		return fmt.Errorf("%s: %w", d.name, err)
	}
	return fmt.Errorf("%s: run %s: %w", d.name, path, syscall.Exec(path, d.argv, os.Environ()))
}

// prepare creates the file, or brings it to this release's schema. ovsdb-tool
// does both beside the file and renames, so a crash leaves the old one.
func (db database) prepare(tool func(args ...string) (string, error)) error {
	switch _, err := os.Stat(db.file); {
	case errors.Is(err, fs.ErrNotExist):
		return db.create(tool)
	case err != nil:
		return err
	}
	needed, err := tool("needs-conversion", db.file, db.schema)
	if err != nil || strings.TrimSpace(needed) == "no" {
		return err
	}
	_, err = tool("convert", db.file, db.schema)
	return err
}

// create makes the file under another name first: a file that ovsdb-tool had not
// finished would never be served and never be created again.
func (db database) create(tool func(args ...string) (string, error)) error {
	half := filepath.Join(filepath.Dir(db.file), ".half-"+filepath.Base(db.file))
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if _, err := tool("create", half, db.schema); err != nil {
		return err
	}
	return os.Rename(half, db.file)
}

// ovsdbTool runs ovsdb-tool, the only program that creates and converts database
// files, and returns what it prints.
func ovsdbTool(args ...string) (string, error) {
	out, err := exec.Command("ovsdb-tool", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ovsdb-tool %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// waitBridge returns once the Open_vSwitch database has a bridge. ovn-controller
// would make br-int itself, without our tags and with the kernel's datapath, and
// the agent's could never be written beside it.
func waitBridge(ctx context.Context, bridge string) error {
	ovs, err := host.OpenOVS(ctx, "unix:"+ovsRun+"/db.sock")
	if err != nil {
		return err
	}
	defer ovs.Close()
	net := time.NewTicker(time.Second) // under the doorbell, which may miss a change
	defer net.Stop()
	for {
		_, found, err := ovs.Bridge(ctx, bridge)
		if err != nil || found {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ovs.Changed():
		case <-net.C:
		}
	}
}
