// Command portolan-controller renders a global zone: it makes the northbound
// database hold what the cluster says, for all nodes. What is node-local (bridges,
// pods' interfaces, addresses) is portolan-node's; a pod's address is read from the
// annotation that the node's agent writes.
//
//	API server ─> informers ─> engine ─> driver ─> NB ─> ovn-northd ─> SB ─> every ovn-controller
//
// Several may run: the database's lock decides which of them writes, and every
// transaction asserts it. Subcommands run the zone's databases and ovn-northd.
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
	if err := command().ExecuteContext(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "portolan-controller:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	cfg := defaults()
	root := &cobra.Command{
		Use: "portolan-controller", Short: "Write the northbound database of a global zone", Version: version.String(),
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := cfg.load()
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg, p)
		},
	}
	cfg.addFlags(root.PersistentFlags())
	root.AddCommand(daemonCommand(cfg))
	return root
}
