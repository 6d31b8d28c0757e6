package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/daemon"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/zone"
)

// centralVar is where a node keeps the databases of a global zone: apart from
// those that it had, or will have, as a zone of its own.
const centralVar = "/var/lib/portolan/central"

// daemons lists what `portolan-controller daemon` can become; self is the address
// among spec.databases of the node that this is, for the servers.
func (p place) daemons(self netip.Addr) []daemon.Daemon {
	northd := append([]string{"ovn-northd", "--ovnnb-db=" + p.databases.Endpoint(rows.NB), "--ovnsb-db=" + p.databases.Endpoint(rows.SB),
		"--no-chdir", "--pidfile=" + daemon.OVNRun + "/ovn-northd.pid"}, p.files.Flags()...)
	return []daemon.Daemon{
		p.server(rows.NB, "nb", daemon.NBSchema, self),
		p.server(rows.SB, "sb", daemon.SBSchema, self),
		{Name: "northd", Short: "Run ovn-northd of a global zone", Dirs: []string{daemon.OVNRun}, Argv: daemon.Logged(northd...)},
	}
}

// server serves one database to the cluster, and to root on its node by a socket.
func (p place) server(db rows.DB, name, schema string, self netip.Addr) daemon.Daemon {
	file := daemon.File{Path: filepath.Join(centralVar, "ovn"+name+"_db.db"), Schema: schema}
	run := daemon.OVNRun + "/ovn" + name + "_db"
	argv := append([]string{"ovsdb-server", file.Path, "--remote=punix:" + run + ".sock", "--remote=" + p.databases.Listen(db, self),
		"--pidfile=" + run + ".pid", "--unixctl=" + run + ".ctl"}, p.files.ServerFlags(db)...)
	d := daemon.Daemon{
		Name: "ovsdb-server-" + name, Short: "Serve the " + name + " database of a global zone",
		Dirs: []string{daemon.OVNRun, centralVar}, Prepare: file.Prepare, Argv: daemon.Logged(argv...),
	}
	if p.databases.Clustered() {
		d.Prepare = p.member(db, file, self).Prepare
	}
	return d
}

// member is this server's part in a cluster.
func (p place) member(db rows.DB, file daemon.File, self netip.Addr) daemon.Member {
	return daemon.Member{
		File: file, Database: ovsdb.Name(db), Self: self, Servers: p.databases.Servers,
		Raft: func(a netip.Addr) string { return p.databases.Raft(db, a) },
		Cluster: func(ctx context.Context, server netip.Addr) (string, error) {
			return ovsdb.ClusterID(ctx, ovsdb.Config{DB: db, Endpoint: p.databases.At(server).Endpoint(db), TLS: p.tls})
		},
	}
}

// self finds this node among the servers.
func (c *Config) self(d zone.Databases) (netip.Addr, error) {
	a, err := netip.ParseAddr(c.NodeIP)
	if err != nil {
		return a, fmt.Errorf("--node-ip: %w", err)
	}
	if !slices.Contains(d.Servers, a) {
		return a, fmt.Errorf("this node has address %s, and spec.databases are %v: run the databases on the nodes that have these addresses, or name others there", a, d.Servers)
	}
	return a, nil
}

// daemonCommand is `portolan-controller daemon NAME`.
func daemonCommand(cfg *Config) *cobra.Command {
	root := &cobra.Command{Use: "daemon", Short: "Become one of the daemons of a global zone", Args: cobra.NoArgs}
	for i, d := range (place{}).daemons(netip.Addr{}) {
		root.AddCommand(&cobra.Command{
			Use: d.Name, Short: d.Short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				p, err := cfg.load()
				if err != nil {
					return err
				}
				var self netip.Addr
				if d.Name != "northd" {
					if self, err = cfg.self(p.databases); err != nil {
						return err
					}
				}
				return p.daemons(self)[i].Become(cmd.Context(), os.Environ())
			},
		})
	}
	for name, db := range map[string]rows.DB{"nb": rows.NB, "sb": rows.SB} {
		root.AddCommand(&cobra.Command{
			Use: "tidy-" + name, Short: "Once the " + name + " server is a member, remove the member that it was before its disk was lost", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return cfg.tidy(cmd.Context(), db, name) },
		})
	}
	return root
}

// tidyPatience is how long a server may take to become a member: its container is
// not running for kubelet before.
const tidyPatience = time.Minute

// tidy is done after a server's start. That it was not possible is no reason to
// start the server again: kubelet would.
func (c *Config) tidy(ctx context.Context, db rows.DB, name string) error {
	p, err := c.load()
	if err != nil || !p.databases.Clustered() {
		return err
	}
	self, err := c.self(p.databases)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, tidyPatience)
	defer cancel()
	if err := p.member(db, daemon.File{}, self).Tidy(ctx, daemon.OVNRun+"/ovn"+name+"_db.ctl", daemon.Appctl); err != nil {
		slog.Warn("cluster not tidied", "database", ovsdb.Name(db), "err", err)
	}
	return nil
}
