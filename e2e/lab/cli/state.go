package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// stateCommands print what a node holds because of Portolan, and compare.
func stateCommands() []*cobra.Command {
	take := &cobra.Command{Use: "state NODE", Short: "print what a node holds: databases, flows, nftables, routes, links, files", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := state.Take(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return s.Write(os.Stdout)
		}}
	diff := &cobra.Command{Use: "diff BEFORE AFTER", Short: "compare what two nodes hold, or held: each a node, or a file that `lab state` wrote", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var states [2]state.State
			for i, arg := range args {
				f, err := os.Open(arg)
				if err == nil {
					states[i], err = state.Read(f)
					f.Close()
				} else {
					states[i], err = state.Take(cmd.Context(), arg)
				}
				if err != nil {
					return err
				}
			}
			differences := state.Diff(states[0], states[1])
			for _, d := range differences {
				fmt.Println(d)
			}
			if len(differences) > 0 {
				return fmt.Errorf("%d rows are different", len(differences))
			}
			return nil
		}}
	return []*cobra.Command{take, diff}
}
