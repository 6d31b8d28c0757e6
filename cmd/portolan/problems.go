package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/reach"
)

// trouble is one thing that is wrong, folded over the nodes that see it.
type trouble struct {
	Object   string   `json:"object"`
	Field    string   `json:"field,omitempty"`
	Severity string   `json:"severity"` // error, warning, waiting or repaired
	Message  string   `json:"message"`
	Age      float64  `json:"age,omitempty"` // seconds, the longest of the nodes'; 0: not known
	Nodes    []string `json:"nodes"`
}

func problemsCommand() *cobra.Command {
	var o reach.Options
	var out output
	cmd := &cobra.Command{
		Use:   "problems",
		Short: "List what is wrong, by object, from all nodes",
		Long: `Problems asks every node's agent what is wrong with what was asked for, what waits
to be written and for what, and which agents do not answer, and prints each once
with the nodes that say so; and what portolan-manager says of networks: definitions that
are not accepted, physical networks and device pools that are not ready, user-defined networks. An empty answer means that all
is as asked for.`,
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
			list := fold(reports)
			if !r.Local() {
				more, err := declared(cmd.Context(), r)
				if err != nil {
					return err
				}
				pools, err := declaredPools(cmd.Context(), r, list)
				if err != nil {
					return err
				}
				list = ordered(slices.Concat(list, more, pools))
			}
			return out.print(cmd.OutOrStdout(), list, func(w io.Writer) { printProblems(w, list, len(reports)) })
		},
	}
	o.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// fold joins what the processes say: one entry for each thing that is wrong, errors
// first, then by object.
func fold(reports []answered) []trouble {
	type key struct{ object, field, severity, message string }
	found := map[key]*trouble{}
	note := func(node string, t trouble) {
		k := key{t.Object, t.Field, t.Severity, t.Message}
		if found[k] == nil {
			found[k] = &t
		}
		f := found[k]
		f.Age = max(f.Age, t.Age)
		if !slices.Contains(f.Nodes, node) {
			f.Nodes = append(f.Nodes, node)
		}
	}
	for _, r := range reports {
		who := cmp.Or(r.Node, r.Process)
		if r.Status == nil {
			message := "its agent does not answer: " + r.Error
			if r.LastWords != "" {
				message += "; its last words: " + r.LastWords
			}
			note(who, trouble{Object: "Node/" + who, Severity: "error", Message: message})
			continue
		}
		if !r.Status.Ready {
			note(who, trouble{Object: "Node/" + who, Severity: "error", Message: "no pod can start there: " + r.Status.NotReady})
		}
		for _, p := range r.Status.Problems {
			note(who, trouble{Object: p.Object, Field: p.Field, Severity: p.Severity, Message: p.Message, Age: p.Age})
		}
		for _, g := range r.Status.Groups {
			note(who, trouble{Object: objectOf(g.Name), Severity: "waiting", Age: g.Age,
				Message: fmt.Sprintf("not written to %s: %s", g.Database, waitsFor(cause(g), g.Error == ""))})
		}
	}
	out := make([]trouble, 0, len(found))
	for _, t := range found {
		slices.Sort(t.Nodes)
		out = append(out, *t)
	}
	return ordered(out)
}

// ordered sorts troubles: errors first, then by object.
func ordered(out []trouble) []trouble {
	rank := []string{"error", "warning", "waiting", "repaired"}
	slices.SortFunc(out, func(a, b trouble) int {
		return cmp.Or(cmp.Compare(slices.Index(rank, a.Severity), slices.Index(rank, b.Severity)),
			cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return out
}

func waitsFor(what string, missing bool) string {
	if missing {
		return "waiting for " + what
	}
	return what
}

// objectOf is the object whose group has a name: group pod/demo/east is of
// Pod/demo/east.
func objectOf(group string) string {
	kind, key, _ := strings.Cut(group, "/")
	if kind == "" {
		return group
	}
	return strings.ToUpper(kind[:1]) + kind[1:] + "/" + key
}

func printProblems(w io.Writer, list []trouble, asked int) {
	if len(list) == 0 {
		fmt.Fprintf(w, "no problems (%d asked)\n", asked)
		return
	}
	for _, t := range list {
		where := strings.Join(t.Nodes, ", ")
		if len(t.Nodes) > 3 {
			where = fmt.Sprintf("%s and %d more", strings.Join(t.Nodes[:3], ", "), len(t.Nodes)-3)
		}
		head := fmt.Sprintf("%-7s  %s", t.Severity, t.Object)
		if t.Field != "" {
			head += "  " + t.Field
		}
		if t.Age > 0 {
			head += "  for " + age(t.Age)
		}
		fmt.Fprintf(w, "%s  (on %s)\n", head, where)
		for line := range strings.Lines(t.Message) {
			fmt.Fprintf(w, "         %s\n", strings.TrimRight(line, "\n"))
		}
	}
}
