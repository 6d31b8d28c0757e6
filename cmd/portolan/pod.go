package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// podReport is how far a pod has come, and what keeps it from going on.
type podReport struct {
	Pod        string            `json:"pod"`
	UID        string            `json:"uid,omitempty"`
	Node       string            `json:"node,omitempty"`
	Phase      string            `json:"phase,omitempty"`
	Ready      bool              `json:"ready"`
	Asks       string            `json:"asks,omitempty"` // its annotation k8s.v1.cni.cncf.io/networks
	Call       *inspect.PodCall  `json:"call,omitempty"` // the CNI call that runs, or the last
	Interfaces []interfaceReport `json:"interfaces"`
	// Reasons are why it does not start, or cannot talk; empty: none is known.
	Reasons []string `json:"reasons"`
	// Warnings do not keep it from talking.
	Warnings []string `json:"warnings,omitempty"`
}

// interfaceReport is one interface with its stages.
type interfaceReport struct {
	inspect.PodInterface
	// Foreign says that another plugin has made it: all that is known is its status.
	Foreign bool `json:"foreign,omitempty"`
	// Offload is where its packets are moved, and why not in a NIC; empty: not known.
	Offload string  `json:"offload,omitempty"`
	Stages  []stage `json:"stages"`
}

// stage is one step of an interface from the scheduler to the pod.
type stage struct {
	Name    string     `json:"name"`
	State   stageState `json:"state"`
	Since   *time.Time `json:"since,omitempty"`
	Age     float64    `json:"age,omitempty"` // seconds; 0: not known
	Message string     `json:"message,omitempty"`
}

type stageState string

// The states of a stage.
const (
	stageDone    stageState = "done"
	stageWaits   stageState = "waits"
	stageFails   stageState = "fails"
	stagePending stageState = "pending" // its turn has not come
	stageUnknown stageState = "unknown"
)

func podCommand() *cobra.Command {
	var o reach.Options
	var out output
	cmd := &cobra.Command{
		Use:   "pod NAMESPACE/NAME",
		Short: "Show a pod's interfaces, and why it does not start or cannot talk",
		Long: `Pod prints every interface of a pod: its network, addresses, MAC, gateway, the ports
of Open vSwitch and OVN, tunnel key, VLAN, MTU and bandwidth; and how far it has come, with the age of
each stage:

  bound      the scheduler has chosen the node
  allocated  it has its addresses
  prepared   OVN could begin before the runtime asked
  written    its logical port is in the northbound database
  installed  ovn-controller has its flows
  attached   the interface is in the pod
  status     network-status says so

Below it says what keeps the pod from starting or from talking. The exit status is 0 if
nothing does, 1 if something does, 2 if it cannot be told.`,
		Example: "  portolan pod demo/east\n  kubectl portolan pod demo/east -o yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if namespace, name, ok := strings.Cut(args[0], "/"); !ok || namespace == "" || name == "" {
				return unknown(fmt.Errorf("%q: wanted NAMESPACE/NAME", args[0]))
			}
			r, err := reach.Open(o)
			if err != nil {
				return unknown(err)
			}
			report, err := podOf(cmd.Context(), r, args[0])
			if err != nil {
				return unknown(err)
			}
			if err := out.print(cmd.OutOrStdout(), report, func(w io.Writer) { report.write(w) }); err != nil {
				return unknown(err)
			}
			if len(report.Reasons) > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	o.AddFlags(cmd.Flags())
	out.addFlag(cmd.Flags())
	return cmd
}

// podOf asks all who know of a pod.
func podOf(ctx context.Context, r *reach.Reach, name string) (podReport, error) {
	f := podFinder{report: podReport{Pod: name, Interfaces: []interfaceReport{}, Reasons: []string{}}, now: time.Now()}
	if r.Local() {
		a, err := r.Agent(ctx)
		if err != nil {
			return f.report, err
		}
		if f.agent, err = inspect.NewClient(a.Transport).Pod(ctx, name); err != nil {
			return f.report, err
		}
		f.offloaded(ctx, a)
		f.conclude()
		return f.report, nil
	}
	var err error
	if f.object, err = readPod(ctx, r, name); err != nil {
		return f.report, err
	}
	if !f.elsewhere() {
		if err := f.ask(ctx, r); err != nil {
			return f.report, err
		}
	}
	f.conclude()
	if len(f.report.Reasons) == 0 && !f.report.Ready && f.object != nil {
		f.events(ctx, r)
	}
	return f.report, nil
}

// podFinder collects what is known of a pod.
type podFinder struct {
	report podReport
	object *podObject // the API server's; nil behind a socket
	agent  inspect.Pod
	places map[string]string // by interface: where its packets are moved
	known  bool              // its agent has answered
	now    time.Time
}

func (f *podFinder) reason(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(f.report.Reasons, text) {
		f.report.Reasons = append(f.report.Reasons, text)
	}
}

// elsewhere tells whether the pod has nothing to do with Portolan, now.
func (f *podFinder) elsewhere() bool {
	p := f.object
	f.report.UID, f.report.Node, f.report.Phase, f.report.Asks = p.Metadata.UID, p.Spec.NodeName, p.Status.Phase, p.Metadata.Annotations[multus.NetworksAnnotation]
	ready, _ := p.condition("Ready")
	f.report.Ready = ready.Status == "True"
	switch {
	case p.Spec.NodeName == "":
		scheduled, _ := p.condition("PodScheduled")
		f.reason("the scheduler has not chosen a node: %s", dash(scheduled.Message))
	case p.Spec.HostNetwork:
		f.report.Warnings = append(f.report.Warnings, "it is on the network of node "+p.Spec.NodeName+" (hostNetwork), so it has no interface of Portolan's")
	case p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed":
		f.reason("it has ended (%s): its addresses are not its own any more", p.Status.Phase)
	default:
		return false
	}
	return true
}

// ask asks the agent of the pod's node, and in a global zone who writes the pod's rows.
func (f *podFinder) ask(ctx context.Context, r *reach.Reach) error {
	a, err := r.On(ctx, f.report.Node)
	if err != nil {
		f.reason("the agent of node %s does not answer: %v", f.report.Node, err)
		return nil
	}
	client := inspect.NewClient(a.Transport)
	f.agent, err = client.Pod(ctx, f.report.Pod)
	var answer *inspect.AnswerError
	switch {
	case errors.As(err, &answer) && answer.Code == http.StatusNotFound:
		f.reason("the agent of node %s does not know it: the API server's watch has not delivered it there (the agent's log says why)", f.report.Node)
	case err != nil:
		f.reason("the agent of node %s does not answer: %v", f.report.Node, err)
		return nil
	default:
		f.known = true
		f.offloaded(ctx, a)
	}
	if st, err := client.Status(ctx); err == nil {
		f.health(st)
	}
	writer, err := writing(ctx, r)
	if err != nil || len(writer) == 0 {
		return err
	}
	central := inspect.NewClient(writer[0].Transport)
	if st, err := central.Status(ctx); err == nil {
		f.health(st)
	}
	far, err := central.Pod(ctx, f.report.Pod)
	if err != nil {
		f.reason("the zone's controller: %v", err)
		return nil
	}
	f.join(far)
	return nil
}

// offloaded asks where the pod's packets are moved, without having flows read for it. An
// agent that cannot say it says nothing of why a pod does not start.
func (f *podFinder) offloaded(ctx context.Context, a reach.Agent) {
	r, err := offloadOf(ctx, a, offload.Question{Pod: f.report.Pod})
	if err != nil {
		return
	}
	f.places = map[string]string{}
	for _, i := range r.Interfaces {
		f.places[i.Port] = offloadSentence(r, i)
	}
}

// join adds what the process knows that writes the pod's rows.
func (f *podFinder) join(far inspect.Pod) {
	for n := range f.agent.Interfaces {
		i := &f.agent.Interfaces[n]
		for _, j := range far.Interfaces {
			if j.Attachment == i.Attachment {
				i.Row, i.Written, i.Switch = j.Row, j.Written, j.Switch
			}
		}
	}
	f.agent.Waiting = append(f.agent.Waiting, far.Waiting...)
	f.agent.Problems = append(f.agent.Problems, far.Problems...)
}

// health says what of a process keeps pods from starting or talking.
func (f *podFinder) health(st inspect.Status) {
	who := "node " + st.Node
	if st.Node == "" {
		who = st.Process
	}
	if !st.Ready {
		f.reason("%s is not ready: %s", who, st.NotReady)
	}
	for _, d := range st.Databases {
		if !d.Up {
			f.reason("%s: database %s is down: %s", who, d.Name, dash(d.Error))
		}
	}
}

// conclude makes the report of what was found.
func (f *podFinder) conclude() {
	r := &f.report
	if f.object == nil {
		r.UID, r.Node, r.Asks, f.known = f.agent.UID, f.agent.Node, f.agent.Selection, true
	}
	r.Call = f.agent.Call
	if f.agent.Refused != "" {
		f.reason("its annotation cannot be read: %s", f.agent.Refused)
	}
	if f.known {
		for _, i := range f.agent.Interfaces {
			r.Interfaces = append(r.Interfaces, interfaceReport{PodInterface: i, Offload: f.places[i.Port], Stages: f.stages(i)})
		}
	}
	f.foreign()
	held := slices.ContainsFunc(r.Interfaces, interfaceReport.held)
	for _, i := range r.Interfaces {
		f.stuck(i, held)
	}
	for _, p := range f.agent.Problems {
		text := fmt.Sprintf("%s %s: %s", p.Object, p.Field, p.Message)
		if p.Severity != "error" {
			r.Warnings = append(r.Warnings, text)
		} else if !slices.ContainsFunc(r.Reasons, func(known string) bool { return strings.Contains(known, p.Message) }) {
			f.reason("%s", text)
		}
	}
	if c := r.Call; c != nil && c.Ended != nil && c.Error != "" &&
		!slices.ContainsFunc(r.Reasons, func(known string) bool { return strings.Contains(c.Error, lastPart(known)) }) {
		f.reason("the last CNI call, %s ago: %s", age(f.now.Sub(*c.Ended).Seconds()), c.Error)
	}
}

// lastPart is what a reason says, without whom it is of.
func lastPart(reason string) string {
	if _, rest, ok := strings.Cut(reason, ": "); ok {
		return rest
	}
	return reason
}

// foreign adds the interfaces that other plugins have made, as network-status has them.
func (f *podFinder) foreign() {
	for _, s := range f.object.statuses() {
		if slices.ContainsFunc(f.report.Interfaces, func(i interfaceReport) bool { return i.Interface == s.Interface }) || s.Interface == "" {
			continue
		}
		i := interfaceReport{Foreign: true, PodInterface: inspect.PodInterface{
			Attachment: s.Name, Interface: s.Interface, Addresses: s.IPs, MAC: s.MAC, MTU: s.MTU, Gateways: s.Gateway,
		}}
		i.Stages = []stage{f.since("status", f.statusSince())}
		f.report.Interfaces = append(f.report.Interfaces, i)
	}
}

// held tells whether something keeps the interface before it can be attached.
func (i interfaceReport) held() bool {
	return slices.ContainsFunc(i.Stages, func(s stage) bool {
		return s.Name != "attached" && (s.State == stageWaits || s.State == stageFails)
	})
}

// stuck says where an interface does not go on. Interfaces are attached all in one call:
// where one is held, that the others wait for it says nothing.
func (f *podFinder) stuck(i interfaceReport, held bool) {
	name := i.Interface
	if name == "" {
		name = i.Attachment
	}
	if i.Attachment != intent.DefaultNetwork && !strings.Contains(name, "/") {
		name += " (" + i.Attachment + ")"
	}
	for _, s := range i.Stages {
		if s.Name == "attached" && held {
			return
		}
		switch s.State {
		case stageWaits, stageFails:
			f.reason("%s is not %s: %s", name, s.Name, s.Message)
			return
		case stagePending:
			if s.Message != "" {
				f.reason("%s is not %s: %s", name, s.Name, s.Message)
				return
			}
		}
	}
}
