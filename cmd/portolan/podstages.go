package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/inspect"
)

// since is a stage that is done.
func (f *podFinder) since(name string, at *time.Time) stage {
	s := stage{Name: name, State: stageDone, Since: at}
	if at != nil {
		s.Age = max(f.now.Sub(*at).Seconds(), 0.001)
	}
	return s
}

// stages are those of an interface, in order.
func (f *podFinder) stages(i inspect.PodInterface) []stage {
	out := []stage{f.bound(), f.allocated(i), f.prepared(i), f.written(i), f.installed(i), f.attached(i)}
	if s, ok := f.told(i); ok {
		out = append(out, s)
	}
	return out
}

func (f *podFinder) bound() stage {
	if f.object != nil {
		if c, ok := f.object.condition("PodScheduled"); ok {
			return f.since("bound", c.LastTransitionTime)
		}
	}
	return f.since("bound", nil)
}

func (f *podFinder) allocated(i inspect.PodInterface) stage {
	s := stage{Name: "allocated"}
	switch {
	case i.MAC != "":
		return f.since(s.Name, i.Allocated)
	case i.Waits != "" && i.Pending:
		s.State, s.Message = stageWaits, i.Waits
	case i.Waits != "":
		s.State, s.Message = stageFails, i.Waits
	default:
		s.State, s.Message = f.call("allocate")
	}
	return s
}

// call is what the CNI call says of an interface that is not so far: it may be at
// work, or have failed.
func (f *podFinder) call(stages ...string) (stageState, string) {
	c := f.agent.Call
	switch {
	case c == nil:
		return stagePending, ""
	case c.Ended == nil:
		return stageWaits, fmt.Sprintf("%s is in stage %s for %s", c.Command, c.Stage, age(f.now.Sub(c.Entered).Seconds()))
	case c.Error != "" && (len(stages) == 0 || slices.Contains(stages, c.Stage)):
		return stageFails, c.Error
	}
	return stagePending, ""
}

func (f *podFinder) prepared(i inspect.PodInterface) stage {
	if i.Prepared != nil || i.MAC != "" {
		return f.since("prepared", i.Prepared)
	}
	return stage{Name: "prepared", State: stagePending}
}

func (f *podFinder) written(i inspect.PodInterface) stage {
	s := stage{Name: "written", State: stagePending}
	switch {
	case i.Written == nil:
		s.State = stageUnknown
	case i.Row && *i.Written:
		return f.since(s.Name, nil)
	case i.MAC == "":
	default:
		s.State, s.Message = stageWaits, f.unwritten(i)
	}
	return s
}

// unwritten is why the logical port is not in the database.
func (f *podFinder) unwritten(i inspect.PodInterface) string {
	if i.Row {
		if len(f.agent.Waiting) == 0 {
			return "the transaction is under way"
		}
		g := f.agent.Waiting[0]
		return fmt.Sprintf("%s, for %s", waitsFor(cause(g), g.Error == ""), age(g.Age))
	}
	for _, p := range f.agent.Problems {
		if p.Severity == "error" {
			return p.Message
		}
	}
	if i.Network == "" {
		return "its definition " + i.Attachment + " is of no accepted network: portolan networks says which there are"
	}
	return "network " + i.Network + " is not rendered for this node yet: portolan networks " + i.Network + " says what is known of it"
}

func (f *podFinder) installed(i inspect.PodInterface) stage {
	s := stage{Name: "installed", State: stagePending}
	switch {
	case i.Port != "" && i.Missing == "":
		return f.since(s.Name, i.Installed)
	case i.Port != "":
		s.State, s.Message = stageWaits, i.Missing+" (port "+i.Port+")"
	}
	return s
}

func (f *podFinder) attached(i inspect.PodInterface) stage {
	s := stage{Name: "attached", State: stagePending}
	c := f.agent.Call
	switch {
	case i.Port != "" && i.Attached != nil:
		return f.since(s.Name, i.Attached)
	case i.Port != "" && i.Missing == "" && (c == nil || c.Ended != nil && c.Error == ""):
		return f.since(s.Name, nil)
	}
	if s.State, s.Message = f.call(); s.State == stagePending {
		s.Message = "the runtime has not asked for it (no CNI ADD since the agent's start)"
		if f.hasPort() {
			s.Message = "the pod's sandbox was made without it, and it has not been attached since: a running pod gets networks of Portolan's only, and only without Multus; else start it anew"
		}
	}
	return s
}

func (f *podFinder) hasPort() bool {
	return slices.ContainsFunc(f.agent.Interfaces, func(i inspect.PodInterface) bool { return i.Port != "" })
}

// told is whether network-status has the interface; ok is false where nobody asks for it.
func (f *podFinder) told(i inspect.PodInterface) (stage, bool) {
	if f.object == nil {
		return f.since("status", f.agent.Status), f.agent.Status != nil
	}
	list := f.object.statuses()
	if f.report.Asks == "" && len(list) == 0 {
		return stage{}, false
	}
	for _, s := range list {
		if s.Interface == i.Interface {
			return f.since("status", f.statusSince()), true
		}
	}
	return stage{Name: "status", State: stagePending}, true
}

// statusSince is when network-status was written last: as the agent says, else as the
// API server does.
func (f *podFinder) statusSince() *time.Time {
	if f.agent.Status != nil {
		return f.agent.Status
	}
	if f.object == nil {
		return nil
	}
	return f.object.wrote(multus.StatusAnnotation)
}

// write is the report for people.
func (r podReport) write(w io.Writer) {
	head := "pod " + r.Pod
	if r.Node != "" {
		head += " on " + r.Node
	}
	if r.Phase != "" {
		head += ", " + r.Phase
		if !r.Ready {
			head += ", not ready"
		}
	}
	fmt.Fprintln(w, head)
	if r.Asks != "" {
		fmt.Fprintf(w, "asks for %s\n", strings.Join(strings.Fields(r.Asks), " "))
	}
	if c := r.Call; c != nil && c.Ended == nil {
		fmt.Fprintf(w, "%s is in stage %s for %s, %s in all\n", c.Command, c.Stage, age(time.Since(c.Entered).Seconds()), age(time.Since(c.Began).Seconds()))
	}
	ifaces := table{head: []string{"INTERFACE", "NETWORK", "TOPOLOGY", "ADDRESSES", "MAC", "GATEWAY", "MTU", "VLAN", "BANDWIDTH"}}
	ports := table{head: []string{"INTERFACE", "BY", "OVS PORT", "OFPORT", "LOGICAL PORT", "SWITCH", "TUNNEL KEY"}}
	stages := table{head: []string{"INTERFACE", "BOUND", "ALLOCATED", "PREPARED", "WRITTEN", "INSTALLED", "ATTACHED", "STATUS"}}
	for _, i := range r.Interfaces {
		name := dash(i.Interface)
		network, topology := dash(i.Network), dash(i.Topology)
		if i.Foreign {
			network, topology = i.Attachment, "another plugin's"
		}
		ifaces.add(name, network, topology, dash(strings.Join(i.Addresses, " ")), dash(i.MAC), dash(strings.Join(i.Gateways, " ")), number(i.MTU), number(i.VLAN), bandwidth(i.Bandwidth))
		if !i.Foreign {
			ports.add(name, i.Attachment, dash(i.Port), number(i.OFPort), dash(i.LogicalPort), dash(i.Switch), number(i.TunnelKey))
		}
		cells := []string{name}
		for _, head := range stages.head[1:] {
			cells = append(cells, stageText(i.Stages, strings.ToLower(head)))
		}
		stages.add(cells...)
	}
	for _, t := range []table{ifaces, ports, stages} {
		if len(t.rows) > 0 {
			fmt.Fprintln(w)
		}
		t.write(w)
	}
	fmt.Fprintln(w)
	for _, i := range r.Interfaces {
		if text := deviceText(i.PodInterface); text != "" {
			fmt.Fprintf(w, "device %s: %s\n", dash(i.Interface), text)
		}
		if i.Offload != "" {
			fmt.Fprintf(w, "moved %s: %s\n", dash(i.Interface), i.Offload)
		}
	}
	for _, text := range r.Warnings {
		fmt.Fprintf(w, "note  %s\n", text)
	}
	for _, text := range r.Reasons {
		fmt.Fprintf(w, "why   %s\n", text)
	}
	if len(r.Reasons) == 0 {
		fmt.Fprintf(w, "nothing keeps it from talking, as far as Portolan knows; one packet: portolan ovn trace %s POD [--network NAME]\n", r.Pod)
	}
}

// stageText is a stage's age, or its state.
func stageText(list []stage, name string) string {
	for _, s := range list {
		switch {
		case s.Name != name:
		case s.State == stagePending, s.State == stageUnknown:
			return "-"
		case s.State != stageDone:
			return string(s.State)
		case s.Age > 0:
			return age(s.Age)
		default:
			return "yes"
		}
	}
	return "-"
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// bandwidth is a limit for people: in 10M, out 5M.
// deviceText is the device that an interface is, and why it is no better one; "": a veth
// pair that nobody wants otherwise.
func deviceText(i inspect.PodInterface) string {
	if i.Device == nil {
		return i.Fallback
	}
	parts := []string{i.Device.ID}
	for _, p := range []struct{ what, is string }{
		{"", i.Device.Kind}, {"of ", i.Device.PF}, {"mode ", i.Device.Mode}, {"representor ", i.Port}, {"pool ", i.Device.Pool}, {"resource ", i.Device.Resource},
	} {
		if p.is != "" {
			parts = append(parts, p.what+p.is)
		}
	}
	text := strings.Join(parts, ", ")
	if i.Fallback != "" {
		text += "; " + i.Fallback
	}
	return text
}

func bandwidth(b *inspect.Bandwidth) string {
	if b == nil {
		return "-"
	}
	var parts []string
	if b.Ingress > 0 {
		parts = append(parts, "in "+rate(b.Ingress))
	}
	if b.Egress > 0 {
		parts = append(parts, "out "+rate(b.Egress))
	}
	return dash(strings.Join(parts, ", "))
}

// rate is a number of bits a second as Kubernetes writes it.
func rate(bits int64) string {
	for _, u := range []struct {
		of   int64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if bits >= u.of && bits%u.of == 0 {
			return strconv.FormatInt(bits/u.of, 10) + u.name
		}
	}
	return strconv.FormatInt(bits, 10)
}
