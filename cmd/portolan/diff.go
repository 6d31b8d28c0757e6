package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// compared is one agent's comparison.
type compared struct {
	Node string `json:"node,omitempty"`
	inspect.Diff
}

func diffCommand() *cobra.Command {
	var way reach.Options
	var out output
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Compare the databases, read now, with what they should hold",
		Long: `Diff lets every agent read its databases afresh and compare them with what its
compiler wants: what is missing, what is different, and what carries our tag and
is wanted by nobody. The exit status is 0 without a difference, 1 with one. What
is marked pending the agent knows and has not written yet; all else somebody
changed behind its back, and the agent will repair it at its next check.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := each(cmd.Context(), way, func(ctx context.Context, node string, c *inspect.Client) (compared, error) {
				d, err := c.Diff(ctx)
				return compared{node, d}, err
			})
			n := 0
			for _, c := range found {
				for _, db := range c.Databases {
					n += len(db.Differences)
					if db.Error != "" {
						err = errors.Join(err, fmt.Errorf("%s%s: %s", prefix(c.Node), db.Name, db.Error))
					}
				}
			}
			err = errors.Join(err, out.print(cmd.OutOrStdout(), found, func(w io.Writer) { writeDiffs(w, found) }))
			if err == nil && n > 0 {
				return exitCode(1)
			}
			return err
		},
	}
	way.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// prefix is a node's name before what it says; "" behind a socket.
func prefix(node string) string {
	if node == "" {
		return ""
	}
	return node + " "
}

func writeDiffs(w io.Writer, found []compared) {
	for _, c := range found {
		for _, db := range c.Databases {
			if db.Error != "" {
				continue
			}
			if len(db.Differences) == 0 {
				fmt.Fprintf(w, "%s%s: as wanted (%s, %s)\n", prefix(c.Node), db.Name, count(db.Rows, "row"), count(db.Edges, "edge"))
				continue
			}
			fmt.Fprintf(w, "%s%s: %s (%s and %s wanted)\n", prefix(c.Node), db.Name, count(len(db.Differences), "difference"), count(db.Rows, "row"), count(db.Edges, "edge"))
			for _, d := range db.Differences {
				writeDifference(w, d)
			}
		}
	}
}

func writeDifference(w io.Writer, d inspect.Difference) {
	what := d.Row
	if d.Column != "" {
		what += "." + d.Column
	}
	state := ""
	if d.Pending {
		state = ", pending"
	}
	fmt.Fprintf(w, "  %s %s (%s%s)\n", d.Kind, what, d.Unit, state)
	for _, side := range []struct{ name, text string }{{"want", d.Want}, {"found", d.Found}} {
		// A whole row's text begins with its name, which stands above.
		lines := strings.Split(strings.TrimSpace(side.text), "\n")
		if d.Column == "" {
			lines = lines[1:]
		}
		for _, line := range lines {
			if d.Kind != inspect.Different && side.text == "" {
				continue
			}
			fmt.Fprintf(w, "    %-5s %s\n", side.name, dash(strings.TrimSpace(line)))
		}
	}
}
