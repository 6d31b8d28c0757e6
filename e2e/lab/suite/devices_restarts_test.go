package suite

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/faults"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// deviceSet is a StatefulSet of pods with a device each, on a node: what the kubelet
// refuses to run, as its devices are away, is made again under its name.
func deviceSet(name, host string, replicas int) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  serviceName: %[1]s
  replicas: %[3]d
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}, annotations: {k8s.v1.cni.cncf.io/networks: fast}}
    spec:
      nodeSelector: {kubernetes.io/hostname: %[4]s}
      terminationGracePeriodSeconds: 0
      containers:
      - {name: pause, image: registry.k8s.io/pause:3.10.1, resources: {limits: {%[5]s: 1}}}
`, name, namespace, replicas, host, suiteResource)
}

// TestDevicesRestarts has pods with devices on two nodes, and packets between them. The
// agent's pod is replaced; the kubelet is killed, whose next one knows no plugin; agents are
// killed while pods are made and while they go; a node is cut off and booted. Who has a device
// keeps it, nobody is given one that is another's, and where only the agent or the kubelet
// goes no packet is lost.
func TestDevicesRestarts(t *testing.T) {
	fresh(t)
	offering(t, 4, victim, other)
	first := softLinks(t, victim)
	apply(t, deviceNetworks(suiteResource))
	apply(t, devicePod("a", victim, "fast", suiteResource, 1)+devicePod("two", victim, "fast,quick", suiteResource, 2)+
		devicePod("bare", other, "fast", suiteResource, 1)+deviceSet("set", other, 2))
	kubectl(t, "-n", namespace, "rollout", "status", "statefulset/set", "--timeout=100s")
	pods := attachedPods(t)
	own(t, pods)
	from, to := pods["a"].with(pods["a"].Interfaces[0]), pods["set-0"].with(pods["set-0"].Interfaces[0])
	if err := inTime(20*time.Second, func() error { return answered(from.In(packets.IPv4), to.In(packets.IPv4)) }); err != nil {
		t.Fatal(err)
	}
	t.Run("agent-replaced", func(t *testing.T) {
		lossless(t, from, to, func() {
			old := agentOf(t, victim)
			kubectl(t, "-n", "portolan", "delete", "pod", old, "--wait=true")
			err := inTime(100*time.Second, func() error {
				if now := agentOf(t, victim); now == "" || now == old {
					return fmt.Errorf("the agent's pod was %s, and is %q", old, now)
				}
				return faults.Ready(t.Context(), victim)
			})
			if err != nil {
				t.Error(err)
			}
			offered(t, victim, 4)
		})
		own(t, pods)
	})
	t.Run("kubelet-restarted", func(t *testing.T) {
		lossless(t, from, to, func() { kubeletRestarted(t, victim, 4) })
		own(t, pods)
		apply(t, devicePod("late", victim, "fast", suiteResource, 1)+devicePod("later", victim, "fast", suiteResource, 1))
		oneOf(t, "late", "later")
		own(t, pods)
		kubectl(t, "-n", namespace, "delete", "pod", "late", "later", "--wait=true", "--timeout=60s")
	})
	t.Run("agent-killed-meanwhile", func(t *testing.T) {
		kubectl(t, "-n", namespace, "delete", "pod", "two", "--wait=true", "--timeout=60s")
		atHome(t, victim, 3)
		unlost(t, from, to, func() { killedMeanwhile(t, from) }) // pods are made meanwhile: a busy machine loses packets by itself
	})
	t.Run("node-booted", func(t *testing.T) { nodeBooted(t, other, from) })
	kubectl(t, "-n", namespace, "delete", "statefulset", "--all", "--wait=true", "--timeout=60s")
	kubectl(t, "-n", namespace, "delete", "pod", "--all", "--wait=true", "--timeout=60s")
	asAtFirst(t, victim, first)
	atHome(t, other, 4) // they were made again when the node was booted, with MACs of their own
}

// lossless sends packets while something is done that may cost none. Where all nodes are one
// zone, an agent that is replaced may make a hole (docs/limits.md).
func lossless(t *testing.T, from, to packets.Place, do func()) {
	t.Helper()
	flow, err := packets.StartFlow(from.In(packets.IPv4), to.In(packets.IPv4), 200)
	if err != nil {
		t.Fatal(err)
	}
	do()
	steady := flow.Stop()
	t.Logf("packets meanwhile: %s", steady)
	if most := map[bool]time.Duration{true: hole}[layout(t).Zone == "global"]; steady.Gap > most || steady.Sent == 0 {
		t.Errorf("packets meanwhile: %s", steady)
	}
}

// own wants each pod's interfaces to be the devices that its node's kubelet has given it, in
// order, and no device to be two pods'.
func own(t *testing.T, pods map[string]netPod) {
	t.Helper()
	by := map[string]map[string][]string{}
	err := inTime(60*time.Second, func() error { // a kubelet that has just begun lists no pods yet
		by[victim], by[other] = kubeletGave(t, victim), kubeletGave(t, other)
		for name, p := range pods {
			if len(by[p.Node][name]) == 0 {
				return fmt.Errorf("the kubelet of %s lists no device of pod %s: %v", p.Node, name, by[p.Node])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	holders := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(pods)) {
		p := pods[name]
		ids, have := by[p.Node][name], interfaceDevices(t, p)
		if len(ids) == 0 || !slices.Equal(ids, ordered(t, have)) {
			t.Errorf("the kubelet of %s has given pod %s %v, and its interfaces are %v", p.Node, name, ids, have)
		}
		for _, id := range have {
			if o := holders[p.Node+" "+id]; o != "" {
				t.Errorf("device %s of %s is of pods %s and %s", id, p.Node, o, name)
			}
			holders[p.Node+" "+id] = name
		}
	}
}

// kubeletRestarted kills a kubelet, and waits until the next one has all devices to give:
// it begins with none, until the plugin has registered with it.
func kubeletRestarted(t *testing.T, host string, count int) {
	t.Helper()
	old, err := kubeletSocket(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := signal(host, "kubelet", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began, sockets := time.Now(), time.Duration(0)
	err = inTime(60*time.Second, func() error {
		now, err := kubeletSocket(host)
		if err == nil && now == old {
			err = errors.New("the kubelet's socket is still the old one")
		}
		if err != nil {
			return err
		}
		if sockets == 0 {
			sockets = time.Since(began)
		}
		n, err := canGive(host)
		if err == nil && n != count {
			err = fmt.Errorf("the new kubelet has %d devices to give, want %d", n, count)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the new kubelet had its socket after %v, and %d devices after %v", sockets.Round(time.Millisecond), count, time.Since(began).Round(time.Millisecond))
	kubectl(t, "wait", "--for=condition=Ready", "node/"+host, "--timeout=60s")
	offered(t, host, count)
}

// oneOf wants one of two pods to run, and the other to wait for a device.
func oneOf(t *testing.T, names ...string) {
	t.Helper()
	err := inTime(60*time.Second, func() error {
		text := kubectl(t, "-n", namespace, "get", "pod", names[0], names[1], "-o",
			`jsonpath={range .items[*]}{.status.phase} {.status.conditions[?(@.type=="PodScheduled")].message}{"\n"}{end}`)
		lines := strings.Split(strings.TrimSpace(text), "\n")
		slices.Sort(lines)
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "Pending") || !strings.Contains(lines[0], "Insufficient "+suiteResource) || !strings.HasPrefix(lines[1], "Running") {
			return fmt.Errorf("pods %v, of which one is to run and one to wait: %q", names, lines)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// killedMeanwhile makes three pods and removes them, again and again, and kills the agent
// at other moments of it.
func killedMeanwhile(t *testing.T, from packets.Place) {
	t.Helper()
	for round, wait := range []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 1200 * time.Millisecond} {
		name := fmt.Sprint("k", round)
		kill := func() {
			time.AfterFunc(wait, func() {
				if err := absent(signal(victim, "portolan-node", syscall.SIGKILL)); err != nil {
					t.Error(err)
				}
			})
		}
		kill()
		apply(t, deviceSet(name, victim, 3))
		kubectl(t, "-n", namespace, "rollout", "status", "statefulset/"+name, "--timeout=150s")
		pods := attachedPods(t)
		own(t, pods)
		for n := range 3 {
			p := pods[fmt.Sprint(name, "-", n)]
			to := p.with(p.Interfaces[0])
			for _, f := range bothFamilies {
				if err := inTime(20*time.Second, func() error { return answered(from.In(f), to.In(f)) }); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
		}
		kill()
		kubectl(t, "-n", namespace, "delete", "statefulset", name, "--wait=true", "--timeout=60s")
		kubectl(t, "-n", namespace, "wait", "--for=delete", "pod", "-l", "app="+name, "--timeout=100s")
		atHome(t, victim, 3)
		offered(t, victim, 4)
	}
}

// nodeBooted cuts a node off under its pods, and boots it: its kubelet has no device to give
// before the agent has looked through what was before, and then the pods of the set are made
// again and have devices. A pod that nobody makes again is the kubelet's to run or to refuse.
func nodeBooted(t *testing.T, host string, from packets.Place) {
	sandboxes := map[string]bool{}
	for _, p := range devicePorts(t, host) {
		sandboxes[p.Sandbox] = true
	}
	if len(sandboxes) != 3 || sandboxes[""] {
		t.Fatalf("sandboxes that have devices of %s: %v, want three", host, sandboxes)
	}
	lab(t, "crash", host)
	began := time.Now()
	lab(t, "boot", host)
	err := inTime(3*time.Minute, func() error {
		n, err := canGive(host)
		if err != nil || n == 0 {
			return fmt.Errorf("the kubelet has %d devices to give, want 4: %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("devices are to be had %v after the boot", time.Since(began).Round(100*time.Millisecond))
	for _, p := range devicePorts(t, host) { // Open vSwitch's database is on the disk
		if sandboxes[p.Sandbox] {
			t.Errorf("the kubelet may give devices, and %s has a port of sandbox %s of before the boot", p.Device, p.Sandbox)
		}
	}
	kubectl(t, "wait", "--for=condition=Ready", "node/"+host, "--timeout=120s")
	offered(t, host, 4)
	for _, name := range []string{"set-0", "set-1", "bare"} {
		if err := inTime(3*time.Minute, func() error { return again(t, name, host) }); err != nil {
			t.Fatal(err)
		}
	}
	pods := attachedPods(t)
	own(t, pods)
	for _, name := range []string{"set-0", "set-1"} {
		p := pods[name]
		to := p.with(p.Interfaces[0])
		for _, f := range bothFamilies {
			if err := inTime(60*time.Second, func() error { return answered(from.In(f), to.In(f)) }); err != nil {
				t.Errorf("after the boot, %s: %v", f, err)
			}
		}
	}
}

// again says whether a pod runs in a sandbox that is there. A pod that is on its own and that
// the kubelet has refused, as there were no devices yet, has had its end: it is removed.
func again(t *testing.T, name, host string) error {
	var p struct {
		Status struct {
			Phase, Reason, Message string
			PodIPs                 []struct{ IP netip.Addr }
		}
	}
	text := kubectl(t, "-n", namespace, "get", "pod", name, "--ignore-not-found", "-o", "json")
	if text == "" && name == "bare" {
		return nil
	}
	if text == "" {
		return fmt.Errorf("there is no pod %s", name)
	}
	decode(t, text, &p)
	if p.Status.Phase == "Failed" {
		t.Logf("pod %s: %s: %s", name, p.Status.Reason, p.Status.Message)
		if name == "bare" {
			kubectl(t, "-n", namespace, "delete", "pod", name, "--wait=true", "--timeout=60s")
			return nil
		}
	}
	var addrs []netip.Addr
	for _, ip := range p.Status.PodIPs {
		addrs = append(addrs, ip.IP)
	}
	if p.Status.Phase != "Running" || len(addrs) == 0 {
		return fmt.Errorf("pod %s is %s: %s", name, p.Status.Phase, p.Status.Message)
	}
	if _, ok := find(pod{Place: packets.Place{Name: name, Addr: addrs[0], Addrs: addrs}, Node: host, Pod: name}); !ok {
		return fmt.Errorf("pod %s has no sandbox with %s", name, addrs)
	}
	return nil
}
