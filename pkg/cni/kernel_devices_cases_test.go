//go:build kernel

package cni_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

// twoOfFour are a pod's four networks, of which two give devices.
func twoOfFour(t *testing.T) *server {
	p := web()
	p.Selection = "four"
	return deviceServer(t, map[string]string{"shop/net1": "soft-a-0", "shop/net3": "soft-a-1"}, p)
}

const twoAtHome = "sr-a-0 up=false mtu=1500, sr-a-1 up=false mtu=1500, sv-a-0 up=false mtu=1500, sv-a-1 up=false mtu=1500"

// What the database's log has of a port that was made, and that was removed.
const (
	portMade    = `table Port insert`
	portRemoved = `table Port row .*\n *delete row`
)

// portCommits counts the transactions so far that made ports, or removed some.
func portCommits(t *testing.T, what string) int {
	t.Helper()
	out, err := ovsdbtest.Command("ovsdb-tool", "-m", "show-log", filepath.Join(nstest.Dir(), "conf.db")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n := 0
	for _, record := range strings.Split(string(out), "\nrecord ") {
		if match, err := regexp.MatchString(what, record); err != nil || match {
			n++
		}
	}
	return n
}

// TestKernelDevicesOfFour makes pairs and devices in one transaction.
func TestKernelDevicesOfFour(t *testing.T) {
	softDevices(t, "a-0", "a-1")
	s := twoOfFour(t)
	ns := sandbox(t, "mixed")
	made, removed := portCommits(t, portMade), portCommits(t, portRemoved)
	s.succeed(nativeCall(wire.Add, "mixed", ns))
	if n := portCommits(t, portMade) - made; n != 1 {
		t.Errorf("ADD of two devices and three pairs took %d transactions, want 1", n)
	}
	s.succeed(nativeCall(wire.Check, "mixed", ns))
	if got := s.left(); got != "veths=3 ports=5 owners [uid-web]" {
		t.Error(got)
	}
	if out := in(t, ns, "ip", "-4", "addr"); !strings.Contains(out, "10.21.0.3/24") || !strings.Contains(out, "10.23.0.3/24") {
		t.Error(out)
	}
	s.succeed(nativeCall(wire.Del, "mixed", ns))
	if got := devicesAt(t); got != twoAtHome {
		t.Error(got)
	}
	if n := portCommits(t, portRemoved) - removed; n != 3 {
		t.Errorf("DEL of two devices and three pairs took %d transactions, want one for each device and one for all pairs", n)
	}
}

// TestKernelDevicesKilled kills the server at every step of a pod's with two pairs and two
// devices: they are wholly the node's, or wholly the pod's.
func TestKernelDevicesKilled(t *testing.T) {
	for command, stages := range map[string][]string{
		wire.Add: {cni.StageChooseDevice, cni.StageTakeDevice, cni.StageTakeDevice + "/2", cni.StageCreateVeth, cni.StageCreatePort, cni.StageConfigure, cni.StageRaiseDevice,
			cni.StageInstalled, cni.StageAnnounce, cni.StageCommitDevice, cni.StageAnswer},
		wire.Del: {cni.StageReturnDevice, cni.StageReturnDevice + "/2", cni.StageRemoveVeth, cni.StageRemovePort, cni.StageAnswer},
	} {
		for _, stage := range stages {
			t.Run(command+"/"+stage, func(t *testing.T) { killedWithDevices(t, command, stage) })
		}
	}
}

func killedWithDevices(t *testing.T, command, stage string) {
	softDevices(t, "a-0", "a-1")
	s := twoOfFour(t)
	first, second := sandbox(t, "k1"), sandbox(t, "k2")
	if command == wire.Del {
		s.succeed(nativeCall(wire.Add, "k1", first))
	}
	s = s.again(command + "/" + stage)
	if reply, err := s.call(nativeCall(command, "k1", first)); err == nil {
		t.Fatalf("it survived: %+v", reply)
	}
	s = s.again("")
	if command == wire.Add && stage != cni.StageAnswer && stage != cni.StageCommitDevice {
		if got := devicesAt(t); got != twoAtHome {
			t.Errorf("after the start: %s", got)
		}
	}
	s.succeed(nativeCall(wire.Del, "k1", first)) // the runtime undoes what failed, and tries again
	if got := devicesAt(t); got != twoAtHome {
		t.Errorf("after DEL: %s", got)
	}
	s.succeed(nativeCall(wire.Add, "k2", second))
	s.succeed(nativeCall(wire.Check, "k2", second))
	if got := s.left(); got != "veths=3 ports=5 owners [uid-web]" {
		t.Error(got)
	}
	s.succeed(nativeCall(wire.Del, "k2", second))
	s.must("gone uid-web")
	if got := s.left() + " " + devicesAt(t); got != clean+" "+twoAtHome {
		t.Error(got)
	}
}

func namedPod(name string) cni.Pod { return cni.Pod{Namespace: "shop", Name: name, UID: "uid-" + name} }

// ofPod is a delegated call of another pod's than web.
func ofPod(c *wire.Call, p cni.Pod) *wire.Call {
	c.Args = strings.NewReplacer("=web", "="+p.Name, "uid-web", p.UID).Replace(c.Args)
	return c
}

// TestKernelDeviceOfAnother: a device has one owner, and a late DEL takes nothing from the
// next.
func TestKernelDeviceOfAnother(t *testing.T) {
	softDevices(t, "a-0")
	a, b := namedPod("a"), namedPod("b")
	s := deviceServer(t, map[string]string{}, a, b)
	old, young := sandbox(t, "old"), sandbox(t, "young")
	s.succeed(ofPod(delegated(wire.Add, "old", old, "soft-a-0"), a))
	reply, err := s.call(ofPod(delegated(wire.Add, "young", young, "soft-a-0"), b))
	if err != nil || reply.Error == nil || !strings.Contains(reply.Error.Msg, "device soft-a-0 belongs to pod shop/a, interface net1") {
		t.Fatalf("%v %+v", err, reply)
	}
	s.succeed(ofPod(delegated(wire.Check, "old", old, "soft-a-0"), a))
	// The namespace of the first ends, and the kubelet gives its device to the second before
	// the first one's DEL has come.
	if out, err := exec.Command("ip", "netns", "del", "ptt-old").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.succeed(ofPod(delegated(wire.Add, "young", young, "soft-a-0"), b))
	s.must("compare")
	s.succeed(ofPod(delegated(wire.Del, "old", "", "soft-a-0"), a))
	s.succeed(ofPod(delegated(wire.Check, "young", young, "soft-a-0"), b))
	s = s.again("")
	s.succeed(ofPod(delegated(wire.Check, "young", young, "soft-a-0"), b))
	// A sandbox made anew takes the device from the one before it, whose DEL comes late.
	again := sandbox(t, "again")
	s.succeed(ofPod(delegated(wire.Add, "again", again, "soft-a-0"), b))
	s.succeed(ofPod(delegated(wire.Del, "young", young, "soft-a-0"), b))
	s.succeed(ofPod(delegated(wire.Check, "again", again, "soft-a-0"), b))
	s.succeed(ofPod(delegated(wire.Del, "again", again, "soft-a-0"), b))
	s.must("gone uid-a")
	s.must("gone uid-b")
	if got := s.left() + " " + devicesAt(t); got != clean+" "+softAtHome {
		t.Error(got)
	}
}

// TestKernelDeviceRefused: what cannot be a port says so, and nothing is changed.
func TestKernelDeviceRefused(t *testing.T) {
	softDevices(t, "a-0")
	s := deviceServer(t, map[string]string{})
	ns := sandbox(t, "refused")
	refused := func(device string, words ...string) {
		t.Helper()
		reply, err := s.call(delegated(wire.Add, "refused", ns, device))
		for _, w := range words {
			if err != nil || reply.Error == nil || !strings.Contains(reply.Error.Msg, w) {
				t.Errorf("%q is not said: %v %+v", w, err, reply)
			}
		}
		if got := devicesAt(t); got != softAtHome {
			t.Error(got)
		}
		if got := s.left(); got != "veths=0 ports=0 owners []" {
			t.Error(got)
		}
	}
	refused("soft-b-9", "device soft-b-9", "does not exist", "look at the DevicePool")
	refused("nonsense/x", "nonsense")
	if _, err := vsctl("add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type=netdev", "--", "add-port", "br-other", "sr-a-0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = vsctl("--if-exists", "del-br", "br-other") })
	refused("soft-a-0", "representor sr-a-0 of device soft-a-0 is a port of Open vSwitch already, of bridge br-other", "ovs-vsctl del-port sr-a-0")
	if _, err := vsctl("del-br", "br-other"); err != nil {
		t.Fatal(err)
	}
	in(t, ns, "ip", "link", "add", "net1", "type", "veth", "peer", "name", "other")
	refused("soft-a-0", "the sandbox has one of that name already")
	in(t, ns, "ip", "link", "del", "net1")
	s.succeed(delegated(wire.Add, "refused", ns, "soft-a-0"))
	s.succeed(delegated(wire.Del, "refused", ns, "soft-a-0"))
}

// TestKernelDeviceMended: what others do to a device while a pod has it is set right.
func TestKernelDeviceMended(t *testing.T) {
	softDevices(t, "a-0")
	s := deviceServer(t, map[string]string{})
	ns := sandbox(t, "mend")
	s.succeed(delegated(wire.Add, "mend", ns, "soft-a-0"))
	compare := func(want string) {
		t.Helper()
		if got := s.must("compare"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// vswitchd adds a port that was made again a moment later.
	checked := func() {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			reply, err := s.call(delegated(wire.Check, "mend", ns, "soft-a-0"))
			switch {
			case err == nil && reply.Error == nil:
				return
			case time.Now().After(deadline):
				t.Fatalf("CHECK: %v %+v", err, reply)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	compare("repaired []")
	for _, do := range [][]string{{"ip", "link", "set", "sr-a-0", "down"}, {"ip", "link", "set", "sr-a-0", "mtu", "1400", "down"}} {
		if out, err := exec.Command(do[0], do[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	compare("repaired [function shop/web]")
	if _, err := vsctl("del-port", bridge, "sr-a-0"); err != nil {
		t.Fatal(err)
	}
	compare("repaired [record shop/web]")
	checked()
	// The pair is gone, as after a reset of a NIC: it is made again, with its address.
	if out, err := exec.Command("ip", "link", "del", "sr-a-0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	compare("repaired [function shop/web interface shop/web]")
	checked()
	// A sandbox that vanishes without a DEL.
	if out, err := exec.Command("ip", "netns", "del", "ptt-mend").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := s.must("compare"); !strings.Contains(got, "sandbox shop/web") {
		t.Error(got)
	}
	if got := devicesAt(t); got != softAtHome {
		t.Error(got)
	}
	// A port that was removed while no agent ran: nobody knows the addresses any more.
	ns = sandbox(t, "orphan")
	s.succeed(delegated(wire.Add, "orphan", ns, "soft-a-0"))
	s.stop()
	if _, err := vsctl("del-port", bridge, "sr-a-0"); err != nil {
		t.Fatal(err)
	}
	s = s.again("")
	if got := devicesAt(t); got != softAtHome {
		t.Error(got)
	}
}

// TestKernelDeviceSoup: eight pods on four devices, calls at random, kills at random steps.
func TestKernelDeviceSoup(t *testing.T) {
	cycles := 200
	if testing.Short() {
		cycles = 40
	}
	labels := []string{"a-0", "a-1", "a-2", "a-3"}
	softDevices(t, labels...)
	home := devicesAt(t)
	var pods []cni.Pod
	for n := range 8 {
		pods = append(pods, namedPod(fmt.Sprint("p", n)))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	u := &deviceSoup{t: t, r: rand.New(rand.NewPCG(seed, 1)), s: deviceServer(t, map[string]string{}, pods...), holders: map[string]int{}, has: map[int]string{}, spaces: map[int]string{}}
	for n := range cycles {
		u.step(n, pods, labels)
	}
	for n := range pods {
		u.del(n, pods[n])
		u.s.must("gone " + pods[n].UID)
	}
	if got := u.s.left() + " " + devicesAt(t); got != clean+" "+home {
		t.Error(got)
	}
	t.Logf("%d cycles: %d kills, %d refused, %d namespaces ended before their DEL", cycles, u.kills, u.refused, u.ended)
}

type deviceSoup struct {
	t       *testing.T
	r       *rand.Rand
	s       *server
	holders map[string]int // device → pod
	has     map[int]string // pod → device
	spaces  map[int]string // pod → sandbox

	sandboxes, kills, refused, ended int
}

func soupStages() map[string][]string {
	return map[string][]string{
		wire.Add: {cni.StageChooseDevice, cni.StageTakeDevice, cni.StageCreatePort, cni.StageConfigure, cni.StageRaiseDevice, cni.StageInstalled, cni.StageAnnounce, cni.StageCommitDevice, cni.StageAnswer},
		wire.Del: {cni.StageReturnDevice, cni.StageAnswer},
	}
}

func (u *deviceSoup) step(n int, pods []cni.Pod, labels []string) {
	u.t.Helper()
	pod := u.r.IntN(len(pods))
	kill := ""
	command := wire.Add
	if u.has[pod] != "" {
		command = wire.Del
	}
	if u.r.IntN(5) == 0 {
		stages := soupStages()[command]
		kill = command + "/" + stages[u.r.IntN(len(stages))]
		u.s = u.s.again(kill)
	}
	if command == wire.Del {
		u.del(pod, pods[pod])
	} else {
		u.add(pod, pods[pod], "soft-"+labels[u.r.IntN(len(labels))])
	}
	if u.t.Failed() {
		u.t.Fatalf("at cycle %d: %s of %s, kill %q", n, command, pods[pod], kill)
	}
	for other, device := range u.has { // nobody has lost anything
		u.s.succeed(ofPod(delegated(wire.Check, filepath.Base(u.spaces[other]), u.spaces[other], device), pods[other]))
	}
}

func (u *deviceSoup) add(pod int, p cni.Pod, device string) {
	u.t.Helper()
	u.sandboxes++
	ns := sandbox(u.t, fmt.Sprint("soup", u.sandboxes))
	c := ofPod(delegated(wire.Add, filepath.Base(ns), ns, device), p)
	reply, err := u.s.call(c)
	if err != nil {
		u.kills++
		u.s = u.s.again("")
		if u.r.IntN(2) == 0 { // some runtimes try the sandbox again
			reply, err = u.s.call(c)
		} else {
			c.Command = wire.Del
			u.s.succeed(c)
			return
		}
	}
	_, taken := u.holders[device]
	switch {
	case err != nil:
		u.t.Errorf("ADD: %v", err)
	case taken && (reply.Error == nil || !strings.Contains(reply.Error.Msg, "belongs to pod")):
		u.t.Errorf("device %s is another's: %+v", device, reply)
	case taken:
		u.refused++
	case reply.Error != nil:
		u.t.Errorf("ADD: %v", reply.Error)
	default:
		u.holders[device], u.has[pod], u.spaces[pod] = pod, device, ns
	}
}

func (u *deviceSoup) del(pod int, p cni.Pod) {
	u.t.Helper()
	device := u.has[pod]
	if device == "" {
		return
	}
	ns := u.spaces[pod]
	id := filepath.Base(ns)
	if u.r.IntN(3) == 0 {
		u.ended++
		if out, err := exec.Command("ip", "netns", "del", id).CombinedOutput(); err != nil {
			u.t.Fatalf("%v: %s", err, out)
		}
		ns = ""
	}
	c := ofPod(delegated(wire.Del, id, ns, device), p)
	if _, err := u.s.call(c); err != nil {
		u.kills++
		u.s = u.s.again("")
	}
	u.s.succeed(c)
	delete(u.holders, device)
	delete(u.has, pod)
}

// TestKernelSRIOVCallsBack has the pod's own call run Portolan's binary as type sriov, which
// calls the agent while that holds the sandbox's turn and the pod's: it is answered at once.
func TestKernelSRIOVCallsBack(t *testing.T) {
	softDevices(t, "a-0")
	dir, bin := t.TempDir(), t.TempDir()
	t.Setenv(envChains, dir)
	if err := cni.InstallBinary(filepath.Join(binDir(), cni.BinaryName), bin); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time over its own
		if err := cni.InstallCopy(bin, cni.TypeSRIOV); err != nil {
			t.Fatal(err)
		}
	}
	p := web()
	p.Selection = "net0 function"
	s := startServer(t, serverConfig{Socket: dir + "/cni.sock", Pods: []cni.Pod{p}, Plugins: bin, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Devices: map[string]string{"shop/function": "soft-a-0"}})
	ns := sandbox(t, "back")
	began := time.Now()
	reply, err := s.call(nativeCall(wire.Add, "back", ns))
	if err != nil || reply.Error == nil || !strings.Contains(reply.Error.Msg, "interface net2 by definition shop/function") || !strings.Contains(reply.Error.Msg, "device soft-a-0 is on an e-switch in switchdev mode") {
		t.Errorf("%v %+v", err, reply)
	}
	if took := time.Since(began); took > 8*time.Second { // of the call's 10
		t.Errorf("it took %s", took)
	}
	s.succeed(nativeCall(wire.Del, "back", ns))
	s.must("gone uid-web")
	if got := s.others() + "; " + s.left() + "; " + devicesAt(t); got != noOthers+"; "+clean+"; "+softAtHome {
		t.Error(got)
	}
	if err := cni.RemoveCopy(bin, cni.TypeSRIOV); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(bin, cni.TypeSRIOV)); !os.IsNotExist(err) {
		t.Errorf("the copy stays: %v", err)
	}
}
