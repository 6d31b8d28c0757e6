package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// nodeOffload is one node's answer.
type nodeOffload struct {
	Node  string `json:"node,omitempty"` // empty behind a socket
	Error string `json:"error,omitempty"`
	*offload.Report
	// Explanations are of all codes that the report has.
	Explanations []offload.Explanation `json:"explanations,omitempty"`
}

func offloadCommand() *cobra.Command {
	var o reach.Options
	var out output
	var q offload.Question
	cmd := &cobra.Command{
		Use:   "offload [NAMESPACE/POD|NODE]",
		Short: "Show where pods' packets are moved, NIC or software, and why not in the NIC",
		Long: `Offload asks agents where the packets of each interface of a pod are moved: in the NIC
(hardware), in the kernel's TC, in the kernel's Open vSwitch datapath, or in ovs-vswitchd (userspace); and if not in
the NIC, why. With NAMESPACE/POD it shows all of one pod, with NODE all of one node.

Packets are those between two readings of the node's flows; a node that reads none by itself makes two now, 2 s apart,
or as far apart as --for says. A packet counts once, at the slowest place of its way; flows count where they are. The codes are
explained below the table, and in docs/features/offload.md. A ping proves nothing: ICMP is not offloaded where
connections are tracked.`,
		Example: "  portolan offload\n  portolan offload demo/east --for 5s\n  kubectl portolan offload ovn-worker -o yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.For < 0 || q.For > offload.LongestFor {
				return fmt.Errorf("--for %s: wanted a time from 0s to %s", q.For, offload.LongestFor)
			}
			what := ""
			if len(args) == 1 {
				what = args[0]
			}
			q.Flows = true
			list, err := offloads(cmd.Context(), o, what, q)
			if err != nil {
				return err
			}
			return out.print(cmd.OutOrStdout(), list, func(w io.Writer) { printOffload(w, list, what != "" || len(list) == 1) })
		},
	}
	cmd.Flags().DurationVar(&q.For, "for", 0, "`time` between two readings; default: since the reading before")
	cmd.Flags().BoolVar(&q.Detail, "detail", false, "also TC's own counters of each device, and how many connections are in hardware")
	o.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// offloads asks those who are meant: of a pod its node, of a node that node, else all.
// That one of several does not answer is in its place.
func offloads(ctx context.Context, o reach.Options, what string, q offload.Question) ([]nodeOffload, error) {
	if strings.Contains(what, "/") {
		q.Pod = what
	} else if what != "" && o.Node == "" && o.Socket == "" {
		o.Node = what
	}
	r, err := reach.Open(o)
	if err != nil {
		return nil, err
	}
	var agents []reach.Agent
	if q.Pod != "" && !r.Local() && !r.Named() {
		p, err := readPod(ctx, r, q.Pod)
		if err != nil {
			return nil, err
		}
		if p.Spec.NodeName == "" {
			return nil, fmt.Errorf("pod %s is on no node yet: portolan pod %s says why", q.Pod, q.Pod)
		}
		a, err := r.On(ctx, p.Spec.NodeName)
		if err != nil {
			return nil, err
		}
		agents = []reach.Agent{a}
	} else if agents, err = r.Agents(ctx); err != nil {
		return nil, err
	}
	out := make([]nodeOffload, 0, len(agents))
	var errs []error
	for _, a := range agents {
		n := nodeOffload{Node: a.Node}
		err := a.Err
		if err == nil {
			n.Report, err = offloadOf(ctx, a, q)
		}
		if err != nil {
			n.Error = err.Error()
			errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(a.Node, "this node"), err))
		} else {
			n.Explanations = meanings(n.Report)
		}
		out = append(out, n)
	}
	if len(errs) == len(out) {
		return nil, errors.Join(errs...)
	}
	return out, nil
}

// offloadOf asks one agent.
func offloadOf(ctx context.Context, a reach.Agent, q offload.Question) (*offload.Report, error) {
	body, err := inspect.NewClient(a.Transport).Get(ctx, offload.Path, q.Values())
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var r offload.Report
	if err := json.NewDecoder(body).Decode(&r); err != nil {
		return nil, fmt.Errorf("the answer cannot be read; is the agent of another version? %w", err)
	}
	return &r, nil
}

// meanings are the explanations of what a report has, in the order of all.
func meanings(r *offload.Report) []offload.Explanation {
	has := map[offload.Code]bool{}
	for _, reason := range r.Reasons {
		has[reason.Code] = true
	}
	for _, i := range r.Interfaces {
		for _, c := range i.Reasons {
			has[c.Code] = true
		}
	}
	return slices.DeleteFunc(offload.Reasons(), func(e offload.Explanation) bool { return !has[e.Code] })
}

// printOffload is for people: a line an interface, and what the codes mean. detail: also
// how much of each place, and every reason.
func printOffload(w io.Writer, list []nodeOffload, detail bool) {
	var meant []offload.Explanation
	for n, node := range list {
		if n > 0 {
			fmt.Fprintln(w)
		}
		name := cmp.Or(node.Node, "this node")
		if node.Error != "" {
			fmt.Fprintf(w, "%s: no answer: %s\n", name, node.Error)
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", name, nodeLine(node.Report))
		for _, r := range node.Reasons {
			fmt.Fprintf(w, "  no flow can be in hardware: %s\n", reasonText(r))
		}
		if node.Reading.Skipped != "" {
			fmt.Fprintf(w, "  flows: %s\n", node.Reading.Skipped)
		}
		if node.Reading.Unread > 0 {
			fmt.Fprintf(w, "  %s could not be read: is Open vSwitch of another version?\n", count(node.Reading.Unread, "flow"))
		}
		writeInterfaces(w, node.Report)
		if detail {
			writeReasons(w, node.Report)
		}
		for _, e := range node.Explanations {
			if !slices.Contains(meant, e) {
				meant = append(meant, e)
			}
		}
	}
	if len(meant) > 0 {
		fmt.Fprintln(w)
	}
	for _, e := range meant {
		fmt.Fprintf(w, "%s: %s\n  %s\n", e.Code, e.Meaning, e.Cure)
	}
}

// nodeLine is what there is to know of a node.
func nodeLine(r *offload.Report) string {
	parts := []string{"datapath " + r.Datapath, "hw-offload " + map[bool]string{true: "on", false: "off"}[r.Switch.HWOffload]}
	if r.Switch.HWOffload && r.Switch.TCPolicy != "" {
		parts = append(parts, "tc-policy "+r.Switch.TCPolicy)
	}
	if r.Reading.Skipped == "" {
		parts = append(parts, count(r.Reading.Flows, "flow")+fmt.Sprintf(" read in %.1f ms", r.Reading.Milliseconds))
	}
	if r.Window != nil {
		parts = append(parts, fmt.Sprintf("packets of the last %s", age(r.Window.Seconds)))
	} else {
		parts = append(parts, "packets not counted")
	}
	if c := r.Connections; c != nil && c.Known {
		parts = append(parts, fmt.Sprintf("%s, %d in hardware, %d in a flow table of software", count(c.All, "connection"), c.Hardware, c.Software))
	}
	return strings.Join(parts, ", ")
}

// writeInterfaces is a line for each interface.
func writeInterfaces(w io.Writer, r *offload.Report) {
	t := table{head: []string{"POD", "INTERFACE", "PORT", "DEVICE", "PACKETS ARE", "PACKETS", "HARDWARE", "TC", "KERNEL", "USERSPACE", "FLOWS", "IN HARDWARE", "WHY NOT"}}
	for _, i := range r.Interfaces {
		both := i.From
		for _, p := range offload.Places() {
			at, to := both.At(p), i.To.At(p)
			at.Flows, at.Packets = at.Flows+to.Flows, at.Packets+to.Packets
		}
		sum := both.Sum()
		cells := []string{i.Pod, dash(i.Interface), i.Port, string(i.Device.Kind), verdictText(i.Verdict)}
		if r.Window == nil {
			cells = append(cells, "-", "-", "-", "-", "-")
		} else {
			cells = append(cells, fmt.Sprint(sum.Packets))
			for _, p := range offload.Places() {
				cells = append(cells, percent(both.At(p).Packets, sum.Packets))
			}
		}
		t.add(append(cells, fmt.Sprint(sum.Flows), fmt.Sprint(both.Hardware.Flows), dash(codes(i.Reasons)))...)
	}
	t.write(w)
}

// verdictText is a verdict for people.
func verdictText(v offload.Verdict) string {
	switch v {
	case offload.InHardware:
		return "in hardware"
	case offload.InSoftware:
		return "in software"
	case offload.Partly:
		return "partly in hardware"
	}
	return "idle"
}

// writeReasons is every reason, with how much it holds for.
func writeReasons(w io.Writer, r *offload.Report) {
	t := table{head: []string{"POD", "INTERFACE", "WHY NOT", "FLOWS", "PACKETS", "ONE FLOW"}}
	for _, i := range r.Interfaces {
		for _, c := range i.Reasons {
			flows, packets := "all", "-"
			if c.Flows > 0 {
				flows, packets = fmt.Sprint(c.Flows), fmt.Sprint(c.Packets)
			}
			t.add(i.Pod, dash(i.Interface), reasonText(c.Reason), flows, packets, dash(c.Example))
		}
		if i.TC != nil {
			t.add(i.Pod, dash(i.Interface), fmt.Sprintf("(TC: %d of %s in hardware, %d refused; %d packets by hardware, %d by software)",
				i.TC.InHardware, count(i.TC.Filters, "filter"), i.TC.Refused, i.TC.HardwarePackets, i.TC.SoftwarePackets))
		}
	}
	if len(t.rows) > 0 {
		fmt.Fprintln(w)
	}
	t.write(w)
}

func reasonText(r offload.Reason) string {
	if r.Detail == "" {
		return string(r.Code)
	}
	return string(r.Code) + " (" + r.Detail + ")"
}

// codes are the first of an interface's reasons, each once.
func codes(list []offload.Counted) string {
	var out []string
	for _, c := range list {
		if !slices.Contains(out, string(c.Code)) {
			out = append(out, string(c.Code))
		}
	}
	if len(out) > 3 {
		out = append(out[:3], "…")
	}
	return strings.Join(out, ",")
}

// percent is a share for people; of nothing it is none.
func percent(part, whole uint64) string {
	switch {
	case whole == 0:
		return "-"
	case part == whole:
		return "100%"
	}
	// Not quite all is not all.
	return fmt.Sprintf("%.1f%%", min(99.9, 100*float64(part)/float64(whole)))
}

// offloadSentence is an interface in one line, for the pod's own view.
func offloadSentence(r *offload.Report, i offload.InterfaceReport) string {
	text := verdictText(i.Verdict)
	if i.Verdict == offload.Idle && len(i.Reasons) > 0 {
		text = "in software, no flows read"
	}
	if r.Window != nil && i.Verdict != offload.Idle {
		text += fmt.Sprintf(" in the %s before %s", age(r.Window.Seconds), r.Reading.At.UTC().Format(time.TimeOnly))
	}
	if why := codes(i.Reasons); why != "" {
		text += ": " + why
	}
	return text
}
