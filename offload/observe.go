package offload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Probe is what of the machine an Observer asks: *Machine.
type Probe interface {
	Kernel() (KernelFacts, error)
	Device(name string) (Device, error)
	// Underlay is the device that packets to a tunnel's other end leave by.
	Underlay(to netip.Addr) (Device, error)
}

// Observer reads a node's flows, and remembers each reading for the next. It is for
// one goroutine.
type Observer struct {
	Switch   Switch
	Database Database
	Probe    Probe
	// Datapath is OVS's name of it, "system@ovs-system" or "netdev@ovs-netdev".
	Datapath string
	// MostFlows bounds what is kept of one reading; 0: 100,000. What is above is not read.
	MostFlows int
	// MostUserspace bounds the flows of a userspace datapath that is dumped at all, for
	// its packets wait meanwhile; 0: 2,000.
	MostUserspace int
	Now           func() time.Time // nil: time.Now

	last   map[FlowID]counters
	lastAt time.Time
	inTC   time.Time // start of the vswitchd that had a flow in TC or a NIC; zero: none had
}

// counters of a flow.
type counters struct{ packets, bytes uint64 }

// The bounds where an Observer names none.
const (
	mostFlows     = 100_000
	mostUserspace = 2_000
)

// Datapaths as dpctl names them.
const (
	SystemDatapath = DatapathKernel + "@ovs-system"
	NetdevDatapath = DatapathUserspace + "@ovs-netdev"
)

// Observe takes one reading for some interfaces.
func (o *Observer) Observe(ctx context.Context, interfaces []Attached) (*Report, error) {
	x, err := o.gather(ctx)
	if err != nil {
		return nil, err
	}
	began := o.now()
	r := o.report(x, began)
	if !o.lastAt.IsZero() {
		r.Window = &Window{From: o.lastAt, To: began, Seconds: began.Sub(o.lastAt).Seconds()}
	}
	t := newTable(nil)
	if r.Reading.Skipped = o.skip(x); r.Reading.Skipped == "" {
		if t, err = o.dump(ctx, x, r); err != nil {
			return nil, err
		}
		r.Reading.Milliseconds = float64(o.now().Sub(began).Microseconds()) / 1000
		o.lastAt = began
	} else {
		r.Window, o.last, o.lastAt = nil, nil, time.Time{}
	}
	o.fill(r, x, t, interfaces)
	return r, nil
}

// Look says what is known without a dump: devices, settings, and why nothing of an
// interface can be in hardware. It is no reading, so the next one's window is as it was.
func (o *Observer) Look(ctx context.Context, interfaces []Attached) (*Report, error) {
	x, err := o.gather(ctx)
	if err != nil {
		return nil, err
	}
	r := o.report(x, o.now())
	if r.Reading.Skipped = o.skip(x); r.Reading.Skipped == "" {
		r.Reading.Skipped = "nobody asked for flows"
	}
	o.fill(r, x, newTable(nil), interfaces)
	return r, nil
}

func (o *Observer) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}

// gather reads all but flows.
func (o *Observer) gather(ctx context.Context) (*facts, error) {
	x := &facts{}
	x.kind, _, _ = strings.Cut(o.Datapath, "@")
	var err error
	if x.kernel, err = o.Probe.Kernel(); err != nil {
		return nil, err
	}
	if x.config, err = o.Database.Read(ctx); err != nil {
		return nil, err
	}
	if x.state, err = o.Switch.State(ctx, o.Datapath); err != nil {
		return nil, err
	}
	if !o.inTC.IsZero() && o.inTC.Equal(x.state.Started) {
		x.state.Active = true
	}
	o.lookUp(x)
	return x, nil
}

// report is what holds whatever the flows are.
func (o *Observer) report(x *facts, at time.Time) *Report {
	r := &Report{
		Datapath: o.Datapath, Kernel: x.kernel, Reasons: x.node(), Interfaces: []InterfaceReport{},
		Switch: SwitchReport{
			Version: x.state.Version, Started: x.state.Started, Running: x.state.Running,
			HWOffload: x.config.HWOffload, TCPolicy: x.config.TCPolicy, Active: x.state.Active,
		},
		Reading: Reading{At: at},
	}
	if r.Reasons == nil {
		r.Reasons = []Reason{}
	}
	return r
}

// skip says why flows are not read; "": they are.
func (o *Observer) skip(x *facts) string {
	bound := o.MostUserspace
	if bound == 0 {
		bound = mostUserspace
	}
	switch {
	case !x.state.Running:
		return "ovs-vswitchd does not run"
	case x.kind == DatapathUserspace && x.state.Flows > bound:
		return fmt.Sprintf("the userspace datapath has %d flows, and its packets would wait while more than %d are printed", x.state.Flows, bound)
	}
	return ""
}

// lookUp gives facts the devices, each looked at once a reading.
func (o *Observer) lookUp(x *facts) {
	known := map[string]Device{}
	x.device = func(name string) Device {
		d, ok := known[name]
		if !ok {
			d = o.device(x, name)
			known[name] = d
		}
		return d
	}
	unders := map[string]Device{}
	x.under = func(to string) Device {
		if to == "" {
			to = anyRemote(x.config.Ports)
		}
		d, ok := unders[to]
		if !ok {
			d = Device{Kind: Missing}
			if ip, err := netip.ParseAddr(to); err == nil {
				if found, err := o.Probe.Underlay(ip); err == nil {
					d = found
				}
			}
			unders[to] = d
		}
		return d
	}
}

// device is what is behind a port. A device that cannot be asked is of no hardware
// that could be told.
func (o *Observer) device(x *facts, name string) Device {
	switch x.config.Ports[name].Type {
	case "internal":
		return Device{Name: name, Kind: Internal}
	case "geneve", "vxlan", "gre", "stt", "erspan", "gtpu", "bareudp", "srv6":
		return Device{Name: name, Kind: Tunnel}
	}
	d, err := o.Probe.Device(name)
	if err != nil {
		return Device{Name: name, Kind: Other}
	}
	return d
}

// anyRemote is the other end of one of the tunnels, the same each time.
func anyRemote(ports map[string]Port) string {
	var all []string
	for _, p := range ports {
		if p.Remote != "" && p.Remote != "flow" {
			all = append(all, p.Remote)
		}
	}
	if len(all) == 0 {
		return ""
	}
	return slices.Min(all)
}

// dump reads the flows. Of a flow's text only reasons and names of ports are kept.
func (o *Observer) dump(ctx context.Context, x *facts, r *Report) (*table, error) {
	bound := o.MostFlows
	if bound == 0 {
		bound = mostFlows
	}
	next := make(map[FlowID]counters, len(o.last))
	var entries []*entry
	names := words{}
	for f, err := range o.Switch.Flows(ctx, o.Datapath) {
		switch {
		case f == nil && noSuchDatapath(err):
			r.Reading.Skipped = "Open vSwitch has no datapath " + o.Datapath + " yet"
			return newTable(nil), nil
		case f == nil:
			return nil, err
		case err != nil:
			r.Reading.Unread++
			continue
		case len(entries) == bound:
			r.Reading.Skipped = fmt.Sprintf("there are more than %d flows: the rest was not read", bound)
		}
		if r.Reading.Skipped != "" {
			break
		}
		next[f.ID] = counters{f.Packets, f.Bytes}
		entries = append(entries, names.keep(o.entry(f, x.kind)))
	}
	r.Reading.Flows = len(entries)
	o.last = next
	t := newTable(entries)
	if !x.state.Active && slices.ContainsFunc(entries, func(e *entry) bool { return e.place == TC || e.place == Hardware }) {
		o.inTC, x.state.Active, r.Switch.Active = x.state.Started, true, true
		r.Reasons = append([]Reason{}, x.node()...)
	}
	t.judge(x)
	return t, nil
}

// words are the texts that many flows share. A part of a line would keep all of it.
type words map[string]string

func (w words) word(s string) string {
	if s == "" {
		return ""
	}
	kept, ok := w[s]
	if !ok {
		kept = strings.Clone(s)
		w[kept] = kept
	}
	return kept
}

// keep lets go of the line that an entry was read from.
func (w words) keep(e *entry) *entry {
	e.in = w.word(e.in)
	for i, port := range e.outputs {
		e.outputs[i] = w.word(port)
	}
	for i := range e.blocked {
		e.blocked[i].Detail = w.word(e.blocked[i].Detail)
	}
	return e
}

// noSuchDatapath tells vswitchd's word that there are no bridges yet.
func noSuchDatapath(err error) bool {
	return err != nil && strings.Contains(err.Error(), "datapath not found")
}

// entry takes a flow, with what passed since the reading before.
func (o *Observer) entry(f *Flow, kind string) *entry {
	a := readActions(f.Actions)
	e := &entry{
		id: f.ID, in: f.InPort, recirc: f.Recirc, place: f.PlaceIn(kind),
		outputs: a.outputs, recircs: a.recircs, final: a.final(),
	}
	if a.slowOnly() {
		e.place = Userspace
	}
	if e.place != Hardware {
		e.read(f, &a, kind)
	}
	if o.lastAt.IsZero() {
		return e
	}
	before, known := o.last[f.ID]
	e.fresh = !known
	e.packets, e.bytes = f.Packets, f.Bytes
	// A flow that was made anew under its id has counted from zero.
	if known && f.Packets >= before.packets && f.Bytes >= before.bytes {
		e.packets, e.bytes = f.Packets-before.packets, f.Bytes-before.bytes
	}
	return e
}

// fill makes the report of a table.
func (o *Observer) fill(r *Report, x *facts, t *table, interfaces []Attached) {
	ports := map[string]bool{}
	for _, i := range interfaces {
		ports[i.Port] = true
	}
	total, by := t.attribute(ports)
	r.Total = total
	for _, i := range interfaces {
		a := by[i.Port]
		out := InterfaceReport{Attached: i, Device: x.device(i.Port), From: a.from, To: a.to}
		for _, reason := range append(x.port(i.Port), r.Reasons...) {
			a.why.own(reason)
		}
		both := a.from
		both.add(&a.to)
		out.Verdict, out.Reasons = verdict(both), a.why.sorted()
		r.Interfaces = append(r.Interfaces, out)
	}
	slices.SortFunc(r.Interfaces, func(a, b InterfaceReport) int {
		return strings.Compare(a.Pod+"\x00"+a.Interface+"\x00"+a.Port, b.Pod+"\x00"+b.Interface+"\x00"+b.Port)
	})
}
