package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// The size of the churn: twice as many pods as there are devices.
const (
	churnDevices = 3
	churnPods    = 2 * churnDevices
)

// TestDevicesChurn has few devices on a node and twice as many pods that want one, which are
// deleted and created in an order that PORTOLAN_SEED repeats, while the agent is killed now
// and then, for as long as PORTOLAN_DEVICE_CHURN says (90s). All the time kubelet and br-int
// are asked whether a device is two pods'; each pod that is ready is compared with both,
// and pinged. In the end as many run as there are devices, the others have their turn, and
// each device is as it was at first.
func TestDevicesChurn(t *testing.T) {
	lasts, dice := lasting(t, "PORTOLAN_DEVICE_CHURN", "90s"), rand.New(rand.NewPCG(orderOf(t), 0))
	fresh(t)
	offering(t, churnDevices, victim)
	first := softLinks(t, victim)
	apply(t, deviceNetworks(suiteResource)+attachedPod("far", other, "fast"))
	c := &rivals{t: t, dice: dice, owners: map[string]string{}}
	far := attachedPods(t)["far"]
	c.from = far.with(far.Interfaces[0])
	stop := c.look()
	t.Cleanup(stop)
	pace := time.NewTicker(time.Second)
	defer pace.Stop()
	for end := time.Now().Add(lasts); time.Now().Before(end) && !t.Failed(); <-pace.C {
		c.step()
		c.check()
	}
	c.settle()
	stop()
	kubectl(t, "-n", namespace, "delete", "pod", "--all", "--wait=true", "--timeout=100s")
	asAtFirst(t, victim, first)
	if left := kubeletGave(t, victim); len(left) > 0 {
		t.Errorf("all pods are gone, and by the kubelet there are %v", left)
	}
	c.report()
}

// rivals are pods that want the same few devices.
type rivals struct {
	t    *testing.T
	dice *rand.Rand
	from packets.Place // a pod of another node, which pings them

	owners  map[string]string // UID of the pod that had a device last, by device
	steps   int
	made    int
	kills   int
	refused int // pods that the kubelet did not take
	passed  int // devices that went from one pod to another
	pinged  int
	looks   atomic.Int64
}

// rival is a pod, as the API server has it.
type rival struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp string
		Annotations       map[string]string
	}
	Spec   struct{ NodeName string }
	Status struct {
		Phase, Message string
		Conditions     []struct{ Type, Status, Message string }
	}
}

func (r rival) is(condition string) bool {
	for _, c := range r.Status.Conditions {
		if c.Type == condition {
			return c.Status == "True"
		}
	}
	return false
}

// on is the pod's interface of the network; false while it does not tell of it.
func (r rival) on() (netStatus, bool) {
	var list []netStatus
	_ = json.Unmarshal([]byte(r.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]), &list) // none yet
	for _, s := range list {
		if s.Name == namespace+"/fast" && len(s.IPs) > 0 {
			return s, true
		}
	}
	return netStatus{}, false
}

// list are the rivals that there are.
func (c *rivals) list() map[string]rival {
	var list struct{ Items []rival }
	decode(c.t, kubectl(c.t, "-n", namespace, "get", "pods", "-o", "json"), &list)
	out := map[string]rival{}
	for _, r := range list.Items {
		if r.Metadata.Name != "far" {
			out[r.Metadata.Name] = r
		}
	}
	return out
}

// step does one thing; every tenth kills the agent.
func (c *rivals) step() {
	there := c.list()
	for name, r := range there {
		if r.Status.Phase == "Failed" { // the kubelet had no device for it after all: a force-deleted one still has it, or the agent is away
			c.refused++
			c.t.Logf("pod %s: %s", name, r.Status.Message)
			kubectl(c.t, "-n", namespace, "delete", "pod", name, "--ignore-not-found", "--wait=false")
			delete(there, name)
		}
	}
	if c.steps++; c.steps%10 == 5 {
		err := signal(victim, "portolan-node", syscall.SIGKILL)
		if err == nil {
			c.kills++
		} else if absent(err) != nil {
			c.t.Error(err)
		}
		return
	}
	if len(there) < churnPods {
		manifest := ""
		for range 1 + c.dice.IntN(churnPods-len(there)) {
			manifest += devicePod(fmt.Sprint("p", c.made), victim, "fast", suiteResource, 1)
			c.made++
		}
		apply(c.t, manifest)
		return
	}
	names := slices.Sorted(maps.Keys(there))
	name := names[c.dice.IntN(len(names))]
	args := []string{"-n", namespace, "delete", "pod", name, "--ignore-not-found", "--timeout=100s"}
	switch c.dice.IntN(3) {
	case 0:
		kubectl(c.t, append(args, "--wait=false")...)
	case 1:
		kubectl(c.t, append(args, "--grace-period=0", "--force", "--wait=false")...)
	case 2: // and again under its name
		kubectl(c.t, append(args, "--grace-period=0", "--force", "--wait=true")...)
		apply(c.t, devicePod(name, victim, "fast", suiteResource, 1))
		c.made++
	}
}

// look asks kubelet and br-int for devices of two pods, until it is stopped.
func (c *rivals) look() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var last map[string]string
		for tick := time.NewTicker(200 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			list, err := givenBy(victim)
			if err != nil {
				c.t.Errorf("asking the kubelet: %v", err)
				return
			}
			now := map[string]string{}
			by := map[string]string{}
			for _, g := range list {
				for _, id := range g.IDs {
					if o := by[id]; o != "" {
						now[id] = o + " and " + g.Pod
					}
					by[id] = g.Pod
				}
			}
			for id, both := range now {
				// The kubelet lists one pod after the other: a device may go from one to the next meanwhile.
				if last[id] == both {
					c.t.Errorf("by the kubelet device %s is of pods %s", id, both)
				}
			}
			last = now
			devicePorts(c.t, victim) // an error where two ports have one MAC
			c.looks.Add(1)
		}
	}()
	return func() { cancel(); <-done }
}

// check compares pods that are ready, before and after, with what kubelet and br-int say of
// their devices, and pings them.
func (c *rivals) check() {
	before := c.list()
	ids, ports := map[string][]string{}, devicePorts(c.t, victim)
	list, err := givenBy(victim)
	if err != nil {
		c.t.Error(err)
	}
	for _, g := range list {
		ids[g.Pod] = append(ids[g.Pod], g.IDs...)
	}
	pinged := map[string]error{}
	for name, r := range before {
		if s, ok := r.on(); ok && r.is("Ready") {
			to := packets.Place{Name: name, Addr: s.IPs[0]}
			pinged[name] = answered(c.from, to)
		}
	}
	after := c.list()
	found := map[string]string{} // pod by device
	for name, err := range pinged {
		r := after[name]
		if r.Metadata.UID != before[name].Metadata.UID || r.Metadata.DeletionTimestamp != "" || before[name].Metadata.DeletionTimestamp != "" || !r.is("Ready") {
			continue
		}
		if err != nil {
			c.t.Error(err)
		}
		s, _ := before[name].on()
		p, gave := ports[s.MAC], ids[namespace+"/"+name]
		if p.Device == "" || !slices.Contains(gave, p.Device) || !strings.Contains(p.Pod, name) {
			c.t.Errorf("pod %s (%s) is ready; the kubelet has given it %v, and the port with its MAC is %+v", name, s.MAC, gave, p)
			continue
		}
		if o := found[p.Device]; o != "" {
			c.t.Errorf("device %s is of pods %s and %s", p.Device, o, name)
		}
		found[p.Device] = name
		if c.owners[p.Device] != r.Metadata.UID {
			c.passed++
		}
		c.owners[p.Device] = r.Metadata.UID
		c.pinged++
	}
}

// settle stops the churn: as many pods run as there are devices, and each of the others
// when one of those goes.
func (c *rivals) settle() {
	c.t.Helper()
	turn := map[string]bool{}
	for left := churnPods; left > 0 && !c.t.Failed(); left -= churnDevices {
		var ready []string
		err := inTime(2*time.Minute, func() error {
			there := c.list()
			if left == churnPods && len(there) < churnPods {
				c.step()
				return fmt.Errorf("%d pods, want %d", len(there), churnPods)
			}
			ready = nil
			for name, r := range there {
				if r.Status.Phase == "Failed" {
					kubectl(c.t, "-n", namespace, "delete", "pod", name, "--ignore-not-found", "--wait=true", "--timeout=60s")
					apply(c.t, devicePod(name, victim, "fast", suiteResource, 1))
				}
				if _, ok := r.on(); ok && r.is("Ready") && r.Metadata.DeletionTimestamp == "" {
					ready = append(ready, name)
				}
			}
			if len(ready) != churnDevices || len(there) != left {
				return fmt.Errorf("ready are %v of %d pods, want %d", ready, len(there), churnDevices)
			}
			return nil
		})
		if err != nil {
			c.t.Error(err)
			return
		}
		pinged := c.pinged
		c.check()
		if c.pinged != pinged+churnDevices {
			c.t.Errorf("%d of %v were compared and pinged", c.pinged-pinged, ready)
		}
		for _, name := range ready {
			turn[name] = true
			kubectl(c.t, "-n", namespace, "delete", "pod", name, "--wait=true", "--timeout=100s")
		}
	}
	if len(turn) != churnPods {
		c.t.Errorf("pods that had a device in the end: %v, want %d", slices.Sorted(maps.Keys(turn)), churnPods)
	}
}

// report says what was done, and wants it to be enough.
func (c *rivals) report() {
	late := 0
	for _, e := range strings.Split(kubectl(c.t, "-n", namespace, "get", "events", "-o", `jsonpath={range .items[?(@.reason=="FailedCreatePodSandBox")]}{.message}{"\n"}{end}`), "\n") {
		if strings.TrimSpace(e) != "" {
			late++
			c.t.Logf("sandbox made later: %.300s", e)
		}
	}
	c.t.Logf("%d pods created, %d agents killed, %d pods that the kubelet refused, %d sandboxes made later; devices went %d times to another pod; %d pods compared and pinged; kubelet and br-int were asked %d times",
		c.made, c.kills, c.refused, late, c.passed, c.pinged, c.looks.Load())
	if c.kills == 0 || c.passed <= 2*churnDevices || c.looks.Load() < 10 {
		c.t.Error("no agent was killed, hardly a device went to another pod, or nobody looked: this proves nothing")
	}
}
