package host

import (
	"fmt"
	"net/netip"

	"github.com/portolan-cni/portolan/pkg/rows"
)

// Planned are networks of the cluster's plan and the field of the Cluster file that
// they are from.
type Planned struct {
	Field string
	Nets  []netip.Prefix
}

// CheckPlan refuses a plan that has the machine's own address or its next hop in it:
// the machine could not reach the API server, or nothing outside.
func (g Gateway) CheckPlan(plan []Planned) error {
	for _, p := range plan {
		for _, n := range p.Nets {
			for _, a := range g.Addresses {
				if n.Contains(a.Addr()) {
					return &Refusal{NIC: g.NIC, Reason: fmt.Sprintf("its address %s is in %s of %s", a, n, p.Field), Hint: planHint}
				}
			}
			for _, hop := range g.NextHops() {
				if n.Contains(hop) {
					return &Refusal{NIC: g.NIC, Reason: fmt.Sprintf("its next hop %s is in %s of %s", hop, n, p.Field), Hint: planHint}
				}
			}
		}
	}
	return nil
}

const planHint = "Choose another network for that field in the Cluster file: one that no node and no router of its is in."

// CheckNear finds networks of the plan that overlap the machine's own network, where
// neither its address nor its next hop is: other machines there cannot be reached
// from it, and it works else.
func (g Gateway) CheckNear(node string, plan []Planned) []rows.Problem {
	var out []rows.Problem
	for _, p := range plan {
		for _, n := range p.Nets {
			for _, a := range g.Addresses {
				if n.Overlaps(a.Masked()) {
					out = append(out, rows.Problem{Object: "Node/" + node, Field: p.Field, Severity: rows.Warning,
						Message: fmt.Sprintf("%s of the Cluster file overlaps %s, the network of NIC %s: machines there with addresses of both are not reached from this node; choose another", n, a.Masked(), g.NIC)})
				}
			}
		}
	}
	return out
}
