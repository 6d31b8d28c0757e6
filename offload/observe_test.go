package offload

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/*.want")

// fakeSwitch has a dump for each reading.
type fakeSwitch struct {
	dumps []string
	state SwitchState
	err   error
}

func (f *fakeSwitch) Flows(context.Context, string) iter.Seq2[*Flow, error] {
	if f.err != nil {
		return func(yield func(*Flow, error) bool) { yield(nil, f.err) }
	}
	text := f.dumps[0]
	if len(f.dumps) > 1 {
		f.dumps = f.dumps[1:]
	}
	return Flows(strings.NewReader(text))
}

func (f *fakeSwitch) State(context.Context, string) (SwitchState, error) { return f.state, nil }

type fakeDatabase Config

func (f fakeDatabase) Read(context.Context) (Config, error) { return Config(f), nil }

type fakeProbe struct {
	kernel  KernelFacts
	devices map[string]Device
	under   string
}

func (f fakeProbe) Kernel() (KernelFacts, error) { return f.kernel, nil }

func (f fakeProbe) Device(name string) (Device, error) {
	d, ok := f.devices[name]
	if !ok {
		d.Kind = Missing
	}
	d.Name = name
	return d, nil
}

func (f fakeProbe) Underlay(netip.Addr) (Device, error) { return f.Device(f.under) }

// world is a node with a NIC whose functions 0 and 1 pods have, and a pod on a veth.
type world struct {
	Switch fakeSwitch
	Config Config
	Probe  fakeProbe
	kind   string
}

func newWorld(dumps ...string) *world {
	rep := func(n string) Device {
		return Device{Kind: Representor, Driver: "mlx5_core", SwitchID: "c8d3a5", PortName: n, Parent: "pci/0000:03:00.0", TCOffload: featureOn, ESwitch: "switchdev"}
	}
	up := rep("p0")
	up.Kind = Uplink
	other := up
	other.SwitchID, other.Parent = "ffff00", "pci/0000:81:00.0"
	return &world{
		Switch: fakeSwitch{dumps: dumps, state: SwitchState{Running: true, Version: "3.5.0", Active: true}},
		Config: Config{HWOffload: true, Ports: map[string]Port{
			"genev_sys_6081": {Name: "genev_sys_6081", Type: "geneve"}, "ovn-b-0": {Name: "ovn-b-0", Type: "geneve", Remote: "172.18.0.3"},
			"br-ex": {Name: "br-ex", Type: "internal"}, "ovn-k8s-mp0": {Name: "ovn-k8s-mp0", Type: "internal"},
		}},
		Probe: fakeProbe{
			kernel: KernelFacts{Release: "6.12.0", Datapath: Yes, Flower: Yes, ConntrackAction: Yes, TunnelAction: Yes, RecircSharing: Yes},
			devices: map[string]Device{
				"pf0vf0": rep("pf0vf0"), "pf0vf1": rep("pf0vf1"), "enp3s0f0": up, "other0": other,
				"veth5": {Kind: Veth, Driver: "veth"}, "v0": {Kind: Veth, Driver: "veth"}, "v1": {Kind: Veth, Driver: "veth"},
			},
			under: "enp3s0f0",
		},
		kind: SystemDatapath,
	}
}

func (w *world) observer() *Observer {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	return &Observer{
		Switch: &w.Switch, Database: fakeDatabase(w.Config), Probe: w.Probe, Datapath: w.kind,
		Now: func() time.Time { at = at.Add(5 * time.Second); return at },
	}
}

func (w *world) observe(t *testing.T, o *Observer, ports ...string) *Report {
	t.Helper()
	var list []Attached
	for _, p := range ports {
		list = append(list, Attached{Port: p, Pod: "demo/" + p, Interface: "eth0", Network: "default"})
	}
	r, err := o.Observe(context.Background(), list)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func dump(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".flows"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// doubled is a dump in which every flow has had as many packets again.
func doubled(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		head, rest, ok := strings.Cut(line, ", packets:")
		if !ok {
			out.WriteString(line)
			continue
		}
		n, rest, _ := strings.Cut(rest, ", bytes:")
		b, rest, _ := strings.Cut(rest, ",")
		out.WriteString(head + ", packets:" + twice(n) + ", bytes:" + twice(b) + "," + rest)
	}
	return out.String()
}

func twice(n string) string {
	var v uint64
	_ = json.Unmarshal([]byte(n), &v)
	text, _ := json.Marshal(2 * v)
	return string(text)
}

// emulated is the node of the dumps switchdev-….
func emulated(w *world) {
	w.Probe.devices["rep0"], w.Probe.devices["rep1"] = w.Probe.devices["pf0vf0"], w.Probe.devices["pf0vf1"]
	w.Probe.devices["v-h"] = Device{Kind: Veth, Driver: "veth"}
	w.Config.Ports["br-int"] = Port{Name: "br-int", Type: "internal"}
}

func TestReports(t *testing.T) {
	for _, test := range []struct {
		name  string
		kind  string
		ports []string
		world func(*world)
	}{
		{"hardware", SystemDatapath, []string{"pf0vf0", "pf0vf1"}, func(*world) {}},
		{"mixed", SystemDatapath, []string{"pf0vf0", "pf0vf1", "veth5"}, func(w *world) { w.Probe.kernel.RecircSharing = No }},
		// Two of Debian's 6.12, as OVS 3.5 printed them: pods on veth pairs, with connections
		// tracked and over Geneve.
		{"debian-conntrack", SystemDatapath, []string{"a-h", "b-h"}, func(w *world) {
			w.Probe.kernel.RecircSharing = No
			w.Probe.devices["a-h"], w.Probe.devices["b-h"] = Device{Kind: Veth, Driver: "veth"}, Device{Kind: Veth, Driver: "veth"}
		}},
		{"debian-geneve", SystemDatapath, []string{"a-h", "b-h"}, func(w *world) {
			w.Probe.kernel.RecircSharing, w.Probe.under = No, "v0"
			w.Probe.devices["a-h"], w.Probe.devices["b-h"] = Device{Kind: Veth, Driver: "veth"}, Device{Kind: Veth, Driver: "veth"}
			w.Config.Ports["br-int"] = Port{Name: "br-int", Type: "internal"}
		}},
		// Two of a kernel with NET_TC_SKB_EXT and an emulated switchdev NIC, connections
		// tracked: functions talk with each other, and one with a pod on a veth pair.
		{"switchdev-functions", SystemDatapath, []string{"rep0", "rep1", "v-h"}, emulated},
		{"switchdev-to-veth", SystemDatapath, []string{"rep0", "rep1", "v-h"}, emulated},
		{"userspace", NetdevDatapath, []string{"v0", "v1"}, func(*world) {}},
		{"partial", NetdevDatapath, []string{"vhost1", "dpdk0"}, func(w *world) {
			w.Config.DPDK = true
			w.Probe.devices["vhost1"] = Device{Kind: Other}
			w.Probe.devices["dpdk0"] = Device{Kind: Uplink, TCOffload: featureUnknown}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := dump(t, test.name)
			w := newWorld(text, doubled(text))
			w.kind = test.kind
			test.world(w)
			o := w.observer()
			first := w.observe(t, o, test.ports...)
			if sum := first.Total.Sum(); sum.Packets != 0 || first.Window != nil {
				t.Errorf("the first reading counts packets: %+v in %v", sum, first.Window)
			}
			got, err := json.MarshalIndent(w.observe(t, o, test.ports...), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", test.name+".want")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNoBridgesYet(t *testing.T) {
	w := newWorld("")
	w.Switch.err = errors.New("ovs-vswitchd: datapath not found (Invalid argument)")
	r := w.observe(t, w.observer(), "pf0vf0")
	if !strings.Contains(r.Reading.Skipped, "no datapath") || r.Interfaces[0].Verdict != Idle {
		t.Errorf("got %+v, %+v", r.Reading, r.Interfaces)
	}
}

func TestVswitchdIsDown(t *testing.T) {
	w := newWorld("")
	w.Switch.state = SwitchState{}
	r := w.observe(t, w.observer(), "pf0vf0")
	if r.Reading.Skipped != "ovs-vswitchd does not run" || r.Window != nil {
		t.Errorf("got %+v", r.Reading)
	}
}

func TestUserspaceDumpIsBounded(t *testing.T) {
	w := newWorld(dump(t, "userspace"))
	w.kind, w.Switch.state.Flows = NetdevDatapath, 2001
	r := w.observe(t, w.observer(), "v0")
	if !strings.Contains(r.Reading.Skipped, "2001 flows") || r.Reading.Flows != 0 {
		t.Errorf("got %+v", r.Reading)
	}
	if c := r.Interfaces[0].Reasons[0].Code; c != NoDevice {
		t.Errorf("got %s", c)
	}
}

func TestFlowsAreBounded(t *testing.T) {
	w := newWorld(dump(t, "hardware"))
	o := w.observer()
	o.MostFlows = 4
	r := w.observe(t, o, "pf0vf0")
	if r.Reading.Flows != 4 || !strings.Contains(r.Reading.Skipped, "more than 4 flows") {
		t.Errorf("got %+v", r.Reading)
	}
}

func TestACounterThatBeginsAnew(t *testing.T) {
	text := dump(t, "hardware")
	w := newWorld(doubled(text), text)
	o := w.observer()
	w.observe(t, o, "pf0vf0")
	r := w.observe(t, o, "pf0vf0")
	if got := r.Interfaces[0].From.Hardware.Packets; got != 1500 {
		t.Errorf("got %d packets, wanted what the new counters say: 1500", got)
	}
}

func TestAFlowThatIsNew(t *testing.T) {
	text := dump(t, "mixed")
	without := ""
	for line := range strings.Lines(text) {
		if !strings.Contains(line, "ufid:22222222-0000-4000-8000-000000000002") {
			without += line
		}
	}
	w := newWorld(without, text)
	o := w.observer()
	w.observe(t, o, "pf0vf1")
	r := w.observe(t, o, "pf0vf1")
	for _, c := range r.Interfaces[0].Reasons {
		if c.Code == EarlierStage {
			return // young as it is, why it is not in hardware is known
		}
	}
	t.Errorf("got %+v", r.Interfaces[0].Reasons)
}

// TestAFlowInTCProvesThatOffloadIsOn holds also where vswitchd does not count offloaded flows.
func TestAFlowInTCProvesThatOffloadIsOn(t *testing.T) {
	w := newWorld(dump(t, "hardware"), "")
	w.Switch.state.Active, w.Switch.state.Started = false, time.Unix(1000, 0)
	o := w.observer()
	if r := w.observe(t, o, "pf0vf0"); !r.Switch.Active || len(r.Reasons) != 0 || len(r.Interfaces[0].Reasons) != 0 {
		t.Errorf("found %+v, %v, %v", r.Switch, r.Reasons, r.Interfaces[0].Reasons)
	}
	if r := w.observe(t, o, "pf0vf0"); !r.Switch.Active {
		t.Error("it is forgotten when there is no flow")
	}
	w.Switch.state.Started = time.Unix(2000, 0)
	if r := w.observe(t, o, "pf0vf0"); r.Switch.Active || len(r.Reasons) != 1 || r.Reasons[0].Code != RestartNeeded {
		t.Errorf("another vswitchd: found %+v, %v", r.Switch, r.Reasons)
	}
}
