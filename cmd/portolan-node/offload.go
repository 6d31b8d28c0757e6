package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/daemon"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/metrics"
)

// The pace of readings. One costs ovs-vswitchd's main thread the time of a dump, so a
// pause is a hundred times as long as the dump before at least.
const (
	observeEvery = 30 * time.Second
	observeShare = 100
	// firstWindow is between the two readings of an answer where none was made before.
	firstWindow = 2 * time.Second
	// observeTimeout bounds a reading.
	observeTimeout = 20 * time.Second
)

// machineProbe is the machine, as offload asks it: *offload.Machine.
type machineProbe interface {
	offload.Probe
	Connections() (offload.Connections, error)
}

// offloading observes where this node's packets are moved.
type offloading struct {
	plan     intent.Offload
	datapath intent.Datapath
	every    time.Duration
	selected func(intent.Labels) bool                  // the node's labels match
	ports    func(context.Context) ([]cni.Port, error) // of pods
	filters  func(string) (offload.TCCount, error)     // offload.TCCounts
	figures  *metrics.Offload
	machine  machineProbe
	required *requiring // nil: nobody is told

	mu       sync.Mutex // guards the rest; it is held while a reading is made
	observer *offload.Observer
	read     bool // the observer has a reading, which is not older than two pauses
	readAt   time.Time

	told sync.Mutex      // guards last
	last *offload.Report // of all interfaces; nil: none
}

// newOffloading makes the observer of an agent.
func newOffloading(a *agent) *offloading {
	machine := offload.NewMachine(a.cfg.HostRoot)
	name := offload.SystemDatapath
	if a.facts.datapath == intent.UserspaceDatapath {
		name = offload.NetdevDatapath
	}
	every := observeEvery
	if s := a.facts.spec.Spec.Offload; s != nil && s.ObserveSeconds > 0 {
		every = time.Duration(s.ObserveSeconds) * time.Second
	}
	return &offloading{
		plan: a.facts.plan.Offload, datapath: a.facts.datapath, every: every, selected: a.physical.selected, filters: offload.TCCounts,
		ports: func(ctx context.Context) ([]cni.Port, error) { return a.ports.List(ctx) }, figures: a.health.offload, machine: machine, required: newRequiring(a),
		observer: &offload.Observer{
			Switch: offload.Control{RunDir: daemon.OVSRun}, Database: offload.Socket{Endpoint: a.cfg.OVS}, Probe: machine, Datapath: name,
		},
	}
}

// wanted tells whether the plan has this node's flows offloaded.
func (o *offloading) wanted() bool {
	switch o.plan.Mode {
	case "", intent.OffloadOff:
		return false
	}
	return o.selected(o.plan.Nodes)
}

// run reads at once, and every so often, where flows are offloaded: the plan wants it, or Open
// vSwitch is told to. The userspace datapath is read for who asks only, since its packets wait.
func (o *offloading) run(ctx context.Context) error {
	failed := ""
	for {
		pause := o.every
		r, err := o.turn(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			o.figures.Failed()
			if failed != err.Error() { // one line a change
				failed = err.Error()
				slog.Warn("offload is not observed", "err", err)
			}
		default:
			failed = ""
			pause = max(pause, observeShare*time.Duration(r.Reading.Milliseconds*float64(time.Millisecond)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// turn makes one reading if somebody's flows may be offloaded, or says without one why
// nobody's are.
func (o *offloading) turn(ctx context.Context) (*offload.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	all, err := o.attached(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r, err := o.observer.Look(ctx, all)
	if err != nil {
		return nil, err
	}
	if o.datapath != intent.UserspaceDatapath && r.Switch.Running && (o.wanted() || r.Switch.HWOffload) {
		r, err = o.reading(ctx, all)
	} else {
		o.figures.Reading(figuresOf(r))
	}
	if err == nil {
		o.tell(r)
		if o.required != nil {
			o.required.look(r)
		}
	}
	return r, err
}

// reading makes one, and counts it, for whomever it is made: the next counts from here.
// o.mu is held.
func (o *offloading) reading(ctx context.Context, all []offload.Attached) (*offload.Report, error) {
	r, err := o.observer.Observe(ctx, all)
	if err == nil {
		o.read, o.readAt = r.Reading.Skipped == "", time.Now()
		o.figures.Reading(figuresOf(r))
	}
	return r, err
}

// answer answers a question.
func (o *offloading) answer(ctx context.Context, q offload.Question) (*offload.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout+offload.LongestFor)
	defer cancel()
	if last := o.lastReport(); !q.Flows && !q.Detail && last != nil && len(last.Of(q.Pod).Interfaces) > 0 {
		return last.Of(q.Pod), nil
	}
	all, err := o.attached(ctx)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var r *offload.Report
	if !q.Flows {
		r, err = o.observer.Look(ctx, all)
	} else if r, err = o.asked(ctx, q.For, all); err == nil {
		o.tell(r)
	}
	if err != nil {
		return nil, err
	}
	r = r.Of(q.Pod)
	if q.Detail {
		r = o.detail(r)
	}
	return r, nil
}

// asked makes the reading of a question, and one before it where there is no recent
// one, or a window of its own is asked for; o.mu is held.
func (o *offloading) asked(ctx context.Context, window time.Duration, all []offload.Attached) (*offload.Report, error) {
	if since := time.Since(o.readAt); window == 0 && (!o.read || since > 2*o.every || since < time.Second) {
		window = firstWindow
	}
	if window > 0 {
		r, err := o.reading(ctx, all)
		if err != nil || r.Reading.Skipped != "" {
			return r, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(window):
		}
	}
	return o.reading(ctx, all)
}

// detail adds what is asked of the kernel for a person only. A device that cannot be
// asked has no counters.
func (o *offloading) detail(r *offload.Report) *offload.Report {
	out := *r
	out.Interfaces = slices.Clone(r.Interfaces)
	for n := range out.Interfaces {
		if c, err := o.filters(out.Interfaces[n].Port); err == nil && c.Filters > 0 {
			out.Interfaces[n].TC = &c
		}
	}
	if o.datapath != intent.UserspaceDatapath {
		if c, err := o.machine.Connections(); err == nil {
			out.Connections = &c
		}
	}
	return &out
}

// attached are the pods' interfaces.
func (o *offloading) attached(ctx context.Context) ([]offload.Attached, error) {
	list, err := o.ports(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]offload.Attached, 0, len(list))
	for _, p := range list {
		out = append(out, offload.Attached{Port: p.Name, Pod: p.Pod.Namespace + "/" + p.Pod.Name, Interface: p.IfName, Network: p.Network})
	}
	return out, nil
}

func (o *offloading) tell(r *offload.Report) {
	o.told.Lock()
	defer o.told.Unlock()
	o.last = r
}

func (o *offloading) lastReport() *offload.Report {
	o.told.Lock()
	defer o.told.Unlock()
	return o.last
}

// condition is what the NodeNetwork says of offload; nil where the plan has none for
// this node, or nothing is known yet.
func (o *offloading) condition() *v1alpha1.Condition {
	r := o.lastReport()
	if !o.wanted() || r == nil || !r.Switch.Running {
		return nil
	}
	if len(r.Reasons) == 0 || r.Reasons[0].Code == offload.TCPolicy && o.plan.Mode == intent.OffloadSoftware {
		return &v1alpha1.Condition{
			Type: v1alpha1.ConditionOffload, Status: "True", Reason: v1alpha1.ReasonOffloading,
			Message: "ovs-vswitchd hands flows to TC; portolan offload says of each pod where they are",
		}
	}
	e := offload.Explain(r.Reasons[0].Code)
	return &v1alpha1.Condition{Type: v1alpha1.ConditionOffload, Status: "False", Reason: camel(string(e.Code)), Message: e.Meaning + " " + e.Cure}
}

// camel is a code as conditions have their reasons: restart-needed is RestartNeeded.
func camel(code string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(code, "-") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}

// figuresOf are a report's figures.
func figuresOf(r *offload.Report) metrics.OffloadReading {
	f := metrics.OffloadReading{
		Places: map[string]metrics.OffloadPlace{}, Verdicts: map[string]int{}, Reasons: map[string]int{},
		Milliseconds: r.Reading.Milliseconds, Skipped: r.Reading.Skipped != "",
	}
	for _, p := range offload.Places() {
		at := r.Total.At(p)
		f.Places[string(p)] = metrics.OffloadPlace{Flows: at.Flows, Packets: at.Packets}
	}
	for _, i := range r.Interfaces {
		f.Verdicts[string(i.Verdict)]++
		seen := map[offload.Code]bool{}
		for _, c := range i.Reasons {
			if !seen[c.Code] {
				f.Reasons[string(c.Code)]++
			}
			seen[c.Code] = true
		}
	}
	return f
}
