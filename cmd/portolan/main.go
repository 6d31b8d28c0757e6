// Command portolan is the operator's tool: what a test can ask, an operator can
// ask. It needs no cluster for what it can tell from files. Under the name
// kubectl-portolan it is a plugin of kubectl: kubectl portolan.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := root(filepath.Base(os.Args[0])).ExecuteContext(ctx)
	var verdict exitCode
	var untold unknownError
	switch {
	case errors.As(err, &verdict):
		os.Exit(int(verdict))
	case errors.As(err, &untold):
		fmt.Fprintln(os.Stderr, "portolan:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "portolan:", err)
		os.Exit(1)
	}
}

// exitCode is an answer that a program can read, and no failure to be printed.
type exitCode int

// Error is never shown.
func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// root is the command line of a program of this name.
func root(name string) *cobra.Command {
	use := "portolan"
	annotations := map[string]string{}
	if name == "kubectl-portolan" {
		// As people type it; cobra would cut it at the space.
		use, annotations[cobra.CommandDisplayNameAnnotation] = "kubectl-portolan", "kubectl portolan"
	}
	cmd := &cobra.Command{
		Use:           use,
		Short:         "Ask Portolan what it makes of a cluster, and why",
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   annotations,
	}
	cmd.AddCommand(statusCommand(), problemsCommand(), networksCommand(), podCommand(), devicesCommand(), offloadCommand(), doctorCommand(), bundleCommand(), ovnCommand(),
		compileCommand(), planCommand(), showCommand(), explainCommand(), diffCommand(), recordCommand(), replayCommand(), apiCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), version.String())
		},
	}
}
