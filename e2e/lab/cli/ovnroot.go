package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func ovnRootCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "ovn-root", Short: "make the directory with OVN and OVS that the product's tests run daemons from", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab()
			if err != nil {
				return err
			}
			root, err := l.Builder.OVNRoot(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), root)
			return nil
		}}
}
