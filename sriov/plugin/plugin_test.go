package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/sriov/plugin"
	"github.com/portolan-cni/portolan/sriov/plugin/plugintest"
)

const fast = "portolan.io/fast"

// run serves until the test ends, and returns what ends it earlier.
func run(t *testing.T, p *plugin.Plugins) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

func declare(t *testing.T, p *plugin.Plugins, list ...plugin.Resource) {
	t.Helper()
	if err := p.Declare(list); err != nil {
		t.Fatal(err)
	}
}

func devices(n int) []plugin.Device {
	out := make([]plugin.Device, n)
	for i := range out {
		out[i] = plugin.Device{ID: fmt.Sprintf("soft-a-%d", i), NUMA: -1}
	}
	return out
}

func well(n int) func(map[string]string) bool {
	return func(m map[string]string) bool { return plugintest.Well(m) == n }
}

// TestKubeletSees follows what is declared: more devices, unwell ones, a second
// resource, none.
func TestKubeletSees(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: devices(2)})
	run(t, p)
	k.Wait(fast, well(2))

	list := devices(3)
	list[0].Trouble = "its PF has no link"
	declare(t, p, plugin.Resource{Name: fast, Devices: list}, plugin.Resource{Name: "portolan.io/slow", Devices: devices(1)})
	k.Wait(fast, func(m map[string]string) bool {
		return len(m) == 3 && m["soft-a-0"] == "Unhealthy" && plugintest.Well(m) == 2
	})
	k.Wait("portolan.io/slow", well(1))
	until(t, p, func(list []plugin.State) bool {
		return !slices.ContainsFunc(list, func(s plugin.State) bool { return !s.Registered || s.Err != nil })
	})

	declare(t, p, plugin.Resource{Name: fast, Devices: list})
	k.Wait("portolan.io/slow", func(m map[string]string) bool { return len(m) == 0 })
	if n := len(p.States()); n != 1 {
		t.Errorf("%d resources, and one is declared", n)
	}
	declare(t, p, plugin.Resource{Name: fast, Devices: list}, plugin.Resource{Name: "portolan.io/slow", Devices: devices(4)})
	k.Wait("portolan.io/slow", well(4))
}

// TestKubeletRestarts: it removes every socket, and knows nothing any more.
func TestKubeletRestarts(t *testing.T) {
	k := plugintest.New(t)
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: devices(2)})
	run(t, p)
	k.Start() // after the plugin
	k.Wait(fast, well(2))
	for n := range 3 {
		before := k.Registrations()
		k.Stop()
		k.Start()
		k.Wait(fast, well(2))
		if got := k.Registrations() - before; got != 1 {
			t.Errorf("restart %d: registered %d times", n, got)
		}
	}
}

// TestKubeletIsAway says why nothing is registered.
func TestKubeletIsAway(t *testing.T) {
	k := plugintest.New(t)
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: devices(1)})
	run(t, p)
	until(t, p, func(list []plugin.State) bool {
		return list[0].Err != nil && !list[0].Registered && strings.Contains(list[0].Err.Error(), "has no socket")
	})
}

// until waits for how the kubelet stands to the resources.
func until(t *testing.T, p *plugin.Plugins, ok func([]plugin.State) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(p.States()); {
		if time.Now().After(deadline) {
			t.Fatalf("states %+v", p.States())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestRefusedName: a kubelet that does not take a resource says so, and others are
// served.
func TestRefusedName(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: "kubernetes.io/fast", Devices: devices(1)}, plugin.Resource{Name: fast, Devices: devices(1)})
	run(t, p)
	k.Wait(fast, well(1))
	until(t, p, func(list []plugin.State) bool {
		return !list[0].Registered && list[0].Err != nil && strings.Contains(list[0].Err.Error(), "no name of an extended resource")
	})
}

// TestRunEnds leaves no socket, and to the kubelet the devices are unwell.
func TestRunEnds(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: devices(2)})
	stop := run(t, p)
	k.Wait(fast, well(2))
	stop()
	k.Wait(fast, well(0))
	left, err := filepath.Glob(filepath.Join(k.Dir(), "portolan-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	// The next one, of another process, is registered anew.
	next := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, next, plugin.Resource{Name: fast, Devices: devices(2)})
	run(t, next)
	k.Wait(fast, well(2))
}

// TestAllocate: what a container gets, and who is known to have a device at once.
func TestAllocate(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	var told []string
	p := plugin.New(plugin.Config{Dir: k.Dir(), Given: func(resource string, ids []string) error {
		told = append(told, resource+" "+strings.Join(ids, ","))
		return nil
	}})
	vfio := plugin.Device{ID: "0000:03:00.2", NUMA: 0, PF: "0000:03:00.0",
		Files: []plugin.File{{Host: "/dev/vfio/vfio"}, {Host: "/dev/vfio/42"}},
		Info:  map[string]map[string]string{"vfio": {"mount": "/dev/vfio/vfio", "dev-mount": "/dev/vfio/42"}}}
	other := vfio
	other.ID, other.Files = "0000:03:00.3", []plugin.File{{Host: "/dev/vfio/vfio"}, {Host: "/dev/vfio/noiommu-1", Container: "/dev/vfio/1"}}
	declare(t, p, plugin.Resource{Name: "portolan.io/fast-1", Devices: []plugin.Device{vfio, other}})
	run(t, p)
	k.Wait("portolan.io/fast-1", well(2))
	if p.Recent(vfio.ID, time.Minute) {
		t.Error("given to nobody, and recent")
	}
	pod, err := k.Admit("demo", "a", "portolan.io/fast-1", 2)
	if err != nil {
		t.Fatal(err)
	}
	got := pod.Answer["portolan.io/fast-1"]
	if want := "0000:03:00.2,0000:03:00.3"; got.Envs["PCIDEVICE_PORTOLAN_IO_FAST_1"] != want {
		t.Errorf("ids %v, want %s", got.Envs, want)
	}
	var info map[string]map[string]map[string]string
	if err := json.Unmarshal([]byte(got.Envs["PCIDEVICE_PORTOLAN_IO_FAST_1_INFO"]), &info); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]map[string]string{"generic": {"deviceID": vfio.ID}, "vfio": vfio.Info["vfio"]}, info[vfio.ID]); diff != "" {
		t.Error(diff)
	}
	var files []string
	for _, f := range got.Devices {
		files = append(files, f.HostPath+" "+f.ContainerPath+" "+f.Permissions)
	}
	if diff := cmp.Diff([]string{"/dev/vfio/42 /dev/vfio/42 rw", "/dev/vfio/noiommu-1 /dev/vfio/1 rw", "/dev/vfio/vfio /dev/vfio/vfio rw"}, files); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"portolan.io/fast-1 0000:03:00.2,0000:03:00.3"}, told); diff != "" {
		t.Error(diff)
	}
	if !p.Recent(vfio.ID, time.Minute) || p.Recent(vfio.ID, 0) {
		t.Error("given just now, and not recent; or recent for ever")
	}
}

// TestAllocateCDI hands names over instead of files.
func TestAllocateCDI(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: []plugin.Device{{ID: "0000:03:00.2", NUMA: -1, CDI: fast + "=0000:03:00.2", Files: []plugin.File{{Host: "/dev/vfio/42"}}}}})
	run(t, p)
	k.Wait(fast, well(1))
	pod, err := k.Admit("demo", "a", fast, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := pod.Answer[fast]
	if len(got.Devices) != 0 || len(got.CdiDevices) != 1 || got.CdiDevices[0].Name != fast+"=0000:03:00.2" {
		t.Errorf("answer %v", got)
	}
}

// TestNobodyGetsUnwellDevices: not even while the kubelet believes that they are well.
func TestNobodyGetsUnwellDevices(t *testing.T) {
	k := plugintest.New(t)
	k.Start()
	fail := errors.New("its file cannot be written")
	p := plugin.New(plugin.Config{Dir: k.Dir(), Given: func(_ string, ids []string) error {
		if slices.Contains(ids, "soft-a-1") {
			return fail
		}
		return nil
	}})
	list := devices(1)
	declare(t, p, plugin.Resource{Name: fast, Devices: list})
	run(t, p)
	k.Wait(fast, well(1))
	list[0].Trouble = "PF ens1f0 is being changed"
	declare(t, p, plugin.Resource{Name: fast, Devices: list})
	if _, err := k.Admit("demo", "a", fast, 1); err == nil || !strings.Contains(err.Error(), "PF ens1f0 is being changed") && !strings.Contains(err.Error(), "too few devices") {
		t.Errorf("error %v", err)
	}
	declare(t, p, plugin.Resource{Name: fast})
	if _, err := k.Admit("demo", "b", fast, 1); err == nil {
		t.Error("a device that is gone was given")
	}
	declare(t, p, plugin.Resource{Name: fast, Devices: devices(2)[1:]})
	k.Wait(fast, func(m map[string]string) bool { return m["soft-a-1"] == "Healthy" })
	if _, err := k.Admit("demo", "c", fast, 1); err == nil || !strings.Contains(err.Error(), fail.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestDeclareRefuses(t *testing.T) {
	p := plugin.New(plugin.Config{Dir: t.TempDir()})
	for _, list := range [][]plugin.Resource{
		{{Name: fast, Devices: append(devices(1), devices(1)...)}},
		{{Name: fast, Devices: []plugin.Device{{ID: strings.Repeat("a", 64)}}}},
		{{Name: fast}, {Name: fast}},
	} {
		if p.Declare(list) == nil {
			t.Errorf("taken: %+v", list)
		}
	}
}

// TestPreferred: devices near each other, over all PFs, and one by one of the PF that
// has most.
func TestPreferred(t *testing.T) {
	var list []plugin.Device
	add := func(numa int, pf string, n int) {
		for i := range n {
			list = append(list, plugin.Device{ID: fmt.Sprintf("%s.%d", pf, i), NUMA: numa, PF: pf})
		}
	}
	add(0, "a", 2)
	add(0, "b", 3)
	add(1, "c", 2)
	add(1, "d", 1)
	k := plugintest.New(t)
	k.Start()
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: list})
	run(t, p)
	k.Wait(fast, well(len(list)))
	for n, want := range [][]string{{"b.0"}, {"a.0", "b.1"}, {"c.0", "d.0"}, {"a.1", "b.2"}, {"c.1"}} {
		pod, err := k.Admit("demo", fmt.Sprint("p", n), fast, len(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(pod.Devices[fast]))); diff != "" {
			t.Errorf("pod %d: %s", n, diff)
		}
	}
}

// TestDirectoryComesLate: hostPath directories may be made by a kubelet that starts later.
func TestDirectoryComesLate(t *testing.T) {
	k := plugintest.New(t)
	if err := os.RemoveAll(k.Dir()); err != nil {
		t.Fatal(err)
	}
	p := plugin.New(plugin.Config{Dir: k.Dir()})
	declare(t, p, plugin.Resource{Name: fast, Devices: devices(1)})
	run(t, p)
	if err := os.MkdirAll(k.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	k.Start()
	k.Wait(fast, well(1))
	if !maps.Equal(k.Devices(fast), map[string]string{"soft-a-0": "Healthy"}) {
		t.Errorf("devices %v", k.Devices(fast))
	}
}
