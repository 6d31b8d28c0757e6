package offload

import (
	"slices"
	"strings"
	"time"
)

// Report is what one reading found.
type Report struct {
	Datapath string       `json:"datapath"` // "system@ovs-system"
	Kernel   KernelFacts  `json:"kernel"`
	Switch   SwitchReport `json:"switch"`
	// Window is the time that packets are counted over; nil: this is the first reading,
	// which counts none.
	Window  *Window `json:"window,omitempty"`
	Reading Reading `json:"reading"`
	// Reasons hold for the whole node; empty: some flows can be in hardware.
	Reasons    []Reason          `json:"reasons"`
	Total      Shares            `json:"total"`
	Interfaces []InterfaceReport `json:"interfaces"`
	// Connections are counted for a person who asks; nil: not counted.
	Connections *Connections `json:"connections,omitempty"`
}

// SwitchReport is Open vSwitch's part.
type SwitchReport struct {
	Version   string    `json:"version,omitempty"`
	Started   time.Time `json:"started"`
	Running   bool      `json:"running"`
	HWOffload bool      `json:"hwOffload"`
	TCPolicy  string    `json:"tcPolicy,omitempty"`
	// Active is that vswitchd has taken hw-offload up for some port: it counts offloaded
	// flows, or has had one in TC since its start.
	Active bool `json:"active"`
}

// Window is the time between two readings.
type Window struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Seconds float64   `json:"seconds"`
}

// Reading is what a dump cost, and what it left out.
type Reading struct {
	At    time.Time `json:"at"`
	Flows int       `json:"flows"`
	// Milliseconds that the dump took, of which ovs-vswitchd's main thread most.
	Milliseconds float64 `json:"milliseconds"`
	Unread       int     `json:"unread,omitempty"`  // lines that could not be read
	Skipped      string  `json:"skipped,omitempty"` // why flows were not read, or not all
}

// Share is what one place has.
type Share struct {
	Flows   int    `json:"flows"`
	Packets uint64 `json:"packets"` // in the window
	Bytes   uint64 `json:"bytes"`   // in the window; in TC without Ethernet headers
}

// Shares are flows and packets by place. A flow counts where it is; a packet counts
// once, at the slowest place of its way.
type Shares struct {
	Hardware  Share `json:"hardware"`
	TC        Share `json:"tc"`
	Kernel    Share `json:"kernel"`
	Userspace Share `json:"userspace"`
}

// At is the share of a place.
func (s *Shares) At(p Place) *Share {
	switch p {
	case Hardware:
		return &s.Hardware
	case TC:
		return &s.TC
	case Kernel:
		return &s.Kernel
	}
	return &s.Userspace
}

// Sum is all places together.
func (s *Shares) Sum() Share {
	var out Share
	for _, p := range Places() {
		at := s.At(p)
		out.Flows, out.Packets, out.Bytes = out.Flows+at.Flows, out.Packets+at.Packets, out.Bytes+at.Bytes
	}
	return out
}

func (s *Shares) add(o *Shares) {
	for _, p := range Places() {
		at, of := s.At(p), o.At(p)
		at.Flows, at.Packets, at.Bytes = at.Flows+of.Flows, at.Packets+of.Packets, at.Bytes+of.Bytes
	}
}

// Verdict is one word for an interface.
type Verdict string

// The verdicts. Packets decide; where none passed in the window, flows.
const (
	InHardware Verdict = "hardware" // all
	Partly     Verdict = "partly"
	InSoftware Verdict = "software" // none
	Idle       Verdict = "idle"     // there are no flows
)

// Attached is whose a port of Open vSwitch's is: the caller knows.
type Attached struct {
	Port      string `json:"port"`
	Pod       string `json:"pod,omitempty"` // NAMESPACE/NAME
	Interface string `json:"interface,omitempty"`
	Network   string `json:"network,omitempty"`
}

// InterfaceReport is one interface.
type InterfaceReport struct {
	Attached
	Device  Device  `json:"device"`
	Verdict Verdict `json:"verdict"`
	From    Shares  `json:"from"` // what comes from the pod
	To      Shares  `json:"to"`   // what goes to it
	// Reasons are why it is not all in hardware, by packets and then flows.
	Reasons []Counted `json:"reasons"`
	// TC is what the filters at the device have done; nil: not asked, or there are none.
	TC *TCCount `json:"tc,omitempty"`
}

// Counted is a reason with what it holds for.
type Counted struct {
	Reason
	// Flows, and Packets that met them in the window, at each stage again; both 0: it
	// holds for the interface, whatever its flows.
	Flows   int    `json:"flows,omitempty"`
	Packets uint64 `json:"packets,omitempty"`
	Example string `json:"example,omitempty"` // one flow's ufid
}

// verdict judges shares.
func verdict(s Shares) Verdict {
	sum := s.Sum()
	of, whole := uint64(s.Hardware.Flows), uint64(sum.Flows)
	if sum.Packets > 0 {
		of, whole = s.Hardware.Packets, sum.Packets
	}
	switch {
	case whole == 0:
		return Idle
	case of == whole:
		return InHardware
	case of == 0:
		return InSoftware
	}
	return Partly
}

// tally counts reasons.
type tally struct {
	list []Counted
	at   map[Reason]int
}

// own notes a reason that holds whatever the flows are: it then counts none.
func (t *tally) own(r Reason) {
	n := t.place(r)
	t.list[n].Flows, t.list[n].Packets, t.list[n].Example = 0, 0, ""
}

func (t *tally) add(r Reason, e *entry) {
	c := &t.list[t.place(r)]
	c.Flows++
	c.Packets += e.packets
	if c.Example == "" {
		c.Example = e.id.String()
	}
}

func (t *tally) place(r Reason) int {
	if t.at == nil {
		t.at = map[Reason]int{}
	}
	n, ok := t.at[r]
	if !ok {
		n = len(t.list)
		t.at[r] = n
		t.list = append(t.list, Counted{Reason: r})
	}
	return n
}

// Of is a report with one pod's interfaces alone; "" is all.
func (r *Report) Of(pod string) *Report {
	if pod == "" {
		return r
	}
	out := *r
	out.Interfaces = []InterfaceReport{}
	for _, i := range r.Interfaces {
		if i.Pod == pod {
			out.Interfaces = append(out.Interfaces, i)
		}
	}
	return &out
}

// most bounds the reasons of an interface.
const most = 20

// sorted are the reasons: the interface's own first, then by packets and flows.
func (t *tally) sorted() []Counted {
	out := slices.Clone(t.list)
	slices.SortStableFunc(out, func(a, b Counted) int {
		switch {
		case (a.Flows == 0) != (b.Flows == 0):
			if a.Flows == 0 {
				return -1
			}
			return 1
		case a.Packets != b.Packets:
			if a.Packets > b.Packets {
				return -1
			}
			return 1
		case a.Flows != b.Flows:
			return b.Flows - a.Flows
		}
		return strings.Compare(string(a.Code)+a.Detail, string(b.Code)+b.Detail)
	})
	if out == nil {
		out = []Counted{}
	}
	return out[:min(len(out), most)]
}
