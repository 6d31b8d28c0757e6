package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/portolan-cni/portolan/pkg/trace"
)

// printPath is a path for people: a line for each switch and router, what was chosen
// there, and the verdict. Detailed is every logical flow.
func printPath(w io.Writer, p trace.Path, detailed bool) {
	if len(p.Zones) > 0 {
		fmt.Fprintf(w, "%s, from %s to %s\n", p.Zones[0].Packet, p.From, p.To)
	}
	for i := range p.Zones {
		z := &p.Zones[i]
		fmt.Fprintf(w, "\nzone %s\n", z.Name)
		if detailed {
			fmt.Fprintf(w, "%s\n", strings.TrimSpace(z.Text))
			continue
		}
		t := table{head: []string{"", "", ""}}
		for j := range z.Hops {
			addHop(&t, &z.Hops[j])
		}
		writeIndented(w, t)
	}
	v := p.Verdict
	fmt.Fprintf(w, "\n%s: %s\n", v.Outcome, v.Reason)
	if len(p.Objects) > 0 {
		label := "by"
		if v.Outcome == trace.Delivered {
			label = "of"
		}
		fmt.Fprintf(w, "  %-6s  %s\n", label, strings.Join(p.Objects, ", "))
	}
	if d := v.Decider; d != nil {
		if d.Row != "" {
			fmt.Fprintf(w, "  row     %s, of unit %s\n", d.Row, d.Unit)
		}
		fmt.Fprintf(w, "  flow    %s, table %d of %s, priority %d, uuid %s\n", d.Stage, d.Table, d.Pipeline, d.Priority, d.UUID)
	}
	if v.Outcome == trace.Delivered {
		fmt.Fprintf(w, "  ttl     %d\n", p.TTL)
	}
}

// addHop adds a hop's line, and one for each thing chosen there.
func addHop(t *table, h *trace.Hop) {
	kind := "switch"
	if len(h.Steps) > 0 && strings.HasPrefix(h.Steps[0].Stage, "lr_") {
		kind = "router"
	}
	way := "in by " + h.Inport
	for _, o := range h.Outputs {
		way += ", out by " + o.Port
	}
	t.add(kind+" "+h.Datapath, way)
	for i := range h.Steps {
		s := &h.Steps[i]
		what := s.Decision()
		if what == "" {
			continue
		}
		if len(s.Objects) > 0 {
			what += "  (" + strings.Join(s.Objects, ", ") + ")"
		}
		t.add("", "  "+what)
	}
}

// writeIndented is a table without a head, two columns in.
func writeIndented(w io.Writer, t table) {
	widest := 0
	for _, row := range t.rows {
		widest = max(widest, len(row[0]))
	}
	for _, row := range t.rows {
		fmt.Fprintf(w, "  %s\n", strings.TrimRight(fmt.Sprintf("%-*s  %s", widest, row[0], row[1]), " "))
	}
}
