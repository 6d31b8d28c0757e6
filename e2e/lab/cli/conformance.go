package cli

import (
	"github.com/spf13/cobra"
)

func conformanceCommand(lab source) *cobra.Command {
	var focus, skip string
	cmd := &cobra.Command{Use: "conformance", Short: "run upstream's network tests in the lab", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		l, err := lab()
		if err != nil {
			return err
		}
		return l.Conformance(cmd.Context(), focus, skip)
	}}
	cmd.Flags().StringVar(&focus, "focus", "Granular Checks: Pods", "regular expression of specs to run")
	cmd.Flags().StringVar(&skip, "skip", `SCTP|\[Serial\]|\[Disruptive\]`, "regular expression of specs to leave out")
	return cmd
}
