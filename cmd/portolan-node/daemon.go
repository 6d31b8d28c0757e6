package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/daemon"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// ovnVar is where the databases of a node that is a zone are kept.
const ovnVar = "/var/lib/portolan/ovn"

// daemons lists what `portolan-node daemon` can become. files hold the certificate
// that ovn-controller shows to the database of a global zone.
func daemons(files zone.Files) []daemon.Daemon {
	var (
		conf = daemon.File{Path: daemon.OVSVar + "/conf.db", Schema: daemon.OVSSchema}
		nb   = daemon.File{Path: ovnVar + "/ovnnb_db.db", Schema: daemon.NBSchema}
		sb   = daemon.File{Path: ovnVar + "/ovnsb_db.db", Schema: daemon.SBSchema}
	)
	return []daemon.Daemon{
		{
			// vswitchd moves no packet of the userspace datapath without its database.
			Name: "ovsdb-server-ovs", Short: "Serve Open_vSwitch's database", Dirs: []string{daemon.OVSRun, daemon.OVSVar}, Prepare: conf.Prepare, Kept: true,
			Argv: daemon.Logged("ovsdb-server", conf.Path, "--remote=punix:"+daemon.OVSRun+"/db.sock", "--pidfile="+daemon.OVSRun+"/ovsdb-server.pid"),
		},
		{
			Name: "vswitchd", Short: "Run Open vSwitch", Dirs: []string{daemon.OVSRun}, Kept: true, Prepare: holdPackets, Beside: releasePackets,
			Argv: daemon.Logged("ovs-vswitchd", daemon.OVSSocket, "--no-chdir", "--pidfile="+daemon.OVSRun+"/ovs-vswitchd.pid"),
		},
		{
			Name: "ovsdb-server-nb", Short: "Serve OVN's northbound database", Dirs: []string{daemon.OVNRun, ovnVar}, Prepare: nb.Prepare,
			Argv: daemon.Logged("ovsdb-server", nb.Path, "--remote=punix:"+daemon.OVNRun+"/ovnnb_db.sock",
				"--pidfile="+daemon.OVNRun+"/ovnnb_db.pid", "--unixctl="+daemon.OVNRun+"/ovnnb_db.ctl"),
		},
		{
			Name: "ovsdb-server-sb", Short: "Serve OVN's southbound database", Dirs: []string{daemon.OVNRun, ovnVar}, Prepare: sb.Prepare,
			Argv: daemon.Logged("ovsdb-server", sb.Path, "--remote=punix:"+daemon.OVNRun+"/ovnsb_db.sock",
				"--pidfile="+daemon.OVNRun+"/ovnsb_db.pid", "--unixctl="+daemon.OVNRun+"/ovnsb_db.ctl"),
		},
		{
			Name: "northd", Short: "Run ovn-northd", Dirs: []string{daemon.OVNRun},
			Argv: daemon.Logged("ovn-northd", "--ovnnb-db=unix:"+daemon.OVNRun+"/ovnnb_db.sock", "--ovnsb-db=unix:"+daemon.OVNRun+"/ovnsb_db.sock",
				"--no-chdir", "--pidfile="+daemon.OVNRun+"/ovn-northd.pid"),
		},
		{
			Name: "ovn-controller", Short: "Run ovn-controller", Dirs: []string{daemon.OVNRun},
			Prepare: controllerMayStart,
			Argv: append(daemon.Logged("ovn-controller", daemon.OVSSocket, "--no-chdir", "--pidfile="+daemon.OVNRun+"/ovn-controller.pid"),
				files.Flags()...),
		},
	}
}

// daemonCommand is `portolan-node daemon NAME`.
func daemonCommand() *cobra.Command {
	var files string
	root := &cobra.Command{Use: "daemon", Short: "Become one of OVS's or OVN's daemons", Args: cobra.NoArgs}
	root.PersistentFlags().StringVar(&files, "tls-dir", "", "`directory` of tls.crt, tls.key and ca.crt for the databases of a global zone; empty: plain connections")
	for i, d := range daemons("") {
		root.AddCommand(&cobra.Command{
			Use: d.Name, Short: d.Short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return daemons(zone.Files(files))[i].Run(cmd.Context(), os.Environ())
			},
		})
	}
	return root
}

// The times of a vswitchd that waits for its flows.
const (
	askDatabase = 3 * time.Second  // how long its database may be away before it is started all the same
	flowsComing = 10 * time.Second // how long its flows may be away before it works without
)

// holdPackets is done before vswitchd starts: it shall move no packet until the
// agent says that its flows are there. A node without a database, or bridges, has
// none to wait for, and nothing here keeps vswitchd from starting.
func holdPackets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askDatabase)
	defer cancel()
	err := withOVS(ctx, func(ovs *host.OVS) error { return ovs.HoldPackets(ctx) })
	if err != nil {
		slog.Warn("vswitchd starts without waiting for its flows", "err", err)
	}
	return nil
}

// releasePackets is the net under the agent, which may be away.
func releasePackets(ctx context.Context) {
	t := time.NewTimer(flowsComing)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return
	case <-t.C:
	}
	err := withOVS(ctx, func(ovs *host.OVS) error {
		if ovs.Holding(ctx) {
			slog.Error("nobody has loaded vswitchd's flows; it works without", "waited", flowsComing)
		}
		return ovs.ReleasePackets(ctx)
	})
	if err != nil && ctx.Err() == nil {
		slog.Error("vswitchd may still wait for its flows: remove the key from Open_vSwitch's other_config", "key", host.RestoreWait, "err", err)
	}
}

// withOVS connects to the node's OVS database, however long that takes.
func withOVS(ctx context.Context, do func(*host.OVS) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ovs, err := host.OpenOVS(ctx, daemon.OVSSocket)
		if err == nil {
			defer ovs.Close()
			return do(ovs)
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// controllerMayStart returns when ovn-controller has what it needs: br-int, no agent
// that holds it, and a southbound database that northd has written, without which
// ovn-controller 25.03 can crash, and one whose flows are there would clear them.
func controllerMayStart(ctx context.Context) error {
	remote, err := waitBridge(ctx, intent.IntegrationBridge)
	if err != nil {
		return err
	}
	if err := host.AwaitRelease(ctx, daemon.OVNRun); err != nil {
		return err
	}
	if !strings.HasPrefix(remote, "unix:") {
		return nil // a global zone's, which was filled before this node knew of it
	}
	sb, err := ovsdb.Dial(ctx, ovsdb.Config{DB: rows.SB, Endpoint: remote})
	if err != nil {
		return err
	}
	defer sb.Close()
	tick := time.NewTicker(stepPace)
	defer tick.Stop()
	for {
		if n, err := sb.NbCfg(ctx); err != nil || n >= 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// waitBridge returns once the Open_vSwitch database has a bridge, with what it says
// of where the southbound database is. ovn-controller would make br-int itself,
// without our tags and with the kernel's datapath, and the agent's could never be
// written beside it.
func waitBridge(ctx context.Context, bridge string) (remote string, err error) {
	ovs, err := host.OpenOVS(ctx, daemon.OVSSocket)
	if err != nil {
		return "", err
	}
	defer ovs.Close()
	net := time.NewTicker(time.Second) // under the doorbell, which may miss a change
	defer net.Stop()
	for {
		_, found, err := ovs.Bridge(ctx, bridge)
		if remote = ovs.ExternalID(ctx, "ovn-remote"); err != nil || found && remote != "" {
			return remote, err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-ovs.Changed():
		case <-net.C:
		}
	}
}
