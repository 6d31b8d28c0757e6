package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// portWorld is a machine with soft devices, pools that offer them, and the kernel's half
// of the management port, which keeps its record over restarts as management.json does.
type portWorld struct {
	t      *testing.T
	m      *management
	there  []string // devices, in the pools' order
	pods   map[string]string
	sick   map[string]string
	going  map[string]bool
	kept   map[string]bool
	wakes  int
	lost   bool // the kernel lost the device, as by a boot
	record host.ManagementDevice
	told   []string // the devices that the port became; "-": Open vSwitch's own
}

func (w *portWorld) ManagementDevice() (host.ManagementDevice, bool, error) {
	return w.record, w.record.Device != "", nil
}

func (w *portWorld) ManagementHeld(d host.ManagementDevice) bool {
	return d.Device != "" && d == w.record && !w.lost && slices.Contains(w.there, d.Device)
}

func (w *portWorld) TakeManagement(d host.ManagementDevice) (bool, error) {
	if w.record.Device != "" && w.record.Device != d.Device {
		w.t.Errorf("%s is taken, and %s has the name", d.Device, w.record.Device)
	}
	if !w.kept[d.Device] {
		w.t.Errorf("%s is taken before the kubelet knows", d.Device)
	}
	w.record, w.lost = d, false
	return true, nil
}

func (w *portWorld) ReturnManagement() error {
	w.record = host.ManagementDevice{}
	return nil
}

func (w *portWorld) Settled() bool { return true }

func (w *portWorld) Candidates(string) []devices.Candidate {
	var out []devices.Candidate
	for _, id := range w.there {
		out = append(out, devices.Candidate{ID: id, Pool: "mp", Trouble: w.sick[id], Kept: w.kept[id], Leaving: w.going[id]})
	}
	return out
}

func (w *portWorld) Holders(context.Context) func(string) string {
	return func(id string) string { return w.pods[id] }
}

func (w *portWorld) Leaving(device string) bool { return w.going[device] }
func (w *portWorld) Look()                      { w.wakes++ }

// round is one of package devices: the kubelet hears what is reserved.
func (w *portWorld) round() {
	w.kept = map[string]bool{}
	for _, id := range w.m.devices().Reserved {
		w.kept[id] = true
	}
}

// start is a process: what it knows is in the record alone.
func (w *portWorld) start() {
	w.m = &management{
		plan: intent.ManagementDevice{Resource: "portolan.io/mp"}, node: "n1", kernel: w, pools: w, known: func() bool { return true }, selected: func(intent.Labels) bool { return true },
		resolve: func(id string) (sriov.Device, error) {
			if !slices.Contains(w.there, id) {
				return sriov.Device{}, errors.New(id + " does not exist")
			}
			return sriov.Device{ID: id, Kind: sriov.Soft, Netdev: "sv-" + id, Representor: "sr-" + id}, nil
		},
		port: func(d host.ManagementDevice) {
			if d.Device == "" {
				d.Device = "-"
			}
			w.told = append(w.told, d.Device)
		},
	}
	if err := w.m.resume(); err != nil {
		w.t.Fatal(err)
	}
	w.round()
}

// becomes looks until nothing is to come any more. problem is a part of what is said.
func (w *portWorld) becomes(device, problem string) {
	w.t.Helper()
	for range 10 {
		done, err := w.m.look(w.t.Context())
		w.m.say(err)
		if done {
			break
		}
		w.round()
	}
	list, said := w.m.problems(), ""
	if len(list) > 0 {
		said = list[0].Message
	}
	if w.m.current().Device != device || w.record.Device != device || !strings.Contains(said, problem) || (said == "") != (problem == "") {
		w.t.Errorf("the port is %q (record %q), problem %q; want %q and %q", w.m.current().Device, w.record.Device, said, device, problem)
	}
	if got := w.m.devices(); got.Taken != device || device != "" && !slices.Equal(got.Reserved, []string{device}) {
		w.t.Errorf("the node has %+v, the port is %s", got, device)
	}
}

// TestManagementOfAResource: the port is the first device that is free, keeps it while
// others become free and over restarts, goes on to another when its pool takes it away,
// and is Open vSwitch's own while there is none.
func TestManagementOfAResource(t *testing.T) {
	w := &portWorld{t: t, pods: map[string]string{}, sick: map[string]string{}, going: map[string]bool{}}
	w.start()
	w.becomes("", "no DevicePool offers a device of resource portolan.io/mp on this node")
	w.there = []string{"mp-0", "mp-1", "mp-2"}
	w.pods["mp-0"], w.sick["mp-1"] = "pod demo/web", "its NIC has no link"
	w.becomes("mp-2", "")
	w.pods, w.sick = map[string]string{}, map[string]string{}
	w.becomes("mp-2", "")
	w.start()
	w.becomes("mp-2", "")
	if want := []string{"mp-2"}; !slices.Equal(w.told, want) {
		t.Errorf("the port became %v, want %v", w.told, want)
	}
	w.lost = true // a boot: the device has its own name
	w.start()
	w.becomes("mp-2", "")
	w.going["mp-2"], w.pods["mp-0"] = true, "pod demo/web"
	w.becomes("mp-1", "")
	w.there = []string{"mp-0"}
	w.becomes("", "no device of resource portolan.io/mp is free (mp-0: in use: pod demo/web)")
	if want := []string{"mp-2", "mp-2", "mp-1", "-"}; !slices.Equal(w.told, want) {
		t.Errorf("the port became %v, want %v", w.told, want)
	}
}

// TestManagementLosesARace: a pod that was given the device before the kubelet knew has
// it, and the port is the next.
func TestManagementLosesARace(t *testing.T) {
	w := &portWorld{t: t, there: []string{"mp-0", "mp-1"}, pods: map[string]string{}}
	w.start()
	if done, err := w.m.look(t.Context()); done || err != nil || !slices.Equal(w.m.devices().Reserved, []string{"mp-0"}) || w.wakes != 1 {
		t.Fatalf("the first look: %v, %v, %+v, %d", done, err, w.m.devices(), w.wakes)
	}
	w.pods["mp-0"] = "pod demo/web"
	w.round()
	w.becomes("mp-1", "")
	if want := []string{"mp-1"}; !slices.Equal(w.told, want) {
		t.Errorf("the port became %v, want %v", w.told, want)
	}
}

// TestManagementGivesUp: left out, the device is the pools' again.
func TestManagementGivesUp(t *testing.T) {
	w := &portWorld{t: t, there: []string{"mp-0"}, record: host.ManagementDevice{Device: "mp-0"}}
	w.start()
	w.m.plan.Resource = ""
	w.becomes("", "")
	if len(w.m.devices().Reserved) != 0 {
		t.Errorf("the node still has %+v", w.m.devices())
	}
}
