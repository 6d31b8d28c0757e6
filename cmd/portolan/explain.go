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

// explained is one agent's explanation.
type explained struct {
	Node string `json:"node,omitempty"`
	inspect.Explanation
}

func explainCommand() *cobra.Command {
	var way reach.Options
	var out output
	cmd := &cobra.Command{
		Use:   "explain ROW|UNIT|OBJECT",
		Short: "Tell which unit says a row, what it has read, and which object is behind it",
		Long: `Explain finds a row by its name (NB:Logical_Switch_Port(demo_east) or
Logical_Switch_Port/demo_east), by its id alone, or by the UUID that ovn-nbctl
shows; or a unit (pod/demo/east), or the units of an object (Pod/demo/east). It
prints the unit that says it, the objects that the unit lives by, all that it has
read, what else it says, and how far that has come. Without --node every agent is
asked, and those that know it answer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := each(cmd.Context(), way, func(ctx context.Context, node string, c *inspect.Client) (explained, error) {
				x, err := c.Explain(ctx, args[0])
				return explained{node, x}, err
			})
			if len(found) > 0 {
				err = errors.Join(err, out.print(cmd.OutOrStdout(), found, func(w io.Writer) {
					for i, x := range found {
						if i > 0 {
							fmt.Fprintln(w)
						}
						x.write(w)
					}
				}))
			}
			return err
		},
	}
	way.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

func (x explained) write(w io.Writer) {
	if x.Node != "" {
		fmt.Fprintf(w, "node %s\n", x.Node)
	}
	if x.Row != nil {
		writeRow(w, *x.Row)
		fmt.Fprintf(w, "uuid     %s\n", x.Row.UUID)
		for i, e := range x.Elements {
			fmt.Fprintf(w, "%-8s %s %s by %s\n", first(i, "added"), e.Column, element(e), strings.Join(e.Units, ", "))
		}
	}
	for _, u := range x.Units {
		writeUnit(w, u, x.Row)
	}
	if len(x.Units) == 0 {
		fmt.Fprintf(w, "%s spawns no unit: it is only read\n", x.Asked)
	}
}

// first is the word for the first line of a list.
func first(i int, word string) string {
	if i > 0 {
		return ""
	}
	return word
}

// writeUnit prints a unit; the row that was asked for is not repeated.
func writeUnit(w io.Writer, u inspect.ExplainedUnit, asked *inspect.Row) {
	fmt.Fprintf(w, "unit     %s, %s", u.Name, unitState(u.Unit))
	if u.Group != u.Name {
		fmt.Fprintf(w, ", written with group %s", u.Group)
	}
	fmt.Fprintln(w)
	for i, o := range u.Objects {
		fmt.Fprintf(w, "%-8s %s\n", first(i, "object"), o)
	}
	for i, r := range u.Reads {
		fmt.Fprintf(w, "%-8s %s\n", first(i, "reads"), r)
	}
	for i, g := range u.Waiting {
		fmt.Fprintf(w, "%-8s %s\n", first(i, "waits"), groupText(g))
	}
	for i, p := range u.Problems {
		fmt.Fprintf(w, "%-8s %s %s %s: %s\n", first(i, "problems"), p.Severity, p.Object, p.Field, p.Message)
	}
	rest := 0
	for _, r := range u.Output {
		if asked != nil && r.Row == asked.Row {
			continue
		}
		if asked != nil {
			fmt.Fprintf(w, "%-8s %s\n", first(rest, "says too"), r.Row)
		} else {
			writeRow(w, r)
		}
		rest++
	}
	for i, e := range u.Links {
		fmt.Fprintf(w, "%-8s %s to %s.%s\n", first(i, "adds"), element(e), e.Row, e.Column)
	}
}

// whyText is why a group is not written.
func whyText(g inspect.Group) string {
	if g.Error != "" {
		return g.Class + ": " + g.Error
	}
	return "waiting on " + strings.Join(g.Waiting, ", ")
}

// groupText says why a group is not written, and since when.
func groupText(g inspect.Group) string {
	text := fmt.Sprintf("%s in %s, for %.0f s: %s", g.Name, g.Database, g.Age, whyText(g))
	if g.Retry > 0 {
		text += fmt.Sprintf("; tried again in %.0f s", g.Retry)
	}
	return text
}
