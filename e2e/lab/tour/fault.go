package tour

import (
	"context"
	"fmt"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/state"
)

// fault kills the daemon that programs the node's flows, while packets are counted.
func (g *guide) fault(ctx context.Context) error {
	const daemon = "ovn-controller"
	r := &faults.Rig{
		Lab: g.lab, Node: g.east.node, Others: []string{g.west.node},
		Paths: []faults.Path{
			{Name: faults.SameNode, From: g.east2.Place, To: g.east.Place},
			{Name: faults.OtherNode, From: g.east.Place, To: g.west.Place},
		},
	}
	for _, n := range g.nodes {
		r.All = append(r.All, n.Name)
	}
	if g.global() { // the databases are not the node's
		r.Live = func(ctx context.Context, r *faults.Rig) error {
			if err := faults.Ready(ctx, r.Node); err != nil {
				return err
			}
			_, err := g.lab(ctx, "nbctl", "--wait=hv", "--timeout=12", "sync")
			return err
		}
	}
	g.command("kill -9 " + daemon + "   # on " + r.Node)
	res := r.Run(ctx, faults.Killed(daemon))
	if res.Disturbed() { // the machine lost packets of the bare bridge: that says nothing
		res = r.Run(ctx, faults.Killed(daemon))
	}
	if res.Err != nil {
		return res.Err
	}
	g.gap()
	for _, f := range res.Flows {
		fmt.Fprintf(g.out, "  %s  %v\n", pad(f.Path, 14), f.Steady)
	}
	fmt.Fprintf(g.out, "  %s  %v\n", pad("bare bridge", 14), res.Bare)
	g.gap()
	for _, f := range res.Flows {
		g.claim(equal("packets lost, "+f.Path, 0, f.Lost, nil))
	}
	g.claim(equal("rows different afterwards", 0, res.Different(), nil))
	for n, diff := range res.Rows {
		if len(diff) > 0 {
			g.output(n + ":\n" + state.Text(diff))
		}
	}
	g.note(fmt.Sprintf("All was well again after %.1f s.", res.Took.Seconds()))
	return nil
}
