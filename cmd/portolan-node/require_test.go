package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// TestRequiredHardware follows an interface whose definition requires offload: two readings
// that find it out are told, once, with the code and its cure, until it is back or gone.
func TestRequiredHardware(t *testing.T) {
	said := map[intent.Key][]rows.Problem{}
	writes, shown := 0, 0
	q := &requiring{
		offload: func(key string) string {
			return map[string]string{"demo/fast": "require", "demo/fast/1": "require", "demo/any": "prefer"}[key]
		},
		tell: func(k intent.Key, list []rows.Problem) { said[k] = list; writes++ }, show: func(n int) { shown = n },
		counts: map[intent.Key]int{}, told: map[intent.Key]string{},
	}
	of := func(network string, hardware, tc, kernel uint64, reasons ...offload.Code) offload.InterfaceReport {
		i := offload.InterfaceReport{Attached: offload.Attached{Port: "rep0", Pod: "demo/east", Interface: "net1", Network: network}}
		i.From.Hardware.Packets, i.From.TC.Packets, i.To.Kernel.Packets = hardware, tc, kernel
		for _, c := range reasons {
			i.Reasons = append(i.Reasons, offload.Counted{Reason: offload.Reason{Code: c}})
		}
		return i
	}
	report := func(list ...offload.InterfaceReport) *offload.Report {
		return &offload.Report{Window: &offload.Window{Seconds: 30}, Interfaces: list}
	}
	key := intent.Key{Kind: kindRequired, Name: "demo/east/demo/fast"}
	first := of("demo/fast", 0, 400, 600, offload.DriverRefused, offload.TooYoung)
	for _, step := range []struct {
		name  string
		r     *offload.Report
		says  string // part of what is told; "": nothing is
		shown int
	}{
		{"in hardware", report(of("demo/fast", 900, 10, 10)), "", 0},
		{"out once", report(first), "", 0},
		{"too little to tell", report(of("demo/fast", 0, 0, 50)), "", 0},
		{"out twice", report(first), "interface net1 by definition demo/fast, which requires offload, has fallen out of the NIC: driver-refused: ", 1},
		{"still, for another reason", report(of("demo/fast", 10, 400, 600, offload.TooYoung)), "driver-refused: ", 1},
		{"idle", report(of("demo/fast", 0, 0, 0)), "driver-refused: ", 1},
		{"a first reading", &offload.Report{Interfaces: []offload.InterfaceReport{of("demo/fast", 900, 0, 0)}}, "driver-refused: ", 1},
		{"back", report(of("demo/fast", 900, 10, 10)), "", 0},
		{"out again", report(first), "", 0},
		{"and back at once", report(of("demo/fast", 900, 10, 10)), "", 0},
		{"the node's own", &offload.Report{Reasons: []offload.Reason{{Code: offload.HWOffloadOff}}, Interfaces: []offload.InterfaceReport{of("demo/fast", 0, 0, 0)}}, "", 0},
		{"and still", &offload.Report{Reasons: []offload.Reason{{Code: offload.HWOffloadOff}}, Interfaces: []offload.InterfaceReport{of("demo/fast", 0, 0, 0)}}, "hw-offload-off: ", 1},
		{"gone", report(of("demo/any", 0, 0, 9000)), "", 0},
		{"that only prefers", report(of("demo/any", 0, 0, 9000)), "", 0},
	} {
		q.look(step.r)
		got := ""
		for _, p := range said[key] {
			if got = p.Message; p.Object != "Pod/demo/east" {
				t.Errorf("%s: said of %s", step.name, p.Object)
			}
		}
		if (got == "") != (step.says == "") || !strings.Contains(got, step.says) || shown != step.shown {
			t.Errorf("%s: told %q, %d out; want %q, %d", step.name, got, shown, step.says, step.shown)
		}
		if got != "" && !strings.Contains(got, offload.Explain(offload.Code(slices.Collect(strings.SplitSeq(got, ": "))[1])).Cure) {
			t.Errorf("%s: no cure in %q", step.name, got)
		}
	}
	if writes != 4 {
		t.Errorf("told %d times, want 4", writes)
	}
}
