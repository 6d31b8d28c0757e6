// Command portolan-node is the agent of one node: it gives the node's pods their
// interfaces, makes the zone's databases hold what the cluster says, and keeps
// the host's side of the network as declared.
//
//	API server ─> informers ─┐                    ┌─> NB, SB (this node's zone)
//	node facts ──────────────┼─> engine ─> driver ┴─> Open_vSwitch
//	CNI calls ─> server ─> veth, OVS port          keeper ─> links, routes, nft
//
// Subcommands run OVN's and OVS's daemons in the pod's other containers, and put
// the node back as it was (cleanup).
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "portolan-node:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	cfg := defaults()
	root := &cobra.Command{
		Use: "portolan-node", Short: "The agent of one node", Version: version.String(),
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return err
			}
			return run(cmd.Context(), cfg)
		},
	}
	cfg.addFlags(root.PersistentFlags())
	root.AddCommand(&cobra.Command{
		Use: "cleanup", Short: "Put the node back as it was before Portolan", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cleanup(cmd.Context(), cfg) },
	}, daemonCommand())
	return root
}
