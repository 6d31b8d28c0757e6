package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func kubeCommand(lab source) *cobra.Command {
	return &cobra.Command{Use: "kube", Short: "make the directory with Kubernetes' programs that tests on an API server alone run", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := lab()
			if err != nil {
				return err
			}
			dir, err := l.Builder.Kube(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			return nil
		}}
}
