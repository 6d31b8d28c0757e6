package devices_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/nic/nictest"
	"github.com/portolan-cni/portolan/sriov/plugin/plugintest"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

const (
	fast     = "portolan.io/fast"
	connectx = "0000:3b:00.0"
	patience = plugintest.Patience
)

// world is a node: a machine with NICs, a kubelet, and the agent's part that is tested.
type world struct {
	t          *testing.T
	m          *nictest.Machine
	kernel     *sriovtest.Kernel
	keeper     *sriov.Keeper
	sw         *sriovtest.Switch
	kubelet    *plugintest.Kubelet
	config     devices.Config
	d          *devices.Devices
	stop       func()
	unverified bool // start says nothing of records

	mu    sync.Mutex // guards later
	later time.Duration
}

// newWorld makes a node with these NICs, on which nothing runs yet.
func newWorld(t *testing.T, nics ...sriovtest.NIC) *world {
	t.Helper()
	m := nictest.New(sriovtest.NewTree(t), nics...)
	w := &world{t: t, m: m, kernel: sriovtest.NewKernel(m.Machine), sw: sriovtest.NewSwitch(), kubelet: plugintest.New(t)}
	inventory, quiet := m.Inventory(), slog.New(slog.DiscardHandler)
	var err error
	w.keeper, err = sriov.NewKeeper(sriov.KeeperConfig{Dir: sriovtest.Dir(t), Inventory: inventory, Kernel: w.kernel, Switch: w.sw, Patience: 300 * time.Millisecond, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	w.config = devices.Config{
		Inventory: inventory, Kernel: w.kernel, Records: w.keeper, NICs: nic.New(nic.Config{Inventory: inventory, Machine: m, Patience: time.Second, Log: quiet}),
		Plugins: w.kubelet.Dir(), Resources: w.kubelet.PodResources(), Soft: sriov.SoftOptions{Group: intent.AttachmentGroup},
		Sys: m.Root, Info: filepath.Join(t.TempDir(), "dp"), Log: quiet, Now: w.now,
	}
	t.Cleanup(func() { w.end() })
	return w
}

// now is the time, which tests can have pass.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.later)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	w.later += d
	w.mu.Unlock()
	w.d.Verify() // has everything looked at
}

// start runs it as a new process does.
func (w *world) start(pools ...*intent.DevicePool) {
	w.t.Helper()
	d, err := devices.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.d = d
	d.Label(map[string]string{"zone": "a"})
	for _, p := range pools {
		d.Know(p)
	}
	d.Listed()
	if !w.unverified {
		d.Verify()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.Run(ctx) })
	w.stop = func() {
		cancel()
		wg.Wait()
		if err := d.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *world) end() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

// pool waits until a pool is as asked for.
func (w *world) pool(name string, ok func(v1alpha1.NodeDevicePool) bool) v1alpha1.NodeDevicePool {
	w.t.Helper()
	var last v1alpha1.NodeDevicePool
	w.until(func() bool {
		last = v1alpha1.NodeDevicePool{}
		for _, s := range w.d.States() {
			if s.Name == name {
				last = s
			}
		}
		return ok(last)
	}, func() any { return last })
	return last
}

// until waits for a condition.
func (w *world) until(ok func() bool, last func() any) {
	w.t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-end:
			w.t.Fatalf("it has not come in %s: %+v", patience, last())
		case <-tick.C:
		}
	}
}

func ready(s v1alpha1.NodeDevicePool) bool { return s.Ready }

// because waits for a reason, with a message that says all of these.
func because(reason string, says ...string) func(v1alpha1.NodeDevicePool) bool {
	return func(s v1alpha1.NodeDevicePool) bool {
		for _, text := range says {
			if !strings.Contains(s.Message, text) {
				return false
			}
		}
		return s.Reason == reason
	}
}

// well waits until so many devices of a resource are well to the kubelet, of so many.
func well(n, of int) func(map[string]string) bool {
	return func(m map[string]string) bool { return plugintest.Well(m) == n && len(m) == of }
}

// admit gives a pod devices, as the kubelet does, once so many are well: while a NIC is
// being configured none is.
func (w *world) admit(name, resource string, n int) *plugintest.Pod {
	w.t.Helper()
	var p *plugintest.Pod
	var err error
	w.until(func() bool { p, err = w.kubelet.Admit("ns", name, resource, n); return err == nil }, func() any { return err })
	return p
}

func soft(name string, count int) *intent.DevicePool {
	return &intent.DevicePool{Name: name, Resource: fast, Soft: true, Count: count, VFs: -1}
}

// nics is a pool of all NICs of a vendor, changed by f.
func nics(name string, f func(*intent.DevicePool)) *intent.DevicePool {
	p := &intent.DevicePool{Name: name, Resource: fast, VFs: -1}
	if f != nil {
		f(p)
	}
	return p
}

// shape is the first NIC of a shape, with so many functions, in a mode.
func shape(name string, vfs int, mode sriov.Mode) sriovtest.NIC {
	n := sriovtest.Shapes()[name][0]
	n.VFs, n.Mode = vfs, mode
	return n
}
