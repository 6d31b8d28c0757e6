package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func multusCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "multus", Short: "build Multus, and print the directory of its programs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab()
			if err != nil {
				return err
			}
			dir, err := l.Builder.Multus(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			return nil
		}}
}
