package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/foresee"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/reach"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
)

// planOptions are the flags of plan.
type planOptions struct {
	reach  reach.Options
	out    output
	files  []string
	from   []string
	remove bool
}

func planCommand() *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan -f FILE",
		Short: "Say what a manifest would change, and what that costs",
		Long: `Plan compiles a manifest on top of what an agent holds now, or with --from on
top of the objects in files, and prints the rows and shared elements that would
come, change and go, the operations, and what each kind of change costs
ovn-northd. Nothing is applied. What the cluster would choose later, a node and an
address, is assumed, and said. Of a NetworkAttachmentDefinition it says which network it
would be of, or why it would be refused; a network costs nothing before a pod uses it. The classes: cheap is up to 10 ms of northd at ten
thousand ports, moderate tens, expensive hundreds.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := read(o.files)
			if err != nil {
				return err
			}
			p, err := o.plan(cmd.Context(), text)
			if err != nil {
				return err
			}
			return o.out.print(cmd.OutOrStdout(), p, func(w io.Writer) { writePlan(w, p) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "filename", "f", nil, "manifest, or directory of .yaml, .yml and .json files; may be repeated")
	f.StringArrayVar(&o.from, "from", nil, "take the cluster from these files, with a Cluster of portolan.io, instead of an agent")
	f.BoolVar(&o.remove, "delete", false, "plan the deletion of the manifest's objects")
	o.reach.AddFlags(f)
	o.out.addFlag(f)
	_ = cmd.MarkFlagRequired("filename") // fails only for a flag that is not there
	return cmd
}

func (o planOptions) plan(ctx context.Context, text []byte) (inspect.Plan, error) {
	if len(o.from) > 0 {
		return o.offline(ctx, text)
	}
	c, err := one(ctx, o.reach)
	if err != nil {
		return inspect.Plan{}, err
	}
	return c.Plan(ctx, text, o.remove)
}

// offline plans on top of files.
func (o planOptions) offline(ctx context.Context, text []byte) (inspect.Plan, error) {
	state, err := read(o.from)
	if err != nil {
		return inspect.Plan{}, err
	}
	sh := script.New(script.Config{Kinds: compile.Kinds(), Door: kube.Decode, Lenient: true, Databases: script.Offline(rows.OVS, rows.NB, rows.SB)})
	objects, err := sh.Read(state)
	if err != nil {
		return inspect.Plan{}, err
	}
	for _, object := range objects {
		sh.Put(object)
	}
	if err := sh.Settle(); err != nil {
		return inspect.Plan{}, err
	}
	found, _ := sh.Engine().Object(intent.ClusterKey)
	cluster, ok := found.(*intent.Cluster)
	if !ok {
		return inspect.Plan{}, errors.New("--from: the files have no Cluster of portolan.io, which says which zone is meant")
	}
	node, zoning := o.reach.Node, kube.ZoneGlobal
	if !cluster.GlobalZone {
		zoning = kube.ZonePerNode
		if node == "" {
			node = cluster.Zone
		}
	}
	s := inspect.NewServer(inspect.Source{
		Identity: inspect.Identity{Node: node}, Engine: sh.Engine(), Driver: inspect.Still{}, Kinds: compile.Kinds(),
		Door:    func(text []byte) ([]intent.Object, []rows.Problem) { return kube.DecodePending(text, zoning) },
		Foresee: foresee.Networks,
	})
	return s.Plan(ctx, text, o.remove)
}

func writePlan(w io.Writer, p inspect.Plan) {
	for _, o := range p.Objects {
		fmt.Fprintf(w, "%-8s %s\n", o.Change, o.Object)
	}
	for _, a := range p.Assumed {
		fmt.Fprintf(w, "assumed  %s\n", a)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(w, "note     %s\n", n)
	}
	marks := map[string]string{"added": "+", "changed": "~", "removed": "-"}
	for _, r := range p.Rows {
		fmt.Fprintf(w, "%s %s  (%s)\n", marks[r.Change], r.Row, r.Unit)
		for _, c := range r.Columns {
			switch r.Change {
			case "changed":
				fmt.Fprintf(w, "    %s %s -> %s\n", c.Name, dash(c.Before), dash(c.After))
			case "added":
				fmt.Fprintf(w, "    %s %s\n", c.Name, c.After)
			}
		}
	}
	for _, e := range p.Edges {
		fmt.Fprintf(w, "%s %s\n", marks[e.Change], e.Edge)
	}
	fmt.Fprintf(w, "%s and %s differ: %s in %s; cost: %s\n", count(len(p.Rows), "row"), count(len(p.Edges), "shared element"),
		count(p.Operations, "operation"), count(p.Transactions, "transaction"), p.Class)
	t := table{head: []string{"COST", "CHANGE", "BECAUSE"}}
	for _, c := range p.Costs {
		t.add(c.Class, c.What, c.Reason)
	}
	t.write(w)
	for _, g := range p.Waiting {
		fmt.Fprintf(w, "would wait: %s in %s\n", groupReason(g), g.Database)
	}
	for _, x := range p.Problems {
		fmt.Fprintf(w, "%s %s %s: %s\n", x.Severity, x.Object, x.Field, x.Message)
	}
}

// groupReason is a waiting group without its age, which a plan does not have.
func groupReason(g inspect.Group) string {
	return g.Name + ", " + whyText(g)
}
