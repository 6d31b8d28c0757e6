package devices_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/plugin"
)

// softs lists the soft devices that the machine has.
func (w *world) softs() []string {
	w.t.Helper()
	ids, err := w.config.Inventory.SoftDevices(intent.AttachmentGroup)
	if err != nil {
		w.t.Fatal(err)
	}
	return ids
}

// attach gives a pod a device, as the CNI server does.
func (w *world) attach(device, pod, key string) sriov.Owner {
	w.t.Helper()
	o := sriov.Owner{Sandbox: "box-" + pod, Pod: "ns/" + pod, UID: "uid-" + pod, NAD: key, IfName: "net1", Netns: "/run/netns/" + pod}
	w.kernel.Sandbox(o.Netns)
	if _, err := w.keeper.Attach(w.t.Context(), sriov.Attachment{Device: device, Owner: o}); err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) release(device string, o sriov.Owner) {
	w.t.Helper()
	if err := w.keeper.Release(w.t.Context(), device, o); err != nil {
		w.t.Fatal(err)
	}
}

// TestSoftPool follows a pool from its first device to its last: what a pod has stays
// until the pod is gone.
func TestSoftPool(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.start(soft("a", 3))
	w.kubelet.Wait(fast, well(3, 3))
	s := w.pool("a", ready)
	if s.Devices != 3 || s.Well != 3 || s.InUse != 0 {
		t.Errorf("it says %+v", s)
	}
	pod := w.admit("p", fast, 1)
	id := pod.Devices[fast][0]
	if got := pod.Answer[fast].Envs[plugin.Variable(fast)]; got != id {
		t.Errorf("the container is told %q, and has %q", got, id)
	}
	o := w.attach(id, "p", "ns/fast")
	w.d.Know(soft("a", 3))
	w.pool("a", func(s v1alpha1.NodeDevicePool) bool { return s.InUse == 1 && s.Well == 3 })

	w.d.Forget("a")
	w.kubelet.Wait(fast, func(m map[string]string) bool { return len(m) == 0 })
	w.until(func() bool { return len(w.softs()) == 1 }, func() any { return w.softs() })
	if left := w.softs(); left[0] != id {
		t.Fatalf("%v are left, and the pod has %s", left, id)
	}
	w.release(id, o)
	w.pass(0)
	if left := w.softs(); !slices.Equal(left, []string{id}) {
		t.Fatalf("%v are left, and the kubelet still says that the pod has %s", left, id)
	}
	w.kubelet.Remove("ns", "p")
	w.until(func() bool { w.pass(1e9); return len(w.softs()) == 0 }, func() any { return w.softs() })
}

// TestSoftChanges: more, fewer, another MTU, and what somebody else has removed.
func TestSoftChanges(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.start(soft("a", 2))
	w.kubelet.Wait(fast, well(2, 2))
	more := soft("a", 4)
	more.MTU = 1400
	w.d.Know(more)
	w.kubelet.Wait(fast, well(4, 4))
	w.until(func() bool {
		a, err := w.kernel.Link(w.kernel.Host(), "sv-a-0")
		b, err2 := w.kernel.Link(w.kernel.Host(), "sr-a-3")
		return err == nil && err2 == nil && a.MTU == 1400 && b.MTU == 1400
	}, func() any { return w.kernel.Snapshot() })
	if err := w.kernel.RemoveSoft("sr-a-1"); err != nil {
		t.Fatal(err)
	}
	w.d.Know(more)
	w.until(func() bool { return len(w.softs()) == 4 }, func() any { return w.softs() })
	w.d.Know(soft("a", 1))
	w.kubelet.Wait(fast, well(1, 1))
	w.until(func() bool { return slices.Equal(w.softs(), []string{"soft-a-0"}) }, func() any { return w.softs() })
}

// TestSoftFewerWaits: a device that is one too many, and a pod's, keeps its pool from being
// ready until the pod is gone.
func TestSoftFewerWaits(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.start(soft("a", 2))
	w.kubelet.Wait(fast, well(2, 2))
	id := w.admit("p", fast, 1).Devices[fast][0]
	o := w.attach(id, "p", "ns/fast")
	w.d.Know(soft("a", 0))
	s := w.pool("a", because(v1alpha1.PoolWaiting, id, "ns/p"))
	if s.Ready || !slices.Contains(s.Steps, "remove soft device "+id) {
		t.Errorf("it says %+v", s)
	}
	w.release(id, o)
	w.kubelet.Remove("ns", "p")
	w.until(func() bool { w.pass(1e9); return len(w.softs()) == 0 }, func() any { return w.softs() })
	w.pool("a", ready)
}

// TestSoftForeign: devices that look like soft ones and are in no link group of ours are
// somebody else's; a pool that cannot be read keeps what it may have.
func TestSoftForeign(t *testing.T) {
	w := newWorld(t)
	if err := w.kernel.MakeSoft("sv-x-0", "sr-x-0", sriov.SoftOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"gone-0", "bad-0"} {
		if err := w.kernel.MakeSoft("sv-"+label, "sr-"+label, w.config.Soft); err != nil {
			t.Fatal(err)
		}
	}
	w.kubelet.Start()
	w.start(&intent.DevicePool{Name: "bad", Invalid: "spec.soft.count: 1000 is too many"}, soft("a", 1))
	w.until(func() bool { return slices.Equal(w.softs(), []string{"soft-a-0", "soft-bad-0"}) }, func() any { return w.softs() })
	if _, err := w.kernel.Link(w.kernel.Host(), "sr-x-0"); err != nil {
		t.Errorf("the foreign pair: %v", err)
	}
	w.pool("bad", because(v1alpha1.PoolFailed, "1000 is too many"))
}

// TestInvalidKeeps: a mistake in writing takes nothing away.
func TestInvalidKeeps(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.start(soft("a", 2))
	w.kubelet.Wait(fast, well(2, 2))
	w.d.Know(&intent.DevicePool{Name: "a", Invalid: "spec.resourceName: no"})
	w.pool("a", because(v1alpha1.PoolFailed, "spec.resourceName"))
	w.kubelet.Wait(fast, well(2, 2))
}

func TestSoftNames(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.start(soft("a-pool-with-a-very-long-name", 1), soft("a-pool-with-a-very-long-namf", 1), soft("eight888", 256))
	w.kubelet.Wait(fast, well(258, 258))
	for _, id := range w.softs() {
		if label := strings.TrimPrefix(id, "soft-"); len(label) > 12 {
			t.Errorf("%s has a label of %d bytes", id, len(label))
		}
	}
}

// TestSoftDryRun changes nothing, and offers nothing.
func TestSoftDryRun(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	p := soft("a", 2)
	p.DryRun = true
	w.start(p)
	s := w.pool("a", because(v1alpha1.PoolDryRun, "2 steps"))
	if !slices.Equal(s.Steps, []string{"make soft device soft-a-0", "make soft device soft-a-1"}) || s.Devices != 0 || len(w.softs()) != 0 {
		t.Errorf("it says %+v; there are %v", s, w.softs())
	}
}

// TestRestart: a new process offers what is there, and makes nothing anew.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.start(soft("a", 2))
	w.kubelet.Wait(fast, well(2, 2))
	before := w.kernel.Snapshot()
	w.end()
	w.start(soft("a", 2))
	w.kubelet.Wait(fast, well(2, 2))
	if after := w.kernel.Snapshot(); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
	w.kubelet.Stop()
	w.kubelet.Start()
	w.kubelet.Wait(fast, well(2, 2))
}

// TestUnverified: before the records are looked through nothing is made, and what is
// there is unwell.
func TestUnverified(t *testing.T) {
	w := newWorld(t)
	if err := w.kernel.MakeSoft("sv-a-0", "sr-a-0", w.config.Soft); err != nil {
		t.Fatal(err)
	}
	w.kubelet.Start()
	w.unverified = true
	w.start(soft("a", 2))
	w.kubelet.Wait(fast, well(0, 2))
	w.pool("a", because(v1alpha1.PoolConfiguring, "records"))
	if len(w.softs()) != 1 {
		t.Errorf("there are %v", w.softs())
	}
	w.d.Verify()
	w.kubelet.Wait(fast, well(2, 2))
}

// TestNodesDevice: what the node has, or is about to take, no pod is given; it stays with
// its pool gone until the node lets it go, and a pool of nothing else is well.
func TestNodesDevice(t *testing.T) {
	w := newWorld(t)
	var node devices.Node
	w.config.Node = func() devices.Node {
		w.mu.Lock()
		defer w.mu.Unlock()
		return node
	}
	have := func(n devices.Node) {
		w.mu.Lock()
		node = n
		w.mu.Unlock()
		w.d.Look()
	}
	w.kubelet.Start()
	w.start(soft("a", 11))
	w.kubelet.Wait(fast, well(11, 11))
	w.until(w.d.Settled, func() any { return w.d.Candidates(fast) })
	if list := w.d.Candidates(fast); len(list) != 11 || list[2].ID != "soft-a-2" || list[10].ID != "soft-a-10" || list[0].Kept || list[0].Trouble != "" {
		t.Fatalf("candidates %+v", list)
	}
	have(devices.Node{Reserved: []string{"soft-a-0"}})
	w.kubelet.Wait(fast, well(10, 11))
	w.until(func() bool { return w.d.Candidates(fast)[0].Kept }, func() any { return w.d.Candidates(fast) })
	id := w.admit("p", fast, 1).Devices[fast][0]
	if who := w.d.Holders(t.Context())(id); id == "soft-a-0" || !strings.Contains(who, "ns/p") {
		t.Errorf("the pod has %s, held by %q", id, who)
	}

	have(devices.Node{Reserved: []string{"soft-a-0"}, Taken: "soft-a-0"})
	w.kernel.Udev("sv-a-0", "ovn-k8s-mp0") // the name that the management port has
	w.kubelet.Remove("ns", "p")
	w.d.Know(soft("a", 1))
	w.pass(time.Minute) // what the kubelet gave just now may be a pod's
	w.kubelet.Wait(fast, well(0, 1))
	if s := w.pool("a", func(s v1alpha1.NodeDevicePool) bool { return s.Devices == 1 }); !s.Ready || s.Well != 0 || s.InUse != 1 {
		t.Errorf("it says %+v", s)
	}
	if who := w.d.Holders(t.Context())("soft-a-0"); who != "" {
		t.Errorf("to the node its own device is held by %s", who)
	}
	w.d.Forget("a")
	w.until(func() bool { return w.d.Leaving("soft-a-0") }, func() any { return w.softs() })
	w.pass(0)
	if left := w.softs(); !slices.Equal(left, []string{"soft-a-0"}) {
		t.Fatalf("%v are left, and the node has soft-a-0", left)
	}
	have(devices.Node{})
	w.until(func() bool { w.pass(0); return len(w.softs()) == 0 }, func() any { return w.softs() })
}
