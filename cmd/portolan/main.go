// Command portolan is the operator's tool: what a test can ask, an operator can
// ask. It needs no cluster for what it can tell from files.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/version"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "portolan:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "portolan",
		Short:         "Ask Portolan what it makes of a cluster, and why",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(compileCommand(), versionCommand())
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
