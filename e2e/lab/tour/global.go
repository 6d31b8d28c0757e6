package tour

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
)

// layout learns how the lab's databases are laid out.
func (g *guide) layout(ctx context.Context) error {
	text, err := g.lab(ctx, "options")
	if err != nil {
		return err
	}
	var o plan.Options
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return fmt.Errorf("options of the lab: %w", err)
	}
	if o.Families == plan.IPv6 {
		return fmt.Errorf("the tour shows IPv4, and the lab has families %q: bring up one with ipv4 or dual (lab down, lab up)", o.Families)
	}
	g.plan = plan.Of(o)
	return nil
}

func (g *guide) global() bool { return g.plan.Zone == "global" }

// across is the time to live that is left of 64 between pods of two nodes, and why.
func (g *guide) across() (ttl int, why string) {
	if g.global() {
		return 63, "one router for all nodes"
	}
	return 62, "two routers"
}

// inGlobal are the parts as they are where one zone holds all nodes.
func inGlobal(all []part) []part {
	for i, p := range all {
		switch p.name {
		case held:
			all[i].why = `One zone holds all nodes: portolan-controller writes what is meant into one northbound database, northd
				makes flows of it in one southbound database, and every node's ovn-controller reads that over the network.`
			all[i].run = (*guide).centralDatabases
		case between:
			all[i].why = `Every router takes one off a packet's time to live. On one node there is a switch
				between two pods: 64 is left. Between nodes there is the one router of all nodes: 63, through a Geneve tunnel.`
		}
	}
	return all
}

// centralDatabases shows the pages of the classic layout: every node's switches and
// routers in one database, every chassis in the other.
func (g *guide) centralDatabases(ctx context.Context) error {
	scheme, nbTool, sbTool := "ssl", "ovn-nbctl", "ovn-sbctl"
	if g.plan.Insecure {
		server := g.plan.DatabaseServers()[0].String()
		scheme, nbTool, sbTool = "tcp", "ovn-nbctl --db=tcp:"+server+":6641", "ovn-sbctl --db=tcp:"+server+":6642"
	}
	first := g.plan.Machines[0].Name
	nb, err := g.show(ctx, "exec", first, "--", "sh", "-c", nbTool+" show | grep -E 'switch |router '")
	if err != nil {
		return err
	}
	sb, err := g.show(ctx, "exec", first, "--", "sh", "-c", sbTool+` show | grep "Chassis " -A3`)
	if err != nil {
		return err
	}
	remote, err := g.show(ctx, "vsctl", g.plan.Machines[1].Name, "get", "Open_vSwitch", ".", "external_ids:ovn-remote")
	if err != nil {
		return err
	}
	g.gap()
	want := []string{"switch join", "router ovn_cluster_router"}
	for _, m := range g.plan.Machines {
		want = append(want, "switch "+m.Name, "switch ext_"+m.Name, "router GR_"+m.Name)
	}
	got := named(nb)
	for _, w := range want {
		g.claim(holds("northbound: "+w, "is there", got[w]))
		delete(got, w)
	}
	g.claim(equal("northbound: other switches and routers, such as a transit switch", 0, len(got), nil))
	g.claim(equal("southbound: chassis", len(g.plan.Machines), strings.Count(sb, "Chassis "), nil))
	g.claim(holds("ovn-controller of "+g.plan.Machines[1].Name, "reads it over "+scheme, strings.HasPrefix(strings.Trim(remote, "\"\n"), scheme+":")))
	return nil
}

// named collects "switch NAME" and "router NAME" of what ovn-nbctl show prints.
func named(text string) map[string]bool {
	out := map[string]bool{}
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) == 3 && (f[0] == "switch" || f[0] == "router") {
			out[f[0]+" "+strings.Trim(f[2], "()")] = true
		}
	}
	return out
}
