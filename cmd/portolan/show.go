package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// showOptions are the flags of show's subcommands.
type showOptions struct {
	reach  reach.Options
	out    output
	filter inspect.Filter
}

func showCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show units|rows|edges",
		Short: "Show what an agent's compiler wants in the databases",
		Long: `Show prints what the compiler of one agent holds now: its units, the rows they
want in the databases, or the elements they add to rows that others write too.
What is marked "pending" is not known to be in the database.`,
	}
	cmd.AddCommand(showUnitsCommand(), showRowsCommand(), showEdgesCommand())
	return cmd
}

func (o *showOptions) addFlags(cmd *cobra.Command) {
	o.reach.AddFlags(cmd.Flags())
	o.out.addFlag(cmd.Flags())
}

func (o *showOptions) addFilter(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.filter.Table, "table", "t", "", "only this `table`: NB:ACL, or ACL")
	f.StringVar(&o.filter.Unit, "unit", "", "only of this `unit`: pod/demo/east, or pod/ for all of a kind")
	f.StringVar(&o.filter.Database, "database", "", "only of `NB`, SB or OVS")
}

func showUnitsCommand() *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use: "units", Short: "The units, and how far each has come", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := one(cmd.Context(), o.reach)
			if err != nil {
				return err
			}
			units, err := c.Units(cmd.Context())
			if err != nil {
				return err
			}
			return o.out.print(cmd.OutOrStdout(), units, func(w io.Writer) {
				t := table{head: []string{"UNIT", "GROUP", "ROWS", "EDGES", "STATE"}}
				for _, u := range units {
					t.add(u.Name, u.Group, strconv.Itoa(u.Rows), strconv.Itoa(u.Edges), unitState(u))
				}
				t.write(w)
			})
		},
	}
	o.addFlags(cmd)
	return cmd
}

// unitState is how far a unit has come, in one word.
func unitState(u inspect.Unit) string {
	switch {
	case u.Installed:
		return "installed"
	case u.Committed:
		return "committed"
	}
	return "pending"
}

func showRowsCommand() *cobra.Command {
	var o showOptions
	var full bool
	cmd := &cobra.Command{
		Use: "rows", Short: "The rows that units want", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := one(cmd.Context(), o.reach)
			if err != nil {
				return err
			}
			rows, err := c.Rows(cmd.Context(), o.filter)
			if err != nil {
				return err
			}
			return o.out.print(cmd.OutOrStdout(), rows, func(w io.Writer) {
				if full {
					for _, r := range rows {
						writeRow(w, r)
					}
					return
				}
				t := table{head: []string{"ROW", "UNIT", "STATE", "UUID"}}
				for _, r := range rows {
					t.add(r.Row, r.Unit, rowState(r.Written), r.UUID)
				}
				t.write(w)
			})
		},
	}
	o.addFlags(cmd)
	o.addFilter(cmd)
	cmd.Flags().BoolVarP(&full, "columns", "c", false, "with their columns")
	return cmd
}

func rowState(written bool) string {
	if written {
		return "written"
	}
	return "pending"
}

// writeRow prints a row with its columns, as scripts and compile do.
func writeRow(w io.Writer, r inspect.Row) {
	line := r.Row
	if r.Parent != "" {
		line += "  parent " + r.Parent
	}
	if len(r.Uses) > 0 {
		line += "  uses " + strings.Join(r.Uses, " ")
	}
	if !r.Written {
		line += "  (pending)"
	}
	fmt.Fprintln(w, line)
	for _, name := range slices.Sorted(maps.Keys(r.Columns)) {
		fmt.Fprintf(w, "  %s %s\n", name, r.Columns[name])
	}
}

func showEdgesCommand() *cobra.Command {
	var o showOptions
	cmd := &cobra.Command{
		Use: "edges", Short: "The elements that units add to rows which others write too", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := one(cmd.Context(), o.reach)
			if err != nil {
				return err
			}
			edges, err := c.Edges(cmd.Context(), o.filter)
			if err != nil {
				return err
			}
			return o.out.print(cmd.OutOrStdout(), edges, func(w io.Writer) {
				t := table{head: []string{"ROW", "COLUMN", "ELEMENT", "UNITS", "STATE"}}
				for _, e := range edges {
					t.add(e.Row, e.Column, element(e), strings.Join(e.Units, " "), rowState(e.Written))
				}
				t.write(w)
			})
		},
	}
	o.addFlags(cmd)
	o.addFilter(cmd)
	return cmd
}

// element is a set's element or a map's entry.
func element(e inspect.Edge) string {
	if e.Value == "" {
		return e.Key
	}
	return e.Key + "=" + e.Value
}
