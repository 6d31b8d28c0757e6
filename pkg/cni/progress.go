package cni

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Progress is how far an agent has come with a pod. It is known without the pod's
// lock, which a call that waits holds: who asks wants to know why it waits.
type Progress struct {
	// Refused says why the pod's annotation cannot be read; then only the default
	// network is planned.
	Refused string
	// Call is the ADD or PREPARE that runs, or the last; zero: there was none since
	// the agent's start.
	Call CallProgress
	// Status is when network-status was last given to be written; zero: not since the start.
	Status     time.Time
	Interfaces []InterfaceProgress // what is planned, in order, then what is attached and not planned
}

// CallProgress is how far a call has come.
type CallProgress struct {
	Command string // ADD, PREPARE
	Stage   string
	Began   time.Time
	Entered time.Time // of the stage
	Ended   time.Time // zero: it runs
	Err     string    // with which it ended
}

// InterfaceProgress is how far one interface has come.
type InterfaceProgress struct {
	// Attachment has what is known: Network is empty while Waits says why, the Grant
	// before Allocated.
	Attachment
	Planned bool // the pod's annotation asks for it
	// Waits is why the network is not the pod's to join: a *PendingError, which may
	// pass, where Pending.
	Waits   string
	Pending bool
	// Allocated is when it was given its addresses, Prepared when OVN could begin with
	// its half of the port before an ADD came, Attached when an ADD was through with it; zero: not, or
	// before the agent's start.
	Allocated, Prepared, Attached time.Time
	Port                          Port // zero Name: there is none
	State                         PortState
}

// progress remembers what calls have done.
type progress struct {
	mu   sync.Mutex // guards pods
	pods map[string]*podProgress
}

type podProgress struct {
	call   CallProgress
	status time.Time
	all    []Attachment
	times  map[string]*times // by key
}

type times struct{ allocated, prepared, attached time.Time }

func newProgress() *progress { return &progress{pods: map[string]*podProgress{}} }

// of is a pod's; p.mu is held.
func (p *progress) of(uid string) *podProgress {
	if p.pods[uid] == nil {
		p.pods[uid] = &podProgress{times: map[string]*times{}}
	}
	return p.pods[uid]
}

func (p *podProgress) at(key string) *times {
	if p.times[key] == nil {
		p.times[key] = &times{}
	}
	return p.times[key]
}

// entered notes a call's stage.
func (p *progress) entered(t *trace) {
	if t.pod.UID == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(t.pod.UID).call = CallProgress{Command: t.command, Stage: t.stage, Began: t.began, Entered: t.entered}
}

// ended notes a call's end.
func (p *progress) ended(t *trace, err error) {
	if t.pod.UID == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.pods[t.pod.UID]
	if of == nil {
		return // forgotten meanwhile
	}
	of.call.Ended = time.Now()
	if err != nil {
		of.call.Err = err.Error()
	}
}

// given notes what a pod has been given, all of it; now: not by an earlier run.
func (p *progress) given(pod Pod, all []Attachment, now bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := p.of(pod.UID)
	of.all = all
	for _, a := range all {
		if t := of.at(a.Key); now && t.allocated.IsZero() {
			t.allocated = time.Now()
		}
	}
	maps.DeleteFunc(of.times, func(key string, _ *times) bool {
		return !slices.ContainsFunc(all, func(a Attachment) bool { return a.Key == key })
	})
}

func (p *progress) mark(uid string, list []*iface, set func(*times)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range list {
		set(p.of(uid).at(i.wish.Key))
	}
}

func (p *progress) prepared(uid string, list []*iface) {
	p.mark(uid, list, func(t *times) { t.prepared = time.Now() })
}

func (p *progress) attached(uid string, list []*iface) {
	p.mark(uid, list, func(t *times) { t.attached = time.Now() })
}

func (p *progress) reported(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(uid).status = time.Now()
}

func (p *progress) forget(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pods, uid)
}

// known is a copy of what is remembered of a pod.
func (p *progress) known(uid string) (podProgress, map[string]times) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of, at := podProgress{}, map[string]times{}
	if p.pods[uid] != nil {
		of = *p.pods[uid]
	}
	for key, t := range of.times {
		at[key] = *t
	}
	return of, at
}

// Progress tells how far a pod of this node has come. It waits for no call.
func (a *Agent) Progress(ctx context.Context, pod Pod) (Progress, error) {
	of, at := a.progress.known(pod.UID)
	out := Progress{Call: of.call, Status: of.status}
	plan, err := a.plan(pod)
	if err != nil {
		out.Refused = err.Error()
	}
	for _, w := range plan {
		out.Interfaces = append(out.Interfaces, a.planned(w))
	}
	place := func(key string) *InterfaceProgress {
		i := slices.IndexFunc(out.Interfaces, func(i InterfaceProgress) bool { return i.Key == key })
		if i < 0 {
			out.Interfaces = append(out.Interfaces, InterfaceProgress{Attachment: Attachment{Pod: pod, Key: key}})
			i = len(out.Interfaces) - 1
		}
		return &out.Interfaces[i]
	}
	for _, g := range of.all {
		i := place(g.Key)
		mtu := i.MTU
		i.Attachment = g
		i.MTU = max(g.MTU, mtu)
	}
	ports, err := a.config.Ports.List(ctx)
	if err != nil {
		return out, err
	}
	for _, p := range ports {
		if p.Pod.UID != pod.UID {
			continue
		}
		i := place(p.Key)
		if i.Port.Name != "" && p.Sandbox == "" {
			continue // should it have two, the one in use is shown
		}
		i.Port, i.IfName = p, p.IfName
		if i.Network == "" {
			i.Network = p.Network
		}
		if i.State, err = a.config.Ports.State(ctx, p.Name); err != nil {
			return out, err
		}
	}
	for n := range out.Interfaces {
		i := &out.Interfaces[n]
		t := at[i.Key]
		i.Allocated, i.Prepared, i.Attached = t.allocated, t.prepared, t.attached
	}
	return out, nil
}

// planned is an interface as it is wished.
func (a *Agent) planned(w Wish) InterfaceProgress {
	i := InterfaceProgress{Attachment: Attachment{Pod: w.Pod, Key: w.Key, IfName: w.IfName}, Planned: true}
	if w.Key == defaultNetwork {
		i.Network, i.MTU = defaultNetwork, a.home.MTU
		return i
	}
	n, err := a.config.Networks.Attach(w)
	if err != nil {
		_, i.Pending = errors.AsType[*PendingError](err)
		i.Waits = err.Error()
		return i
	}
	i.Network, i.MTU = n.Name, n.MTU
	return i
}

// Missing says what a port lacks to carry packets; "" for nothing.
func (s PortState) Missing() string {
	if s.Exists && s.Installed {
		return ""
	}
	return strings.TrimSuffix(waitingFor(s, nil), " (no ovn-installed in external_ids)")
}
