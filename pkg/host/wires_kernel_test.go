//go:build kernel

package host_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// wires is Wires at work, with the part of the engine that makes rows.
type wires struct {
	*host.Wires
	t    *testing.T
	v    *vswitch
	stop func()

	mu      sync.Mutex // guards the rest
	taken   []intent.PhysicalBridge
	tellers int // calls of Take
	changes int // writes to the kernel
}

func startWires(t *testing.T, v *vswitch, stateDir, runDir, sysDir string) *wires {
	t.Helper()
	k := openKernel(t, stateDir)
	ovs, err := host.OpenOVS(t.Context(), "unix:"+v.sock())
	if err != nil {
		t.Fatal(err)
	}
	keeper := host.NewKeeper(k, testLog(t))
	w := &wires{t: t, v: v}
	keeper.Done = func(r host.Report, err error) {
		if err != nil {
			t.Errorf("Set: %v", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changes += r.Changes
	}
	w.Wires, err = host.NewWires(host.WiresConfig{
		Kernel: k, OVS: ovs, Keeper: keeper, Datapath: intent.UserspaceDatapath, RunDir: runDir, SysDir: sysDir, Take: w.take, Log: testLog(t),
		Gateway: host.Gateway{NIC: "gw0", Bridge: "br-ex"},
	})
	if err != nil {
		t.Fatal(err)
	}
	keeper.Declare(host.Config{HideAttachments: true})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { keeper.Run(ctx) })
	wg.Go(func() { w.Run(ctx) })
	w.stop = func() { cancel(); wg.Wait(); ovs.Close() }
	t.Cleanup(w.stop)
	return w
}

// take makes what compile/vswitch would, through the engine.
func (w *wires) take(list []intent.PhysicalBridge) {
	mappings, have := []string{"physnet:br-ex"}, map[string]bool{}
	for _, p := range list {
		mappings, have[p.Bridge] = append(mappings, p.Network+":"+p.Bridge), true
		if p.NIC != "" {
			w.v.vsctl(fmt.Sprintf("--no-wait --may-exist add-br %[1]s -- set bridge %[1]s datapath_type=netdev external_ids:portolan/owner=vswitch/n -- --may-exist add-port %[1]s %[2]s", p.Bridge, p.NIC))
		}
	}
	w.mu.Lock()
	before := w.taken
	w.taken, w.tellers = list, w.tellers+1
	w.mu.Unlock()
	for _, p := range before {
		if p.NIC != "" && !have[p.Bridge] {
			w.v.vsctl("--no-wait --if-exists del-br " + p.Bridge)
		}
	}
	w.v.vsctl("--no-wait set Open_vSwitch . external_ids:ovn-bridge-mappings=" + strconv.Quote(strings.Join(mappings, ",")))
}

func (w *wires) counts() (tellers, changes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tellers, w.changes
}

// says waits until a network's state is ready or not, and its message has all parts.
func (w *wires) says(network string, ready bool, parts ...string) {
	w.t.Helper()
	var got string
	defer func() {
		if w.t.Failed() {
			w.t.Logf("%s: %s", network, got)
		}
	}()
	eventually(w.t, 5*time.Second, fmt.Sprintf("%s ready %t %q", network, ready, parts), func() bool {
		got = "not there"
		for _, s := range w.States() {
			if s.Network == network {
				got = fmt.Sprintf("%+v", s)
				return s.Ready == ready && (s.Message == "") == (len(parts) == 0) &&
					!slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(s.Message, p) })
			}
		}
		return false
	})
}

func ipv6Off(nic string) string {
	b, _ := os.ReadFile("/proc/sys/net/ipv6/conf/" + nic + "/disable_ipv6")
	return strings.TrimSpace(string(b))
}

func up(nic string) bool {
	i, err := net.InterfaceByName(nic)
	return err == nil && i.Flags&net.FlagUp != 0
}

// TestPhysicalNetworkTakesItsNIC goes through the life of one: the NIC comes after
// it, is taken, stays taken over a restart that writes nothing, goes away and comes
// back, and is as it was when the node is not selected any more.
func TestPhysicalNetworkTakesItsNIC(t *testing.T) {
	v := startOVS(t)
	dir := t.TempDir()
	w := startWires(t, v, dir, t.TempDir(), "")
	want := []host.Wire{{Network: "lan", NIC: "w1"}}
	bridge := intent.PhysicalBridgeName("lan")
	w.Declare(want)
	w.says("lan", false, "no NIC w1", "taken when it comes")
	add := "ip link add w1 type veth peer name w1p\nip link set w1p up"
	sh(t, add)
	t.Cleanup(func() { sh(t, "ip link del w1") })
	w.says("lan", true)
	kept := func() bool {
		return up("w1") && ipv6Off("w1") == "1" && strings.Contains(run(t, "nft", "list", "ruleset"), `"w1"`) && addrs("w1") == ""
	}
	eventually(t, 5*time.Second, "the NIC is up, hidden, and without IPv6", kept)

	t.Run("a restart writes nothing", func(t *testing.T) {
		w.stop()
		w = startWires(w.t, v, dir, t.TempDir(), "")
		if n, _ := w.counts(); n != 1 || fmt.Sprint(w.taken) != fmt.Sprint([]intent.PhysicalBridge{{Network: "lan", Bridge: bridge, NIC: "w1"}}) {
			t.Errorf("rows were told %d times, %v, before anything was declared", n, w.taken)
		}
		eventually(t, 5*time.Second, "the keeper has looked", func() bool { return kept() })
		w.Declare(want)
		w.says("lan", true)
		if _, changes := w.counts(); changes != 0 || !kept() {
			t.Errorf("found %d writes to the kernel, wanted none", changes)
		}
	})
	t.Run("the NIC goes and comes back", func(t *testing.T) {
		sh(t, "ip link del w1")
		w.says("lan", false, "NIC w1 has gone", bridge)
		sh(t, add)
		w.says("lan", true)
		eventually(t, 5*time.Second, "the NIC is kept again", kept)
		if n, _ := w.counts(); n != 1 {
			t.Errorf("rows were told %d times, wanted once: the bridge waits for its NIC", n)
		}
	})
	t.Run("an address that is given to it later is told", func(t *testing.T) {
		sh(t, "ip addr add 192.0.2.7/24 dev w1")
		w.says("lan", true, "192.0.2.7/24", "since it was taken")
		sh(t, "ip addr del 192.0.2.7/24 dev w1")
		w.says("lan", true)
	})
	t.Run("the second that wants the NIC does not get it", func(t *testing.T) {
		w.Declare(append([]host.Wire{{Network: "copy", NIC: "w1"}}, want...))
		w.says("copy", false, "NIC w1 is PhysicalNetwork lan's already")
		w.says("lan", true)
	})
	t.Run("it is given back as it was", func(t *testing.T) {
		w.Declare(nil)
		eventually(t, 5*time.Second, "the NIC is as it was", func() bool {
			return !up("w1") && ipv6Off("w1") == "0" && !strings.Contains(run(t, "nft", "list", "ruleset"), `"w1"`)
		})
		if len(w.States()) != 0 {
			t.Errorf("states found %v, wanted none", w.States())
		}
	})
}

// wireRefusal is a NIC or a bridge that is not taken.
type wireRefusal struct {
	name  string
	wire  host.Wire
	setup string // commands; "VSCTL …" is ovs-vsctl's
	with  []host.Wire
	state [2]string // a daemon's state file, without the NIC's index, and its text
	sys   string    // the NIC that fakeVF makes a virtual function
	says  []string
}

func wireRefusals() []wireRefusal {
	return []wireRefusal{
		{name: "no such NIC", wire: host.Wire{NIC: "eth9"}, says: []string{"no NIC eth9", "d0"}},
		{name: "the gateway's NIC", wire: host.Wire{NIC: "gw0"}, setup: "ip link add gw0 type veth peer name gw0p", says: []string{"the node's own address", "br-ex", "name another NIC"}},
		{name: "an address", wire: host.Wire{NIC: "d0"}, setup: "ip addr add 192.0.2.1/24 dev d0", says: []string{"has the address 192.0.2.1/24", "remove its addresses"}},
		{name: "in a Linux bridge", wire: host.Wire{NIC: "d0"}, setup: "ip link add b0 type bridge\nip link set d0 master b0", says: []string{"a port of bridge b0", "take it out"}},
		{name: "a Linux bridge", wire: host.Wire{NIC: "b0"}, setup: "ip link add b0 type bridge", says: []string{"it is a Linux bridge", "name the bridge's NIC"}},
		{name: "in an OVS bridge", wire: host.Wire{NIC: "d0"}, setup: "VSCTL --no-wait add-port br-admin d0", says: []string{"in the OVS bridge br-admin", "spec.bridge in place of spec.nic"}},
		{name: "a virtual port", wire: host.Wire{NIC: "t0"}, setup: "ip tuntap add t0 mode tap", says: []string{"virtual port of its own (tuntap)"}},
		{name: "a pod's", wire: host.Wire{NIC: "d0"}, setup: "ip link set d0 group " + strconv.Itoa(intent.AttachmentGroup), says: []string{"it is a pod's"}},
		{name: "loopback", wire: host.Wire{NIC: "lo"}, says: []string{"no Ethernet device but loopback"}},
		{name: "NetworkManager's", wire: host.Wire{NIC: "d0"}, state: [2]string{"NetworkManager/devices", "[device]\nmanaged=true\n"}, says: []string{"NetworkManager manages it", "unmanaged"}},
		{name: "systemd-networkd's", wire: host.Wire{NIC: "d0"}, state: [2]string{"systemd/netif/links", "ADMIN_STATE=configured\n"}, says: []string{"systemd-networkd manages it"}},
		{name: "a virtual function", wire: host.Wire{NIC: "d0"}, sys: "d0", says: []string{"virtual function without a representor", "physical function"}},
		{name: "of two", wire: host.Wire{NIC: "d0"}, with: []host.Wire{{Network: "other", NIC: "d0"}}, says: []string{"asked for by PhysicalNetwork other too", "neither has it"}},
		{name: "no such bridge", wire: host.Wire{Bridge: "br-none"}, says: []string{"no bridge br-none", "ovs-vsctl add-br"}},
		{name: "another datapath", wire: host.Wire{Bridge: "br-kernel"}, says: []string{`datapath "system"`, `br-int "netdev"`}},
		{name: "the gateway's bridge", wire: host.Wire{Bridge: "br-ex"}, says: []string{"bridge br-ex has the node's addresses"}},
		{name: "a bridge of ours", wire: host.Wire{Bridge: "br-ours"}, says: []string{"bridge br-ours is Portolan's own"}},
		{name: "the cluster's name", wire: host.Wire{Network: "physnet", NIC: "d0"}, says: []string{"the name physnet is the cluster's own"}},
	}
}

// prepare makes the machine of a refusal, and gives the directories of daemons' and
// devices' state.
func (c wireRefusal) prepare(t *testing.T, v *vswitch) (run, sys string) {
	t.Helper()
	dummies(t, "d0")
	for line := range strings.Lines(c.setup) {
		if args, ok := strings.CutPrefix(line, "VSCTL "); ok {
			v.vsctl(args)
			t.Cleanup(func() { v.vsctl("--no-wait del-port d0") })
		} else {
			sh(t, line)
		}
	}
	t.Cleanup(func() {
		for _, l := range []string{"b0", "t0", "gw0"} {
			if linkIndex(l) != 0 {
				sh(t, "ip link del "+l)
			}
		}
	})
	run = t.TempDir()
	if c.state[0] != "" {
		file := filepath.Join(run, c.state[0], strconv.Itoa(linkIndex("d0")))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(c.state[1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if c.sys != "" {
		sys = fakeVF(t, c.sys, "")
	}
	return run, sys
}

// TestPhysicalNetworkRefusals has each NIC and bridge that is not taken: the message
// says what was found and what to do, and the machine is as it was.
func TestPhysicalNetworkRefusals(t *testing.T) {
	v := startOVS(t)
	v.vsctl("--no-wait add-br br-admin -- set bridge br-admin datapath_type=netdev -- add-br br-kernel -- set bridge br-kernel datapath_type=system" +
		" -- add-br br-ours -- set bridge br-ours datapath_type=netdev external_ids:portolan/owner=vswitch/n")
	for _, br := range []string{"br-admin", "br-ours"} { // br-kernel has no device here
		eventually(t, 10*time.Second, "device of "+br, func() bool { _, err := net.InterfaceByName(br); return err == nil })
	}
	for _, c := range wireRefusals() {
		t.Run(c.name, func(t *testing.T) {
			dir, sys := c.prepare(t, v)
			wire := c.wire
			if wire.Network == "" {
				wire.Network = "lan"
			}
			before := machineState(t)
			w := startWires(t, v, t.TempDir(), dir, sys)
			w.Declare(append(c.with, wire))
			w.says(wire.Network, false, c.says...)
			w.stop()
			w.mu.Lock()
			taken := w.taken
			w.mu.Unlock()
			if len(taken) != 0 {
				t.Errorf("taken: %v", taken)
			}
			if after := machineState(t); after != before {
				t.Errorf("the refusal changed the machine:\n%s\nwas\n%s", after, before)
			}
			for _, p := range w.Problems() {
				t.Logf("%s %s: %s", p.Object, p.Field, p.Message)
			}
		})
	}
}

// fakeVF is a /sys in which a NIC is virtual function 0 of a physical one, whose
// representor is named.
func fakeVF(t *testing.T, nic, representor string) string {
	t.Helper()
	sys := t.TempDir()
	dirs := []string{"devices/pf/net/p0", "devices/vf", "class/net/" + nic}
	files := map[string]string{"devices/pf/net/p0/phys_port_name": "p0\n"}
	if representor != "" {
		dirs = append(dirs, "devices/pf/net/"+representor)
		files["devices/pf/net/"+representor+"/phys_port_name"] = "pf0vf0\n"
	}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(sys, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"class/net/" + nic + "/device": "../../../devices/vf", "devices/vf/physfn": "../pf", "devices/pf/virtfn0": "../vf"} {
		if err := os.Symlink(to, filepath.Join(sys, link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(sys, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

// TestPhysicalNetworkTakesWhatIsThere has a virtual function with a representor, and
// a bridge of the administrator's, in which nothing is changed.
func TestPhysicalNetworkTakesWhatIsThere(t *testing.T) {
	v := startOVS(t)
	v.vsctl("--no-wait add-br br-admin -- set bridge br-admin datapath_type=netdev")
	dummies(t, "d0")
	w := startWires(t, v, t.TempDir(), t.TempDir(), fakeVF(t, "d0", "rep0"))
	before := v.do("ovs-vsctl", "--db=unix:"+v.sock(), "--columns=ports,external_ids,other_config,fail_mode,controller", "list", "Bridge", "br-admin")
	w.Declare([]host.Wire{{Network: "vf", NIC: "d0"}, {Network: "admin", Bridge: "br-admin"}})
	w.says("vf", true)
	w.says("admin", true)
	if after := v.do("ovs-vsctl", "--db=unix:"+v.sock(), "--columns=ports,external_ids,other_config,fail_mode,controller", "list", "Bridge", "br-admin"); after != before {
		t.Errorf("the bridge was changed:\n%s\nwas\n%s", after, before)
	}
	v.vsctl("--no-wait del-br br-admin")
	w.says("admin", false, "no bridge br-admin")
}
