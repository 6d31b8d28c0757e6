package inspect

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// price is what one change costs ovn-northd, in milliseconds of its processor
// time, measured with 10,000 logical ports on 100 switches, OVN 25.03.0. It grows
// with the zone: in one of 1,000 ports a tenth is a fair guess.
type price struct {
	ms   int // 0: not measured
	kind string
}

// Incremental says that northd handles a change by itself, recomputed that it does
// everything anew.
const (
	incremental = "handled by itself"
	recomputed  = "ovn-northd computes everything anew"
)

// rowPrices are of a row that comes, goes or changes; elementPrices of an element
// of a shared column. What is in neither was not measured.
func rowPrices() map[rows.Table]price {
	return map[rows.Table]price{
		"NB:Logical_Switch_Port": {18, incremental}, "NB:NAT": {18, incremental}, "NB:Load_Balancer": {40, incremental},
		"NB:ACL": {478, recomputed}, "NB:Port_Group": {452, recomputed}, "NB:Logical_Router_Policy": {930, recomputed},
		"NB:Logical_Router_Static_Route": {893, recomputed}, "NB:Logical_Switch": {1915, recomputed},
	}
}

func elementPrices() map[rows.Table]price {
	return map[rows.Table]price{"NB:Address_Set": {2, incremental}, "NB:Port_Group": {5, incremental}}
}

// charge is one kind of change and its price.
type charge struct {
	what string
	price
}

// chargeOf finds the price of an operation; ok is false where northd does not see
// it.
func chargeOf(op engine.Op) (charge, bool) {
	table := op.Row.Table
	words := map[engine.OpKind]string{engine.Insert: "added", engine.Update: "changed", engine.Delete: "removed"}
	c := charge{price: rowPrices()[table]}
	if op.Kind == engine.Add || op.Kind == engine.Remove {
		table = op.Edge.Row.Table
		verb := map[engine.OpKind]string{engine.Add: "added to", engine.Remove: "removed from"}[op.Kind]
		c = charge{what: fmt.Sprintf("element %s %s.%s", verb, table.Name(), op.Edge.Column), price: elementPrices()[table]}
	} else {
		c.what = table.Name() + " " + words[op.Kind]
	}
	return c, table.DB() == rows.NB
}

func (c charge) cost(n int) Cost {
	out := Cost{What: fmt.Sprintf("%d × %s", n, c.what)}
	switch {
	case c.ms == 0:
		out.Class, out.Reason = Expensive, "not measured; taken for a change after which "+recomputed
		return out
	case c.ms > 99:
		out.Class = Expensive
	case c.ms > 9:
		out.Class = Moderate
	default:
		out.Class = Cheap
	}
	out.Reason = fmt.Sprintf("%d ms of ovn-northd at 10,000 ports: %s", c.ms, c.kind)
	return out
}

// account fills in what the transactions cost.
func (p *planner) account(txns []engine.Txn) {
	counts := map[charge]int{}
	local := 0
	p.out.Transactions = len(txns)
	for _, t := range txns {
		p.out.Operations += t.Len()
		for _, g := range t.Groups {
			for _, op := range g.Ops {
				if c, ok := chargeOf(op); ok {
					counts[c]++
				} else {
					local++
				}
			}
		}
	}
	for c, n := range counts {
		p.out.Costs = append(p.out.Costs, c.cost(n))
	}
	if local > 0 {
		p.out.Costs = append(p.out.Costs, Cost{
			What: fmt.Sprintf("%d × change of SB or Open_vSwitch", local), Class: Cheap, Reason: "ovn-northd does not compute it",
		})
	}
	rank := func(class string) int { return slices.Index([]string{"none", Cheap, Moderate, Expensive}, class) }
	slices.SortFunc(p.out.Costs, func(a, b Cost) int {
		return cmp.Or(rank(b.Class)-rank(a.Class), cmp.Compare(a.What, b.What))
	})
	p.out.Class = "none"
	if len(p.out.Costs) > 0 {
		p.out.Class = p.out.Costs[0].Class
	}
}
