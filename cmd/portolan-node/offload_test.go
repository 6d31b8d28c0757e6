package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/offload"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/metrics"
)

// switchOf has one flow of a pod's, with ten packets more at each dump.
type switchOf struct {
	state offload.SwitchState
	took  time.Duration
	dumps int
	err   error
}

func (s *switchOf) State(context.Context, string) (offload.SwitchState, error) { return s.state, s.err }

func (s *switchOf) Flows(context.Context, string) iter.Seq2[*offload.Flow, error] {
	s.dumps++
	<-time.After(s.took)
	return offload.Flows(strings.NewReader(fmt.Sprintf("recirc_id(0),in_port(veth1),eth_type(0x0800), packets:%d, bytes:0, used:0.1s, actions:br-ex\n", 10*s.dumps)))
}

type databaseOf offload.Config

func (d databaseOf) Read(context.Context) (offload.Config, error) { return offload.Config(d), nil }

type machineOf struct{}

func (machineOf) Kernel() (offload.KernelFacts, error) { return offload.KernelFacts{}, nil }
func (machineOf) Device(name string) (offload.Device, error) {
	return offload.Device{Name: name, Kind: offload.Veth, Driver: "veth"}, nil
}
func (machineOf) Underlay(netip.Addr) (offload.Device, error) { return offload.Device{}, nil }
func (machineOf) Connections() (offload.Connections, error) {
	return offload.Connections{Known: true, All: 3}, nil
}

// observed is an offloading of a node with one pod.
func observed(plan intent.OffloadMode, datapath intent.Datapath, config offload.Config) (*offloading, *switchOf) {
	s := &switchOf{state: offload.SwitchState{Running: true, Active: true}}
	name := offload.SystemDatapath
	if datapath == intent.UserspaceDatapath {
		name = offload.NetdevDatapath
	}
	return &offloading{
		plan: intent.Offload{Mode: plan}, datapath: datapath, every: 30 * time.Second, machine: machineOf{}, figures: metrics.NewOffload(metrics.New("node")),
		selected: func(intent.Labels) bool { return true },
		ports: func(context.Context) ([]cni.Port, error) {
			return []cni.Port{{Name: "veth1", Pod: cni.Pod{Namespace: "demo", Name: "east"}, IfName: "eth0", Network: "default"}}, nil
		},
		filters:  func(string) (offload.TCCount, error) { return offload.TCCount{Filters: 2, InHardware: 1}, nil },
		observer: &offload.Observer{Switch: s, Database: databaseOf(config), Probe: machineOf{}, Datapath: name},
	}, s
}

// TestReadingsArePaced counts dumps in ten minutes.
func TestReadingsArePaced(t *testing.T) {
	for name, test := range map[string]struct {
		plan     intent.OffloadMode
		datapath intent.Datapath
		told     bool // hw-offload is true
		took     time.Duration
		dumps    int
	}{
		"nobody wants it":                  {"", intent.SystemDatapath, false, 0, 0},
		"switched off":                     {intent.OffloadOff, intent.SystemDatapath, false, 0, 0},
		"the plan wants it":                {intent.OffloadHardware, intent.SystemDatapath, true, 0, 20},
		"somebody else has switched it on": {"", intent.SystemDatapath, true, 0, 20},
		"in userspace packets would wait":  {intent.OffloadHardware, intent.UserspaceDatapath, true, 0, 0},
		"a dump of a second":               {intent.OffloadHardware, intent.SystemDatapath, true, time.Second, 6},
	} {
		synctest.Test(t, func(t *testing.T) {
			o, s := observed(test.plan, test.datapath, offload.Config{HWOffload: test.told})
			s.took = test.took
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute-time.Millisecond)
			defer cancel()
			if err := o.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: ended with %v", name, err)
			}
			if s.dumps != test.dumps {
				t.Errorf("%s: %d dumps, wanted %d", name, s.dumps, test.dumps)
			}
		})
	}
}

func TestQuestions(t *testing.T) {
	for name, test := range map[string]struct {
		q       offload.Question
		before  bool // a reading half a minute ago
		dumps   int
		window  float64 // seconds; 0: none
		packets uint64
	}{
		"without flows":             {offload.Question{Pod: "demo/east"}, false, 0, 0, 0},
		"a first reading":           {offload.Question{Flows: true}, false, 2, 2, 10},
		"since the one before":      {offload.Question{Flows: true}, true, 2, 30, 10},
		"over a time":               {offload.Question{Flows: true, For: 5 * time.Second}, true, 3, 5, 10},
		"of somebody else's pod":    {offload.Question{Pod: "demo/west"}, false, 0, 0, 0},
		"without, but one is there": {offload.Question{Pod: "demo/east"}, true, 1, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			o, s := observed(intent.OffloadHardware, intent.SystemDatapath, offload.Config{HWOffload: true})
			if test.before {
				if _, err := o.turn(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-time.After(30 * time.Second)
			}
			r, err := o.answer(t.Context(), test.q)
			if err != nil {
				t.Fatal(err)
			}
			seconds := 0.0
			if r.Window != nil {
				seconds = r.Window.Seconds
			}
			if s.dumps != test.dumps || seconds != test.window || r.Total.Sum().Packets != test.packets {
				t.Errorf("%s: %d dumps, a window of %v s, %d packets; wanted %d, %v, %d", name, s.dumps, seconds, r.Total.Sum().Packets, test.dumps, test.window, test.packets)
			}
			if got := len(r.Interfaces); got != map[bool]int{true: 0, false: 1}[test.q.Pod == "demo/west"] {
				t.Errorf("%s: %d interfaces", name, got)
			}
		})
	}
}

func TestDetail(t *testing.T) {
	o, _ := observed(intent.OffloadHardware, intent.SystemDatapath, offload.Config{HWOffload: true})
	r, err := o.answer(t.Context(), offload.Question{Detail: true})
	if err != nil || r.Interfaces[0].TC == nil || r.Interfaces[0].TC.InHardware != 1 || r.Connections == nil || r.Connections.All != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestCondition(t *testing.T) {
	for name, test := range map[string]struct {
		plan     intent.OffloadMode
		datapath intent.Datapath
		config   offload.Config
		active   bool
		on       bool
		reason   string // "": there is none
	}{
		"not asked for":   {"", intent.SystemDatapath, offload.Config{HWOffload: true}, true, false, ""},
		"off":             {intent.OffloadOff, intent.SystemDatapath, offload.Config{}, true, false, ""},
		"at work":         {intent.OffloadHardware, intent.SystemDatapath, offload.Config{HWOffload: true}, true, true, v1alpha1.ReasonOffloading},
		"in TC by order":  {intent.OffloadSoftware, intent.SystemDatapath, offload.Config{HWOffload: true, TCPolicy: "skip_hw"}, true, true, v1alpha1.ReasonOffloading},
		"not taken up":    {intent.OffloadHardware, intent.SystemDatapath, offload.Config{HWOffload: true}, false, false, "RestartNeeded"},
		"an older policy": {intent.OffloadHardware, intent.SystemDatapath, offload.Config{HWOffload: true, TCPolicy: "skip_hw"}, true, false, "TcPolicy"},
		"in userspace":    {intent.OffloadHardware, intent.UserspaceDatapath, offload.Config{HWOffload: true}, true, false, "UserspaceDatapath"},
	} {
		o, vswitchd := observed(test.plan, test.datapath, test.config)
		vswitchd.state.Active = test.active
		if o.condition() != nil {
			t.Errorf("%s: something is said before anything is known", name)
		}
		if _, err := o.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := o.condition()
		switch {
		case c == nil && test.reason == "":
			continue
		case c == nil, (c.Status == "True") != test.on, c.Reason != test.reason, c.Message == "", c.Type != v1alpha1.ConditionOffload:
			t.Errorf("%s: %+v, wanted %v %s", name, c, test.on, test.reason)
		}
	}
}

// TestEveryPacketIsCountedOnce has questions between the agent's own readings.
func TestEveryPacketIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, vswitchd := observed(intent.OffloadHardware, intent.SystemDatapath, offload.Config{HWOffload: true})
		set := metrics.New("node")
		o.figures = metrics.NewOffload(set)
		ask := func(f func() (*offload.Report, error)) {
			if _, err := f(); err != nil {
				t.Fatal(err)
			}
			<-time.After(30 * time.Second)
		}
		own := func() (*offload.Report, error) { return o.turn(t.Context()) }
		ask(own)
		ask(func() (*offload.Report, error) {
			return o.answer(t.Context(), offload.Question{Flows: true, For: 5 * time.Second})
		})
		ask(own)
		rec := httptest.NewRecorder()
		set.Handler(metrics.Probes{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		want := fmt.Sprintf("portolan_offload_packets_total{place=\"kernel\"} %d\n", 10*(vswitchd.dumps-1))
		if text := rec.Body.String(); vswitchd.dumps != 4 || !strings.Contains(text, want) {
			t.Errorf("%d dumps, of which each had 10 packets more; wanted %s in\n%s", vswitchd.dumps, want, text)
		}
	})
}
