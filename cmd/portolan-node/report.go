package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/held"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/version"
)

// The pace of reporting. A start on a node that is as it was must say nothing: what
// is not ready yet after a start is told only once it has had time to be.
const (
	reportEvery   = 5 * time.Second
	startingGrace = 30 * time.Second
	reportTimeout = 10 * time.Second // of the last report of an agent that ends
)

// networkWriter writes the NodeNetwork: *kube.NodeNetworkWriter.
type networkWriter interface {
	Run(ctx context.Context) error
	Declare(s v1alpha1.NodeNetworkStatus)
}

// reporter keeps the node's NodeNetwork.
type reporter struct {
	writer networkWriter
	look   func(context.Context) (view, bool) // false: nothing can be said yet
	now    func() time.Time

	seen map[[2]string]bool // unit and database that waited at the last look
}

// view is what the agent knows of itself at one moment.
type view struct {
	facts    facts
	notReady error // nil: ready
	report   ovsdb.Report
	problems []rows.Problem // of the host and the door
	wires    []host.WireState
	pools    []v1alpha1.NodeDevicePool
	offload  *v1alpha1.Condition // nil: nothing is said of it
	runs     kube.Allocation     // zero: not known yet
}

// run looks every few seconds and declares what has changed, until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = r.writer.Run(ctx) }) // ends with ctx alone
	began, looks := r.now(), 0
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		if v, ok := r.look(ctx); ok {
			s := v.status(r.lasting(v.report.Statuses))
			if v.notReady == nil {
				looks++
			}
			// The first look after a start may come before all that lasts has shown.
			if looks > 1 || r.now().Sub(began) >= startingGrace {
				r.writer.Declare(s)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// lasting keeps the groups that waited at the last look too: most wait for a
// moment, and are nobody's concern.
func (r *reporter) lasting(list []engine.Status) []engine.Status {
	now := map[[2]string]bool{}
	var out []engine.Status
	for _, s := range list {
		key := [2]string{s.Group, string(s.DB)}
		now[key] = true
		if r.seen[key] {
			out = append(out, s)
		}
	}
	r.seen = now
	return out
}

// status is the view as the NodeNetwork says it; waiting are the groups that
// have waited for a while.
func (v view) status(waiting []engine.Status) v1alpha1.NodeNetworkStatus {
	s := v.facts.network()
	s.Allocation = v.runs.Said()
	if s.SetReady(); v.notReady != nil {
		s.SetNotReady(v1alpha1.ReasonStarting, v.notReady.Error())
	}
	if v.offload != nil {
		s.Conditions = append(s.Conditions, *v.offload)
	}
	for _, db := range []rows.DB{rows.NB, rows.OVS, rows.SB} {
		if state, ok := v.report.Databases[db]; ok {
			d := v1alpha1.DatabaseStatus{Name: string(db), Up: state.Up}
			if !d.Up {
				d.Message = state.Err
			}
			s.Databases = append(s.Databases, d)
		}
	}
	for _, w := range v.wires {
		s.PhysicalNetworks = append(s.PhysicalNetworks, v1alpha1.NodePhysicalNetwork{
			Name: w.Network, Bridge: w.Bridge, Ready: w.Ready, Message: clip(w.Message),
		})
	}
	for _, p := range v.pools {
		p.Message, p.Steps = clip(p.Message), p.Steps[:min(len(p.Steps), v1alpha1.MaxPoolSteps)]
		s.DevicePools = append(s.DevicePools, p)
	}
	problems := slices.Concat(v.problems, v.report.Problems)
	for _, w := range waiting {
		if refusal, ok := w.Refusal(); ok {
			problems = append(problems, rows.Problem{Object: compile.ObjectOf(w.Group).String(), Severity: rows.Error, Message: refusal})
		}
		cause := w.Failure.Err
		if cause == "" {
			cause = "waiting on " + strings.Join(w.Waiting, ", ")
		}
		s.Waiting = append(s.Waiting, v1alpha1.WaitingUnit{Unit: w.Group, Database: string(w.DB), Cause: clip(cause)})
	}
	s.Problems = objectProblems(problems)
	s.WaitingCount, s.ProblemCount = len(s.Waiting), len(s.Problems)
	s.Waiting = s.Waiting[:min(len(s.Waiting), v1alpha1.MaxWaitingUnits)]
	s.Problems = s.Problems[:min(len(s.Problems), v1alpha1.MaxNodeProblems)]
	return s
}

// clipped bounds a text that databases and daemons wrote, in bytes.
const clipped = 512

func clip(s string) string {
	if len(s) > clipped {
		return strings.ToValidUTF8(s[:clipped], "") + "…"
	}
	return s
}

// objectProblems are problems as the API has them, sorted, each once.
func objectProblems(list []rows.Problem) []v1alpha1.ObjectProblem {
	out := make([]v1alpha1.ObjectProblem, 0, len(list))
	for _, p := range list {
		out = append(out, v1alpha1.ObjectProblem{Object: p.Object, Field: p.Field, Severity: string(p.Severity), Message: p.Message})
	}
	slices.SortFunc(out, func(a, b v1alpha1.ObjectProblem) int {
		return strings.Compare(a.Object+" "+a.Field+" "+a.Message, b.Object+" "+b.Field+" "+b.Message)
	})
	return slices.Compact(out)
}

// network is what was found out about the machine, as the NodeNetwork says it.
func (f facts) network() v1alpha1.NodeNetworkStatus {
	s := v1alpha1.NodeNetworkStatus{
		Datapath: string(f.datapath), DatapathReason: f.reason, Chassis: f.chassis,
		NIC: f.gateway.NIC, Bridge: f.gateway.Bridge, Version: version.String(),
	}
	for _, ip := range f.allEncapIPs() {
		s.EncapIPs = append(s.EncapIPs, ip.String())
	}
	if f.plan != nil {
		s.Zone, s.PodMTU = f.plan.Zone, f.plan.MTU
	}
	return s
}

// view looks at the agent's parts, as far as they are there.
func (a *agent) view(ctx context.Context) (view, bool) {
	v := view{facts: a.facts, notReady: a.health.ready(), runs: a.held.Allocation()}
	if !a.connected.Load() {
		return v, true
	}
	ctx, cancel := context.WithTimeout(ctx, reportEvery)
	defer cancel()
	var err error
	if v.report, err = a.driver.Report(ctx); err != nil {
		return v, false
	}
	v.problems, v.wires, v.pools, v.offload = a.problems(), a.wires.States(), a.poolStates(), a.offload.condition()
	return v, true
}

// problems are all that the agent knows of but for those of units.
func (a *agent) problems() []rows.Problem {
	return slices.Concat(a.runner.Problems(), a.wires.Problems(), a.health.list(), a.held.Problems(), a.facts.tunnels.problems(), a.management.problems(), a.facts.warnings(a.cfg), a.poolProblems())
}

// report keeps the NodeNetwork until ctx ends.
func (a *agent) report(ctx context.Context) error {
	r := &reporter{writer: kube.NewNodeNetworkWriter(a.reports, a.client, a.cfg.Node, slog.Default()), look: a.view, now: time.Now}
	return r.run(ctx)
}

// recall asks what the agent ran with before this start, until the API server answers:
// nothing of the Node is looked at before.
func (a *agent) recall(ctx context.Context) (kube.Allocation, error) {
	for told := false; ; told = true {
		asking, cancel := context.WithTimeout(ctx, reportTimeout)
		ran, err := kube.ReadAllocation(asking, a.reports, a.cfg.Node)
		cancel()
		if err == nil || kube.Denied(err) {
			if err != nil {
				slog.Warn("what the agent ran with before is not known: the Node's annotations are believed", "err", err)
			}
			a.held.Remember(ran)
			return ran, nil
		}
		if !told {
			slog.Warn("what the agent ran with before is not known yet, asking again", "err", err)
		}
		select {
		case <-ctx.Done():
			return kube.Allocation{}, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// term asks whether a manager leads; nil where there are none.
func (a *agent) term() held.Term {
	if a.client == nil {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, reportTimeout)
		defer cancel()
		return kube.ReadTerm(ctx, a.client, a.cfg.Namespace)
	}
}

// lastReport says in the NodeNetwork why an agent ends. It is started again, and
// says it again, which writes nothing while the reason is the same. It may fail: the
// reason is in the log too.
func (a *agent) lastReport(ctx context.Context, cause error) {
	if a.cfg.IntentDir != "" || ctx.Err() != nil {
		return // no API server, or we were told to end
	}
	access := a.cfg.Kube
	if access.APIServer == "" && access.Kubeconfig == "" {
		spec, err := kube.ReadCluster(a.cfg.File)
		if err != nil {
			return
		}
		access.APIServer = spec.Spec.APIServer
	}
	client, err := access.Connect()
	if err != nil {
		return
	}
	networks, err := access.ConnectNodeNetworks()
	if err != nil {
		return
	}
	s := a.facts.network()
	s.Allocation = a.held.Allocation().Said() // what the next start runs with
	s.SetNotReady(endReason(cause), cause.Error())
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	if err := kube.NewNodeNetworkWriter(networks, client, a.cfg.Node, slog.Default()).Write(ctx, s); err != nil {
		slog.Warn("the reason is not in the NodeNetwork", "err", err)
	}
}

// refused marks an error that came before anything was changed.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// endReason tells a machine that is refused from an agent that failed.
func endReason(cause error) string {
	if _, ok := errors.AsType[refused](cause); ok {
		return v1alpha1.ReasonRefused
	}
	return v1alpha1.ReasonFailed
}
