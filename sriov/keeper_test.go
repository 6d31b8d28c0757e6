package sriov_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// world is a machine with a kernel, a switch and the records of devices.
type world struct {
	t      testing.TB
	m      *sriovtest.Machine
	kernel *sriovtest.Kernel
	sw     *sriovtest.Switch
	dir    string
	after  func(string) // of every step
	keeper *sriov.Keeper
	// patience of the keepers that start makes: more than a busy machine needs, or impatient.
	patience time.Duration
}

func newWorld(t testing.TB, shape string, soft ...string) *world {
	t.Helper()
	m := sriovtest.NewMachine(sriovtest.NewTree(t), sriovtest.Shapes()[shape]...)
	for _, label := range soft {
		m.Soft(label, true)
	}
	w := &world{t: t, m: m, kernel: sriovtest.NewKernel(m), sw: sriovtest.NewSwitch(), dir: sriovtest.Dir(t), patience: time.Minute}
	step := func(op string) {
		if w.after != nil {
			w.after(op)
		}
	}
	w.kernel.After, w.sw.After = step, step
	w.start()
	return w
}

// start makes a keeper as a new process does.
func (w *world) start() {
	w.t.Helper()
	k, err := sriov.NewKeeper(sriov.KeeperConfig{Dir: w.dir, Inventory: w.m.Inventory(), Kernel: w.kernel, Switch: w.sw, Patience: w.patience,
		Log: slog.New(slog.DiscardHandler), AtStep: func(op string) {
			if w.after != nil {
				w.after(op)
			}
		}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.keeper = k
}

func (w *world) all() string { return w.kernel.Snapshot() + w.sw.Snapshot() }

// owner is a pod with a sandbox of its own.
func (w *world) owner(pod string) sriov.Owner {
	o := sriov.Owner{Sandbox: "sandbox-" + pod, Pod: "ns/" + pod, UID: "uid-" + pod, NAD: "ns/fast", IfName: "net1", Netns: "/run/netns/" + pod}
	w.kernel.Sandbox(o.Netns)
	return o
}

func mac(n int) net.HardwareAddr { return net.HardwareAddr{0x0a, 0x58, 10, 0, byte(n >> 8), byte(n)} }

func (w *world) wish(device, pod string) sriov.Attachment {
	return sriov.Attachment{Device: device, Owner: w.owner(pod), MAC: mac(len(pod)), MTU: 1400, Alias: "portolan ns/" + pod}
}

func (w *world) attach(a sriov.Attachment) *sriov.Given {
	w.t.Helper()
	out, err := w.keeper.Attach(context.Background(), a)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) release(a sriov.Attachment) {
	w.t.Helper()
	if err := w.keeper.Release(context.Background(), a.Device, a.Owner); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) same(was, when string) {
	w.t.Helper()
	if diff := cmp.Diff(was, w.all()); diff != "" {
		w.t.Errorf("%s: %s", when, diff)
	}
	records, err := w.keeper.Records()
	if err != nil || len(records) != 0 {
		w.t.Errorf("%s: records are left: %+v, %v", when, records, err)
	}
}

// kinds are one device of each, by the shape that has it.
func kinds() map[string][2]string {
	return map[string][2]string{
		"switchdev vf": {"connectx-6", "0000:3b:00.3"},
		"shared":       {"connectx-7-shared", "0000:3b:02.2"},
		"legacy vf":    {"connectx-6-legacy", "0000:3b:00.2"},
		"vfio":         {"connectx-6-legacy", "0000:3b:02.3"},
		"sf":           {"bluefield-2", "mlx5_core.sf.3"},
		"ice":          {"e810", "0000:18:01.1"},
		"igb":          {"igb", "0000:02:10.2"},
		"soft":         {"igb", "soft-a-0"},
	}
}

// TestGivenAndTakenBack: what a pod gets, and that nothing of it is left.
func TestGivenAndTakenBack(t *testing.T) {
	for name, c := range kinds() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c[0], "a-0")
			w.kernel.Exclusive = name == "switchdev vf"
			before := w.all()
			a := w.wish(c[1], "pod")
			given := w.attach(a)
			if err := w.keeper.Check(context.Background(), a.Device, a.Owner); err != nil {
				t.Error(err)
			}
			if name == "vfio" {
				if given.IfName != "" || given.MAC != mac(3).String() || w.kernel.In(a.Owner.Netns) != "" {
					t.Errorf("given %+v", given)
				}
			} else if got := w.kernel.In(a.Owner.Netns); got != "net1 "+mac(3).String()+" 1400 up true" || given.IfName != "net1" {
				t.Errorf("in the sandbox is %q, given %+v", got, given)
			}
			p, plugged := w.sw.Port(given.Device.Representor)
			if plugged != (given.Device.Mode == sriov.Switchdev) || plugged && (p.Owner.Pod != "ns/pod" || p.MAC != given.MAC || p.Netdev != given.Device.Netdev) {
				t.Errorf("port %+v of %s", p, given.Device.Representor)
			}
			if plugged && !strings.Contains(w.all(), "link "+given.Device.Representor+" [] ") {
				t.Error("the representor has another name")
			}
			again := w.attach(a)
			if diff := cmp.Diff(given.MAC, again.MAC); diff != "" || again.IfName != given.IfName {
				t.Errorf("attached again: %+v", again)
			}
			w.release(a)
			w.same(before, "released")
			w.release(a)
			w.same(before, "released again")
		})
	}
}

func number(n int) *int { return &n }

// TestSettings: what sriov-cni's fields make of a VF, and that it is all set back.
func TestSettings(t *testing.T) {
	w := newWorld(t, "connectx-6-legacy")
	w.kernel.Preset("ens1f0np0", 0, sriov.VFState{MAC: "02:aa:00:00:00:01", VLAN: 7, QoS: 2, Proto: "802.1q", Spoofchk: "off", Trust: "on", LinkState: "enable", MinRate: 100, MaxRate: 200})
	before := w.all()
	a := w.wish("0000:3b:00.2", "pod")
	a.Settings = sriov.Settings{VLAN: number(100), VLANQoS: number(3), VLANProto: "802.1AD", Spoofchk: "on", Trust: "off", LinkState: "disable", MaxTxRate: number(500)}
	w.attach(a)
	vfs, err := w.kernel.VFs("ens1f0np0")
	want := sriov.VFState{MAC: mac(3).String(), VLAN: 100, QoS: 3, Proto: "802.1ad", Spoofchk: "on", Trust: "off", LinkState: "disable", MinRate: 100, MaxRate: 500}
	if err != nil || vfs[0] != want {
		t.Errorf("got %+v, %v; one rate alone must leave the other", vfs[0], err)
	}
	w.release(a)
	w.same(before, "released")

	a.Settings = sriov.Settings{MinTxRate: number(300)}
	if _, err := w.keeper.Attach(context.Background(), a); err == nil || !strings.Contains(err.Error(), "min_tx_rate is 300; write at most max_tx_rate, which is 200") {
		t.Error(err)
	}
	w.same(before, "refused")
}

func TestSettingsCheck(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: "",
		`{"vlan":0,"vlanQoS":0,"vlanProto":"802.1q","spoofchk":"on","trust":"off","link_state":"auto","max_tx_rate":0,"type":"sriov","ipam":{}}`: "",
		`{"vlan":4094,"vlanQoS":7,"vlanProto":"802.1AD","min_tx_rate":10,"mac":"02:00:00:00:00:01"}`:                                             "",
		`{"vlan":4095}`:                       "vlan is 4095; write 0 to 4094",
		`{"vlan":-1}`:                         "vlan is -1",
		`{"vlan":"5"}`:                        "not of the form of sriov-cni's",
		`{"vlan":5,"vlanQoS":8}`:              "vlanQoS is 8; write 0 to 7",
		`{"vlanQoS":1}`:                       "vlanQoS is 1; set vlan too",
		`{"vlan":5,"vlanProto":"q"}`:          "vlanProto is \"q\"; write 802.1q or 802.1ad",
		`{"vlanProto":"802.1ad"}`:             "vlanProto is 802.1ad; set vlan too",
		`{"spoofchk":"yes"}`:                  "spoofchk is \"yes\"; write on or off",
		`{"trust":"true"}`:                    "trust is \"true\"; write on or off",
		`{"link_state":"up"}`:                 "link_state is \"up\"; write auto or enable or disable",
		`{"min_tx_rate":-1}`:                  "min_tx_rate is -1",
		`{"max_tx_rate":4294967296}`:          "max_tx_rate is 4294967296",
		`{"min_tx_rate":5,"max_tx_rate":4}`:   "min_tx_rate is 5; write at most max_tx_rate, which is 4",
		`{"mac":"01:00:00:00:00:01"}`:         "mac is \"01:00:00:00:00:01\"; write the address of one station",
		`{"mac":"00:00:00:00:00:00"}`:         "mac is",
		`{"mac":"02:00:00:00:00:01:00:00"}`:   "mac is",
		`{"link_state":"enable auto"}`:        "link_state is",
		`{"min_tx_rate":5,"max_tx_rate":0}`:   "",
		`{"min_tx_rate":5,"max_tx_rate":500}`: "",
	} {
		_, err := sriov.ParseSettings([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v; wanted %q", text, err, want)
		}
	}
}

// TestRefused: what cannot be is said, and nothing is changed.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		shape string
		do    func(w *world, a *sriov.Attachment)
		want  string
	}{
		"no such VF":     {"connectx-6", func(_ *world, a *sriov.Attachment) { a.Device = "0000:3b:00.7" }, "it does not exist"},
		"path for an id": {"connectx-6", func(_ *world, a *sriov.Attachment) { a.Device = "../../x" }, "no PCI address"},
		"driver unbound": {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.Unbind("0000:3b:00.2") }, "no driver is bound"},
		"representor missing": {"connectx-6", func(w *world, _ *sriov.Attachment) {
			w.m.Devlink.Delete("ens1f0np0_0")
			w.kernel.DropLink("ens1f0np0_0")
		}, "there is no port pf0vf0"},
		"name taken":        {"connectx-6", func(w *world, a *sriov.Attachment) { taken(w, a) }, "the sandbox has one of that name already"},
		"bad name":          {"connectx-6", func(_ *world, a *sriov.Attachment) { a.Owner.IfName = "a/b" }, "no name of a network device"},
		"multicast MAC":     {"connectx-6", func(_ *world, a *sriov.Attachment) { a.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} }, "not the address of one station"},
		"sandbox gone":      {"connectx-6", func(w *world, a *sriov.Attachment) { w.kernel.End(a.Owner.Netns) }, "file does not exist"},
		"VLAN in switchdev": {"connectx-6", func(_ *world, a *sriov.Attachment) { a.Settings.VLAN = number(5) }, "its NIC is in switchdev mode"},
		"vdpa":              {"connectx-6", func(w *world, _ *sriov.Attachment) { w.m.Link("bus/vdpa/devices/vdpa0", "x/0000:3b:00.2/vdpa0") }, "it is used by vdpa0"},
		"netdev elsewhere":  {"connectx-6", func(w *world, _ *sriov.Attachment) { w.impatient(); w.kernel.DropLink("ens1f0np0v0") }, "it is not in the node's namespace, and no record says whose it is"},
		"PF without netdev": {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.DropLink("ens1f0np0"); w.m.Devlink.Delete("ens1f0np0") }, "its network device is not here"},
		"another's port":    {"connectx-6", func(w *world, _ *sriov.Attachment) { foreign(w) }, "the representor is another's port"},
		"installed never":   {"connectx-6", func(w *world, _ *sriov.Attachment) { w.sw.Fail("WaitInstalled", context.DeadlineExceeded) }, "deadline exceeded"},
		"MAC of another VF": {"connectx-6-legacy", func(w *world, _ *sriov.Attachment) {
			w.kernel.Preset("ens1f0np0", 1, sriov.VFState{MAC: mac(3).String()})
		}, "it has the MAC 0a:58:0a:00:00:03 already"},
		"MTU":              {"connectx-6-legacy", func(_ *world, a *sriov.Attachment) { a.MTU = 9999 }, "setting its MTU to 9999, which the PF's limits"},
		"igb and min rate": {"igb", func(_ *world, a *sriov.Attachment) { a.Device, a.Settings.MinTxRate = "0000:02:10.2", number(5) }, "tx_rate of VF 1 of PF enp1s0f0: driver igb refuses it: operation not supported"},
		"igb and 802.1ad": {"igb", func(_ *world, a *sriov.Attachment) {
			a.Device, a.Settings.VLAN, a.Settings.VLANProto = "0000:02:10.2", number(5), "802.1ad"
		}, "vlan of VF 1 of PF enp1s0f0: driver igb refuses it: protocol not supported"},
		"igb and link state": {"igb", func(_ *world, a *sriov.Attachment) { a.Device, a.Settings.LinkState = "0000:02:10.2", "disable" }, "link_state of VF 1"},
		"settings on soft":   {"igb", func(_ *world, a *sriov.Attachment) { a.Device, a.Settings.Trust = "soft-a-0", "on" }, "its NIC is in switchdev mode"},
		"PF busy for ever":   {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.Fail("SetVF", unix.EBUSY, 21) }, "device or resource busy"},
		"MAC refused":        {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.Fail("SetMAC", unix.EPERM, 3) }, "setting its MAC to 0a:58:0a:00:00:03: operation not permitted"},
		"move refused":       {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.Fail("Move", unix.EINVAL, 1) }, "moving ens1f0np0v0 to the sandbox as net1: invalid argument"},
		"no temporary": {"connectx-6", func(w *world, _ *sriov.Attachment) {
			w.kernel.Fail("Move", unix.EEXIST, 1)
			w.kernel.Fail("Temporary", unix.ENOSPC, 1)
		}, "making a temporary namespace: no space left"},
		"rename refused":        {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.Fail("Rename", unix.EINVAL, 3) }, "renaming ens1f0np0v0 to net1"},
		"soft: rename refused":  {"igb", func(w *world, a *sriov.Attachment) { a.Device = "soft-a-0"; w.kernel.Fail("Rename", unix.EINVAL, 3) }, "renaming sv-a-0 to net1"},
		"representor not muted": {"connectx-6", func(w *world, _ *sriov.Attachment) { w.kernel.Fail("Mute", os.ErrPermission, 1) }, "making representor ens1f0np0_0 ready"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.shape, "a-0")
			a := w.wish("0000:3b:00.2", "pod")
			c.do(w, &a)
			before := w.all()
			_, err := w.keeper.Attach(context.Background(), a)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, wanted %q", err, c.want)
			}
			w.same(before, "refused")
		})
	}
}

// taken gives the sandbox another device under the name that is asked for.
func taken(w *world, a *sriov.Attachment) {
	other := *a
	other.Device, other.MAC = "0000:3b:00.3", mac(99)
	w.attach(other)
	// Its record is of no concern here.
	if err := os.Remove(w.dir + "/0000:3b:00.3.json"); err != nil {
		w.t.Fatal(err)
	}
}

func foreign(w *world) {
	if err := w.sw.Plug(context.Background(), "ens1f0np0_0", sriov.Plugged{Owner: sriov.Owner{Sandbox: "foreign", Pod: "ns/other"}}); err != nil {
		w.t.Fatal(err)
	}
}

// TestBusy: a device of a pod that lives is not given away, and both pods are named; one
// of a pod that is gone is taken back first.
func TestBusy(t *testing.T) {
	w := newWorld(t, "connectx-6")
	before := w.all()
	first, second := w.wish("0000:3b:00.2", "first"), w.wish("0000:3B:00.2", "second")
	w.attach(first)
	_, err := w.keeper.Attach(context.Background(), second)
	busy, ok := errors.AsType[*sriov.BusyError](err)
	if !ok || !strings.Contains(err.Error(), "ns/first") || !strings.Contains(err.Error(), "ns/second") || busy.Device != "0000:3b:00.2" {
		t.Fatal(err)
	}
	if err := w.keeper.Check(context.Background(), first.Device, first.Owner); err != nil {
		t.Errorf("the first has lost something: %v", err)
	}
	w.kernel.Linger = 30 * time.Millisecond
	w.kernel.End(first.Owner.Netns)
	w.attach(second)
	// A late DEL of the first touches nothing.
	after := w.all()
	w.release(first)
	if diff := cmp.Diff(after, w.all()); diff != "" {
		t.Errorf("a late DEL: %s", diff)
	}
	if err := w.keeper.Check(context.Background(), second.Device, second.Owner); err != nil {
		t.Error(err)
	}
	w.release(second)
	w.same(before, "released")
}

// TestAnotherSandboxUnderThePath: the path lives, and is another namespace's.
func TestAnotherSandboxUnderThePath(t *testing.T) {
	w := newWorld(t, "connectx-6")
	before := w.all()
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	w.kernel.End(a.Owner.Netns)
	w.kernel.Sandbox(a.Owner.Netns)
	if w.keeper.Lives(sriov.Owner{Netns: a.Owner.Netns, NetnsID: "1:1"}) {
		t.Error("another namespace is taken for the owner's")
	}
	if _, err := w.keeper.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.same(before, "repaired")
}

// TestDelAfter: DEL when something has happened meanwhile.
func TestDelAfter(t *testing.T) {
	const id = "0000:3b:00.2"
	for name, c := range map[string]struct {
		do   func(w *world, a sriov.Attachment)
		want func(before string) string
	}{
		"the namespace has gone": {do: func(w *world, a sriov.Attachment) { w.kernel.End(a.Owner.Netns) }},
		"the namespace goes slowly": {do: func(w *world, a sriov.Attachment) {
			w.kernel.Linger = 50 * time.Millisecond
			w.kernel.End(a.Owner.Netns)
		}},
		"the namespace has gone, udev came": {do: func(w *world, a sriov.Attachment) { w.kernel.End(a.Owner.Netns); w.kernel.Udev("net1", "eth7") }},
		"a PF that lets no MAC be taken back": {do: func(w *world, _ sriov.Attachment) { w.kernel.Stubborn = true }, want: func(before string) string {
			return strings.Replace(before, "vf ens1f0np0 0 {MAC:00:00:00:00:00:00", "vf ens1f0np0 0 {MAC:02:00:00:00:00:00", 1)
		}},
		"the driver was unbound": {do: func(w *world, _ sriov.Attachment) { w.kernel.Unbind(id) }, want: func(before string) string {
			return without(before, "link ens1f0np0v0 ")
		}},
		"the PF was reset": {do: func(w *world, _ sriov.Attachment) { w.kernel.Reset(id, "eth3") }},
		"the representor is gone": {do: func(w *world, _ sriov.Attachment) {
			w.kernel.DropLink("ens1f0np0_0")
			w.m.Devlink.Delete("ens1f0np0_0")
		}, want: func(before string) string {
			return without(before, "link ens1f0np0_0 ")
		}},
		"the representor is down": {do: func(w *world, _ sriov.Attachment) {
			l, err := w.kernel.Link(w.kernel.Host(), "ens1f0np0_0")
			if err == nil {
				err = w.kernel.SetUp(w.kernel.Host(), l.Index, false)
			}
			if err != nil {
				w.t.Fatal(err)
			}
		}},
		"the port was another's": {do: func(w *world, a sriov.Attachment) {
			_, _ = w.sw.Unplug(context.Background(), "ens1f0np0_0", a.Owner)
			foreign(w)
		}, want: func(before string) string { return before + "port ens1f0np0_0 of foreign\n" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "connectx-6")
			before := w.all()
			a := w.wish(id, "pod")
			w.attach(a)
			c.do(w, a)
			w.release(a)
			if c.want != nil {
				before = c.want(before)
			}
			w.same(before, "released")
		})
	}
}

func without(text, prefix string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			out.WriteString(line)
		}
	}
	return out.String()
}

// TestErrorsKeepTheRecord: a DEL that fails anywhere is repeated, and ends what it began.
func TestErrorsKeepTheRecord(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range kinds() {
		for _, op := range []string{"SetUp", "SetVF", "Open", "Links", "Temporary", "Move", "Rename", "SetMAC", "SetMTU", "SetAlias", "MoveRDMA", "SetFunctionMAC", "VFs", "Unplug"} {
			t.Run(name+"/"+op, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, c[0], "a-0")
				w.kernel.Exclusive = true
				before := w.all()
				a := w.wish(c[1], "pod")
				w.attach(a)
				w.kernel.Fail(op, broken, 1)
				if op == "Unplug" {
					w.sw.Fail(op, broken)
				}
				err := w.keeper.Release(context.Background(), a.Device, a.Owner)
				if err != nil {
					if !errors.Is(err, broken) {
						t.Errorf("the cause is lost: %v", err)
					}
					if records, _ := w.keeper.Records(); len(records) != 1 || records[0].Phase != sriov.Detaching {
						t.Errorf("after an error the records are %+v", records)
					}
				}
				w.kernel.Fail(op, nil, 0)
				w.sw.Fail(op, nil)
				w.release(a)
				w.same(before, "released again")
			})
		}
	}
}

// TestRepair: what a start finds.
func TestRepair(t *testing.T) {
	w := newWorld(t, "connectx-6")
	before := w.all()
	a, b := w.wish("0000:3b:00.2", "first"), w.wish("0000:3b:00.3", "second")
	w.attach(a)
	w.attach(b)
	full := w.all()
	repair := func(want ...string) {
		t.Helper()
		w.start()
		done, err := w.keeper.Repair(context.Background())
		if err != nil || len(done) != len(want) {
			t.Fatalf("repaired %+v, %v", done, err)
		}
		for n, d := range done {
			if !strings.Contains(d.Message, want[n]) {
				t.Errorf("repaired %q, wanted %q", d.Message, want[n])
			}
		}
	}
	repair()
	if diff := cmp.Diff(full, w.all()); diff != "" {
		t.Errorf("what is whole was changed: %s", diff)
	}
	w.kernel.Preset("ens1f0np0", 0, sriov.VFState{MAC: "00:00:00:00:00:00", Proto: "802.1q", Spoofchk: "on", Trust: "off", LinkState: "auto"})
	repair("had lost settings or its place")
	if diff := cmp.Diff(full, w.all()); diff != "" {
		t.Errorf("what was lost is not there: %s", diff)
	}
	w.kernel.Reset("0000:3b:00.2", "eth9")
	w.kernel.End(b.Owner.Netns)
	repair("had left the sandbox", "is gone")
	w.same(before, "repaired")
}

// TestOtherBoot: a record of before the machine was started anew says nothing.
func TestOtherBoot(t *testing.T) {
	w := newWorld(t, "connectx-6")
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	w.kernel.Reboot()
	w.start()
	if _, err := w.keeper.Repair(context.Background()); err != nil {
		t.Fatal(err)
	}
	if records, err := w.keeper.Records(); err != nil || len(records) != 0 || w.sw.Snapshot() != "" {
		t.Errorf("records %v, %v, switch %q", records, err, w.sw.Snapshot())
	}
}

// TestBrokenRecord: one that cannot be read is told, and its device is not touched.
func TestBrokenRecord(t *testing.T) {
	w := newWorld(t, "connectx-6")
	file := w.dir + "/0000:3b:00.2.json"
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := w.kernel.Snapshot()
	_, err := w.keeper.Attach(context.Background(), w.wish("0000:3b:00.2", "pod"))
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "remove the file") {
		t.Error(err)
	}
	if _, err := w.keeper.Repair(context.Background()); err == nil {
		t.Error("repair says nothing")
	}
	if diff := cmp.Diff(before, w.kernel.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

// TestReleaseSandbox: a DEL that names no device finds them by their records.
func TestReleaseSandbox(t *testing.T) {
	w := newWorld(t, "connectx-6")
	before := w.all()
	a := w.wish("0000:3b:00.2", "pod")
	b := a
	b.Device, b.Owner.IfName, b.MAC = "0000:3b:00.3", "net2", mac(77)
	w.attach(a)
	w.attach(b)
	if err := w.keeper.ReleaseSandbox(context.Background(), a.Owner.Sandbox, "net2"); err != nil {
		t.Fatal(err)
	}
	if err := w.keeper.Check(context.Background(), a.Device, a.Owner); err != nil {
		t.Error(err)
	}
	if err := w.keeper.ReleaseSandbox(context.Background(), a.Owner.Sandbox, ""); err != nil {
		t.Fatal(err)
	}
	w.same(before, "released")
}

// TestBusyPF: a PF that is busy for a while is asked again.
func TestBusyPF(t *testing.T) {
	w := newWorld(t, "connectx-6")
	w.kernel.Fail("SetVF", unix.EBUSY, 3)
	before := w.all()
	a := w.wish("0000:3b:00.2", "pod")
	w.attach(a)
	w.release(a)
	w.same(before, "released")
}

// TestOneAtATime: of two processes too, by the file.
func TestOneAtATime(t *testing.T) {
	w := newWorld(t, "connectx-6")
	a := w.wish("0000:3b:00.2", "pod")
	entered, leave := make(chan struct{}), make(chan struct{})
	w.after = func(op string) {
		if op == "Move" {
			close(entered)
			<-leave
		}
	}
	done := make(chan error)
	go func() {
		_, err := w.keeper.Attach(context.Background(), a)
		done <- err
	}()
	<-entered
	first := w.keeper
	w.after = nil
	w.start()
	for name, k := range map[string]*sriov.Keeper{"of this process": first, "of another process": w.keeper} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
		if err := k.Release(ctx, a.Device, a.Owner); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	close(leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestNotes(t *testing.T) {
	w := newWorld(t, "connectx-6")
	w.kernel.Fail("Offload", errors.New("no"), 1)
	if given := w.attach(w.wish("0000:3b:00.2", "pod")); fmt.Sprint(given.Notes) != "[hw-tc-offload of ens1f0np0 is off: no flow of the device is in hardware]" {
		t.Errorf("notes %q", given.Notes)
	}
}
