package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

func statusCommand() *cobra.Command {
	var o reach.Options
	var out output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how every node's network does, or all of one node's",
		Long: `Status asks every node's agent and prints a line for each: whether pods can start
there, its zone and datapath, who calls the plugin (native: the runtime; multus),
its databases, how many networks beside the default one it renders, how many groups of
rows wait, problems, version. Below it says what is not as it should be. With --node, or on a node, it prints all that the agent
says of itself.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := reach.Open(o)
			if err != nil {
				return err
			}
			reports, err := gather(cmd.Context(), r)
			if err != nil {
				return err
			}
			detail := r.Local() || o.Node != ""
			return out.print(cmd.OutOrStdout(), reports, func(w io.Writer) { printStatus(w, reports, detail) })
		},
	}
	o.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// printStatus is the table, what is wrong, and details where they are asked for.
func printStatus(w io.Writer, reports []answered, detail bool) {
	t := table{head: []string{"NODE", "READY", "ZONE", "DATAPATH", "MODE", "DATABASES", "NETWORKS", "WAITING", "PROBLEMS", "VERSION"}}
	for _, r := range reports {
		name := r.Node
		if name == "" {
			name = "(" + r.Process + ")"
		}
		st := r.Status
		if st == nil {
			t.add(name, "unknown", "-", "-", "-", "-", "-", "-", "-", "-")
			continue
		}
		ready := "yes"
		if !st.Ready {
			ready = "no"
		}
		t.add(name, ready, st.Zone, dash(st.Datapath), dash(st.Mode), databases(st.Databases), fmt.Sprint(st.Networks), fmt.Sprint(len(st.Groups)),
			problemCount(st.Problems), st.Version)
	}
	t.write(w)
	for _, r := range reports {
		for _, line := range complaints(r) {
			fmt.Fprintln(w, line)
		}
	}
	if !detail {
		return
	}
	for _, r := range reports {
		if r.Status != nil {
			printDetails(w, r.Status)
		}
	}
}

// databases is "all up", or which are down.
func databases(dbs []inspect.Database) string {
	var down []string
	for _, d := range dbs {
		if !d.Up {
			down = append(down, d.Name)
		}
	}
	if len(down) > 0 {
		return strings.Join(down, ",") + " down"
	}
	return "up"
}

func problemCount(ps []inspect.Problem) string {
	errors := 0
	for _, p := range ps {
		if p.Severity == "error" {
			errors++
		}
	}
	if errors == len(ps) {
		return fmt.Sprint(len(ps))
	}
	return fmt.Sprintf("%d (%d errors)", len(ps), errors)
}

// complaints are one line for each thing that is not as it should be, but problems
// with objects, which have a command of their own.
func complaints(r answered) []string {
	who := r.Node
	if who == "" {
		who = r.Process
	}
	if r.Status == nil {
		line := who + ": no answer: " + r.Error
		if r.LastWords != "" {
			line += "\n  its last words: " + r.LastWords
		}
		return []string{line}
	}
	var lines []string
	if !r.Status.Ready {
		lines = append(lines, who+": not ready: "+r.Status.NotReady)
	}
	for _, d := range r.Status.Databases {
		if !d.Up {
			lines = append(lines, fmt.Sprintf("%s: database %s is down: %s", who, d.Name, dash(d.Error)))
		}
	}
	if n := r.Status.Engine.Bugs; n > 0 {
		lines = append(lines, fmt.Sprintf("%s: %d bugs in units: rows are left out; the log of portolan-node names them, please report them", who, n))
	}
	if n := len(r.Status.Problems); n > 0 {
		lines = append(lines, fmt.Sprintf("%s: %d problems with objects: portolan problems shows them", who, n))
	}
	return lines
}

// printDetails is all that one process says of itself.
func printDetails(w io.Writer, st *inspect.Status) {
	fmt.Fprintf(w, "\n%s, %s, up for %s\n", st.Process, st.Version, time.Since(st.Started).Round(time.Second))
	e := st.Engine
	fmt.Fprintf(w, "%d objects, %d units; %d compiled, %d transactions with %d operations, %d bugs since the start\n\n",
		e.Objects, e.Units, e.Compiles, e.Transactions, e.Operations, e.Bugs)
	t := table{head: []string{"DATABASE", "UP", "CONNECTIONS", "REPAIRED", "INSTALLED", "WHY"}}
	for _, d := range st.Databases {
		up := "yes"
		if !d.Up {
			up = "no"
		}
		t.add(d.Name, up, fmt.Sprint(d.Generation), fmt.Sprint(d.Drift), fmt.Sprint(d.Installed), dash(d.Error))
	}
	t.write(w)
	waiting := table{head: []string{"WAITING", "DATABASE", "FOR", "ON"}}
	for _, g := range st.Groups {
		waiting.add(g.Name, g.Database, age(g.Age), cause(g))
	}
	if len(waiting.rows) > 0 {
		fmt.Fprintln(w)
	}
	waiting.write(w)
}

// cause is why a group is not written.
func cause(g inspect.Group) string {
	if g.Error != "" {
		return g.Error
	}
	return strings.Join(g.Waiting, ", ")
}

// age is a time in seconds for people: 12s, 5m, 3h, 2d; "-" for none.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d <= 0:
		return "-"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
