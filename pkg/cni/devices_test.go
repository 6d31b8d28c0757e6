package cni_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// nics is an agent on a machine with NICs, whose kernel refuses what a kernel refuses.
type nics struct {
	*rig
	kernel   *sriovtest.Kernel
	keeper   *sriov.Keeper
	networks *cnitest.Networks
	plugins  *cnitest.Plugins
	devices  *choices
	before   string
	status   []cni.Attachment
	infos    string // directory of device information
	fell     map[string]string
}

// choices is cni.Devices by a test's word.
type choices struct {
	by      map[string]cni.Choice // by key
	err     error
	trusted string // namespace
	asked   []cni.DeviceWish
}

func (c *choices) Choose(_ context.Context, w cni.DeviceWish) (cni.Choice, error) {
	c.asked = append(c.asked, w)
	if c.err != nil {
		return cni.Choice{}, c.err
	}
	if choice, ok := c.by[w.Wish.Key]; ok {
		return choice, nil
	}
	return cni.Choice{Device: w.Named, Resource: w.Resource}, nil
}

func (c *choices) Trusts(_, namespace string) bool { return namespace == c.trusted }

func (c *choices) Given(_ context.Context, p cni.Pod) string {
	return "the kubelet has given it 0000:02:10.0 of example.org/vf"
}

func newNICs(t *testing.T, shape string) *nics {
	t.Helper()
	return newNICsOf(t, sriovtest.Shapes()[shape])
}

func newNICsOf(t *testing.T, list []sriovtest.NIC) *nics {
	t.Helper()
	machine := sriovtest.NewMachine(sriovtest.NewTree(t), list...)
	machine.Soft("a-0", true)
	n := &nics{kernel: sriovtest.NewKernel(machine), devices: &choices{by: map[string]cni.Choice{}}, plugins: &cnitest.Plugins{}, fell: map[string]string{}}
	for _, s := range []string{"one", "two"} {
		n.kernel.Sandbox("/run/netns/" + s)
	}
	n.before = n.kernel.Snapshot()
	var err error
	if n.networks, err = cnitest.NewNetworks(map[string]string{"red": "10.1.1.0/24", "blue": "10.2.1.0/24"}); err != nil {
		t.Fatal(err)
	}
	n.rig = newRig(t, func(c *cni.Config) {
		n.keeper, err = sriov.NewKeeper(sriov.KeeperConfig{Dir: sriovtest.Dir(t), Inventory: machine.Inventory(), Kernel: n.kernel, Switch: cni.Switch{Ports: c.Ports},
			Patience: 300 * time.Millisecond, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		n.infos = t.TempDir()
		c.DeviceInfo = n.infos
		c.Keeper, c.Devices, c.Networks, c.Plugins = n.keeper, n.devices, n.networks, n.plugins
		c.Status = func(_ cni.Pod, all []cni.Attachment) { n.status = all }
		c.Fell = func(_ cni.Pod, key, reason string) {
			if n.fell[key] = reason; reason == "" {
				delete(n.fell, key)
			}
		}
	})
	return n
}

// needs makes a network's definition name a resource.
func (n *nics) needs(name string, change func(*cni.Network)) {
	w, _ := n.networks.Named(name)
	w.Resource = "example.org/vf"
	if change != nil {
		change(&w)
	}
	n.networks.Change(name, &w)
}

func (n *nics) home(t *testing.T) {
	t.Helper()
	if got := n.kernel.Snapshot(); got != n.before {
		t.Errorf("the devices are not as they were:\n%s\nwant:\n%s", got, n.before)
	}
	if r, err := n.keeper.Records(); len(r) != 0 || err != nil {
		t.Errorf("records %v, %v", r, err)
	}
}

func choosing(selection string) cni.Pod {
	p := web()
	p.Selection = selection
	return p
}

func nativeOf(command, sandbox string) *wire.Call {
	c := call(command, sandbox)
	c.Config = []byte(`{"cniVersion":"1.1.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
	return c
}

// TestDevicePort attaches a VF in switchdev mode beside pairs, and gives it back.
func TestDevicePort(t *testing.T) {
	const vf = "0000:3b:00.2"
	n := newNICs(t, "connectx-6")
	n.needs("red", func(w *cni.Network) { w.Offload = multus.OffloadRequire })
	n.devices.by["shop/red"] = cni.Choice{Device: vf, Resource: "example.org/vf", Encap: netip.MustParseAddr("192.0.2.7")}
	n.pods.Set(choosing("red@net1 blue@net2"))
	n.must(t, nativeOf(wire.Add, "one"))
	n.must(t, nativeOf(wire.Check, "one"))
	if a := n.devices.asked; len(a) != 1 || a[0].Offload != multus.OffloadRequire || a[0].Resource != "example.org/vf" || a[0].Wish.Key != "shop/red" {
		t.Errorf("asked %+v", a)
	}
	d, err := n.keeper.Resolve(vf)
	if err != nil {
		t.Fatal(err)
	}
	ports, _ := n.ports.List(t.Context())
	i := slices.IndexFunc(ports, func(p cni.Port) bool { return p.Key == "shop/red" })
	if len(ports) != 3 || i < 0 || ports[i].Name != d.Representor || ports[i].Device != vf || ports[i].Encap != netip.MustParseAddr("192.0.2.7") || ports[i].Netdev == "" {
		t.Fatalf("ports %+v", ports)
	}
	s := n.status[1]
	if s.Device == nil || s.Device.PCI.Address != vf || s.Device.PCI.PFAddress != "0000:3b:00.0" || s.Device.PCI.Representor != d.Representor {
		t.Errorf("device-info %+v", s.Device)
	}
	if f := s.Result.Interfaces[1]; f.Name != "net1" || f.PciID != vf || f.Mac != ports[i].MAC || f.Mtu != 1400 {
		t.Errorf("result %+v", f)
	}
	if in := n.kernel.In("/run/netns/one"); !strings.Contains(in, "net1") {
		t.Errorf("the sandbox has %s", in)
	}
	n.start(t) // what is whole stays over a restart
	n.must(t, nativeOf(wire.Check, "one"))
	n.must(t, nativeOf(wire.Del, "one"))
	n.home(t)
	n.state(t, nothingLeft)
}

// TestDeviceRefused says why a device cannot be a port, and leaves all as it was.
func TestDeviceRefused(t *testing.T) {
	for _, c := range []struct {
		name, shape string
		choice      cni.Choice
		err         error
		code        uint
		want        string
	}{
		{"legacy", "igb", cni.Choice{Device: "0000:02:10.0"}, nil, wire.CodeFailed, "device 0000:02:10.0 is of NIC 0000:01:00.0 in legacy mode"},
		{"gone", "igb", cni.Choice{Device: "0000:09:10.0"}, nil, wire.CodeFailed, "device 0000:09:10.0"},
		{"not chosen", "igb", cni.Choice{}, fmt.Errorf("the pod requests none"), wire.CodeFailed, "interface net1 by definition shop/red: the pod requests none"},
		{"not known yet", "igb", cni.Choice{}, &cni.PendingError{Reason: "the kubelet does not answer"}, wire.CodeTryAgain, "the kubelet does not answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNICs(t, c.shape)
			n.needs("red", nil)
			n.devices.by["shop/red"], n.devices.err = c.choice, c.err
			n.pods.Set(choosing("blue@net2 red@net1"))
			n.refused(t, nativeOf(wire.Add, "one"), c.code, c.want, "stage choose-device")
			n.home(t)
			n.state(t, nothingLeft)
		})
	}
}

// TestDeviceOfAProgram: a function that a program drives has a port, and no network device;
// the result names it all the same, or network-status would lose it.
func TestDeviceOfAProgram(t *testing.T) {
	const vf = "0000:3b:00.2"
	list := sriovtest.Shapes()["connectx-6"]
	list[0].VFDriver = "vfio-pci"
	n := newNICsOf(t, list)
	n.needs("red", nil)
	n.devices.by["shop/red"] = cni.Choice{Device: vf}
	n.pods.Set(choosing("red@net1"))
	n.must(t, nativeOf(wire.Add, "one"))
	n.must(t, nativeOf(wire.Check, "one"))
	r := n.status[1].Result
	if len(r.Interfaces) != 2 || r.Interfaces[1].Name != "net1" || r.Interfaces[1].Sandbox == "" || r.Interfaces[1].Mac == "" || r.Interfaces[1].PciID != vf ||
		len(r.IPs) != 1 || *r.IPs[0].Interface != 1 {
		t.Errorf("result %+v, addresses %+v", r.Interfaces, r.IPs)
	}
	if s := multus.StatusOf("shop/red", r, nil); s.Interface != "net1" || s.MAC == "" || len(s.IPs) != 1 {
		t.Errorf("network-status %+v", s)
	}
	if d := n.status[1].Device; d == nil || d.PCI.Address != vf {
		t.Errorf("device-info %+v", d)
	}
	n.start(t)
	n.must(t, nativeOf(wire.Check, "one"))
	n.must(t, nativeOf(wire.Del, "one"))
	n.home(t)
}

// TestDeviceInfoFile writes what Multus asks for, where it may be, and takes it away.
func TestDeviceInfoFile(t *testing.T) {
	n := newNICs(t, "connectx-6")
	n.pods.Set(choosing("red@net1"))
	multusCall := func(command, file string) *wire.Call {
		c := call(command, "one")
		c.IfName = "net1"
		c.Config = fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"red","type":"portolan","netAttachDefName":"shop/red","topology":"layer3","runtimeConfig":{"deviceID":"0000:3b:00.2","CNIDeviceInfoFile":%q}}`, file)
		return c
	}
	n.refused(t, multusCall(wire.Add, "/etc/passwd"), wire.CodeFailed, "it must be below "+n.infos)
	file := n.infos + "/cni/red-one-net1"
	n.must(t, multusCall(wire.Add, file))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := multus.ParseDeviceInfo(file, text); err != nil || d.PCI.Address != "0000:3b:00.2" || d.PCI.PFAddress != "0000:3b:00.0" || d.PCI.Representor == "" {
		t.Errorf("%s, %v", text, err)
	}
	n.must(t, multusCall(wire.Del, file))
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file stays: %v", err)
	}
	n.home(t)
}

// TestDeviceFallsBack tells that an interface has no device of hardware until it goes.
func TestDeviceFallsBack(t *testing.T) {
	n := newNICs(t, "igb")
	n.needs("red", nil)
	n.devices.by["shop/red"] = cni.Choice{Fallback: "the pod requests no example.org/vf"}
	n.pods.Set(choosing("red@net1"))
	n.must(t, nativeOf(wire.Add, "one"))
	want := map[string]string{"shop/red": "the pod requests no example.org/vf"}
	if !maps.Equal(n.fell, want) {
		t.Errorf("told %v", n.fell)
	}
	clear(n.fell)
	n.start(t)
	if !maps.Equal(n.fell, want) {
		t.Errorf("told %v after a restart", n.fell)
	}
	n.must(t, nativeOf(wire.Del, "one"))
	if err := n.Forget(t.Context(), "uid-web"); err != nil || len(n.fell) != 0 {
		t.Errorf("told %v of a pod that is gone, %v", n.fell, err)
	}
}

// TestDeviceTrouble: what cannot be given back keeps its record, and the next DEL goes on.
func TestDeviceTrouble(t *testing.T) {
	n := newNICs(t, "connectx-6")
	n.needs("red", nil)
	n.devices.by["shop/red"] = cni.Choice{Device: "0000:3b:00.2"}
	n.pods.Set(choosing("red@net1"))
	n.kernel.Fail("Move", os.ErrPermission, 1)
	n.refused(t, nativeOf(wire.Add, "one"), wire.CodeFailed, "stage take-device", "moving")
	n.home(t)
	n.must(t, nativeOf(wire.Add, "one"))
	n.kernel.Fail("Move", os.ErrPermission, 2) // it is tried by another way, too
	n.refused(t, nativeOf(wire.Del, "one"), wire.CodeFailed, "stage return-device", "moving net1 back from the sandbox", "look at ip -d link show ens1f0np0_0 on the node")
	if r, _ := n.keeper.Records(); len(r) != 1 || r[0].Phase != sriov.Detaching {
		t.Errorf("records %+v", r)
	}
	n.must(t, nativeOf(wire.Del, "one"))
	n.home(t)
	n.state(t, nothingLeft)
}

// TestDeviceNotLive: a device is not given to a pod that runs; one that it has is taken.
func TestDeviceNotLive(t *testing.T) {
	n := newNICs(t, "connectx-6")
	n.needs("red", nil)
	n.devices.by["shop/red"] = cni.Choice{Device: "0000:3b:00.2"}
	p := choosing("red@net1")
	n.pods.Set(p)
	n.must(t, nativeOf(wire.Add, "one"))
	p.Selection = ""
	n.pods.Set(p)
	if err := n.Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	n.home(t)
	p.Selection = "red@net1"
	n.pods.Set(p)
	if err := n.Prepare(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	n.home(t)
}

// sriovCall is a call of type sriov.
func sriovCall(command, sandbox, fields string) *wire.Call {
	c := call(command, sandbox)
	c.IfName = "net1"
	c.Config = []byte(`{"cniVersion":"1.1.0","name":"wire","type":"sriov","logLevel":"debug"` + fields + `}`)
	return c
}

// TestTypeSRIOV gives a VF of a NIC in legacy mode by sriov-cni's fields.
func TestTypeSRIOV(t *testing.T) {
	n := newNICs(t, "igb")
	fields := `,"deviceID":"0000:02:10.0","vlan":100,"vlanQoS":3,"mac":"02:00:00:00:00:07","spoofchk":"on","max_tx_rate":200,"ipam":{"type":"host-local"}`
	text := n.must(t, sriovCall(wire.Add, "one", fields))
	var result struct {
		Interfaces []struct{ Name, Mac, Sandbox, PciID string }
		IPs        []struct {
			Address   string
			Interface *int
		}
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil || len(result.Interfaces) != 1 || result.Interfaces[0].Name != "net1" ||
		result.Interfaces[0].Mac != "02:00:00:00:00:07" || result.Interfaces[0].PciID != "0000:02:10.0" || len(result.IPs) != 1 || result.IPs[0].Interface == nil {
		t.Errorf("result %s, %v", text, err)
	}
	vfs, err := n.kernel.VFs("enp1s0f0")
	if v := vfs[0]; err != nil || v.VLAN != 100 || v.QoS != 3 || v.MAC != "02:00:00:00:00:07" || v.MaxRate != 200 {
		t.Errorf("VF %+v, %v", v, err)
	}
	n.must(t, sriovCall(wire.Check, "one", fields))
	n.start(t) // neither a restart nor a comparison takes it away
	if err := n.Compare(t.Context()); err != nil {
		t.Error(err)
	}
	n.must(t, sriovCall(wire.Check, "one", fields))
	n.refused(t, sriovCall(wire.Add, "two", `,"deviceID":"0000:02:10.0"`), wire.CodeFailed, "belongs to pod shop/web")
	n.must(t, sriovCall(wire.Del, "one", fields))
	n.must(t, sriovCall(wire.Del, "one", fields))
	n.refused(t, sriovCall(wire.Check, "one", fields), wire.CodeInconsistent, "no device belongs")
	n.home(t)
	if got := n.plugins.Log(); !slices.Equal(got, []string{"ADD net1", "DEL net1"}) {
		t.Errorf("IPAM: %v", got)
	}
	// A sandbox that ends without a DEL.
	n.must(t, sriovCall(wire.Add, "two", fields))
	n.kernel.End("/run/netns/two")
	n.links.End("/run/netns/two")
	if err := n.Compare(t.Context()); err != nil {
		t.Error(err)
	}
	n.kernel.Sandbox("/run/netns/two")
	n.home(t)
}

func TestTypeSRIOVRefuses(t *testing.T) {
	const vf = `,"deviceID":"0000:02:10.0"`
	for _, c := range []struct{ name, shape, fields, want string }{
		{"no device", "igb", ``, "network wire of type sriov: no device is given for pod shop/web: the kubelet has given it 0000:02:10.0 of example.org/vf; annotate the definition"},
		{"vlan", "igb", vf + `,"vlan":5000`, "vlan is 5000"},
		{"mac", "igb", vf + `,"runtimeConfig":{"mac":"zz"}`, `mac is "zz"`},
		{"trust", "igb", vf + `,"trust":"on"`, "trust of network wire would let the pod speak in the name of others, and namespace shop is not trusted"},
		{"spoofchk", "igb", vf + `,"spoofchk":"off"`, "spoofchk of network wire"},
		{"switchdev", "connectx-6", `,"deviceID":"0000:3b:00.2"`, "is on an e-switch in switchdev mode"},
		{"soft", "igb", `,"deviceID":"soft-a-0"`, "where its packets come to sr-a-0"},
		{"IPAM", "igb", vf + `,"ipam":{"type":"host-local"}`, `IPAM plugin "host-local" of network wire: failed as asked`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNICs(t, c.shape)
			n.plugins.FailAt("net1")
			reply := n.Handle(t.Context(), sriovCall(wire.Add, "one", c.fields))
			n.plugins.FailAt("")
			if reply.Error == nil || !strings.Contains(reply.Error.Msg, c.want) {
				t.Errorf("%+v, want %q", reply.Error, c.want)
			}
			n.must(t, sriovCall(wire.Del, "one", c.fields))
			n.home(t)
		})
	}
	n := newNICs(t, "igb")
	n.devices.err = errors.New("the kubelet has given it none such")
	n.refused(t, sriovCall(wire.Add, "one", vf), wire.CodeFailed, "the kubelet has given it none such")
	n.home(t)
	if w := n.devices.asked[0]; w.Named != "0000:02:10.0" || w.Wish.Pod.Namespace != "shop" {
		t.Errorf("asked for %+v", w)
	}
	n.devices.err = nil
	n.devices.trusted = "shop"
	n.must(t, sriovCall(wire.Add, "one", vf+`,"trust":"on","spoofchk":"off"`))
	if vfs, err := n.kernel.VFs("enp1s0f0"); err != nil || vfs[0].Trust != "on" || vfs[0].Spoofchk != "off" {
		t.Errorf("%+v, %v", vfs[0], err)
	}
	n.must(t, sriovCall(wire.Del, "one", vf))
	n.home(t)
}

// TestTypeSRIOVAlways: STATUS and GC of CNI 1.1 are answered; a DEL gives the function back
// whole though its IPAM plugin fails, which is tried again and ends, and though the namespace
// has gone and is not named.
func TestTypeSRIOVAlways(t *testing.T) {
	const fields = `,"deviceID":"0000:02:10.0","vlan":100,"mac":"02:00:00:00:00:07","ipam":{"type":"host-local"}`
	n := newNICs(t, "igb")
	n.must(t, sriovCall(wire.Status, "", ""))
	n.must(t, sriovCall(wire.Add, "one", fields))
	gc := sriovCall(wire.GC, "", `,"cni.dev/valid-attachments":[]`)
	n.must(t, gc)
	n.must(t, sriovCall(wire.Check, "one", fields))
	n.plugins.FailAt("net1")
	n.refused(t, sriovCall(wire.Del, "one", fields), wire.CodeFailed, "failed as asked")
	n.home(t)
	n.refused(t, sriovCall(wire.Del, "one", fields), wire.CodeFailed, "failed as asked")
	n.plugins.FailAt("")
	n.must(t, sriovCall(wire.Del, "one", fields))
	if list, err := n.plugins.List(); err != nil || len(list) != 0 {
		t.Errorf("IPAM keeps %+v, %v", list, err)
	}

	n.must(t, sriovCall(wire.Add, "two", fields))
	n.kernel.End("/run/netns/two")
	n.links.End("/run/netns/two")
	del := sriovCall(wire.Del, "two", fields)
	del.Netns = ""
	n.must(t, del)
	n.kernel.Sandbox("/run/netns/two")
	n.home(t)
}

// TestTypeSRIOVNamesTheNIC: what an error sends people to is the NIC, which shows what its
// functions are told; a function has no port.
func TestTypeSRIOVNamesTheNIC(t *testing.T) {
	const vf = `,"deviceID":"0000:02:10.0","vlan":7`
	n := newNICs(t, "igb")
	n.kernel.Fail("SetVF", os.ErrPermission, 1)
	n.refused(t, sriovCall(wire.Add, "one", vf), wire.CodeFailed, "stage take-device", "look at ip -d link show enp1s0f0 on the node")
	n.home(t)
	n.must(t, sriovCall(wire.Add, "one", vf))
	n.kernel.Fail("Move", os.ErrPermission, 2) // it is tried by another way, too
	n.refused(t, sriovCall(wire.Del, "one", vf), wire.CodeFailed, "stage return-device", "look at ip -d link show enp1s0f0 on the node")
	n.must(t, sriovCall(wire.Del, "one", vf))
	n.home(t)
}

// TestOthersDevice gives a definition of other plugins the device of its resource.
func TestOthersDevice(t *testing.T) {
	n := newNICs(t, "igb")
	list := json.RawMessage(`{"cniVersion":"1.0.0","name":"wire","plugins":[{"type":"host-device"},{"type":"tuning"}]}`)
	n.networks.Change("red", &cni.Network{Name: "wire", Chain: cni.Chain{List: list}, Resource: "example.org/vf"})
	n.devices.by["shop/red"] = cni.Choice{Device: "0000:02:10.0", Resource: "example.org/vf"}
	n.pods.Set(choosing("red@net1"))
	n.must(t, nativeOf(wire.Add, "one"))
	done, _ := n.plugins.List()
	if len(done) != 1 || strings.Count(string(done[0].List), `"deviceID":"0000:02:10.0"`) != 2 || string(done[0].Values["deviceID"]) != `"0000:02:10.0"` || done[0].Device != "0000:02:10.0" {
		t.Errorf("%+v", done)
	}
	if d := n.status[1].Device; d == nil || d.PCI.Address != "0000:02:10.0" || d.PCI.Representor != "" {
		t.Errorf("device-info %+v", d)
	}
	n.must(t, nativeOf(wire.Del, "one"))
	n.devices.by["shop/red"] = cni.Choice{}
	n.refused(t, nativeOf(wire.Add, "two"), wire.CodeFailed, "it needs a device of resource example.org/vf, and the pod has none")
	n.state(t, nothingLeft)
}

// TestInstallCopy leaves another's plugin alone, and takes its own away.
func TestInstallCopy(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable() // built by go, and no portolan-cni
	if err != nil {
		t.Fatal(err)
	}
	if err := cni.InstallBinary(self, dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sriov"), []byte("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cni.InstallCopy(dir, "sriov"); err == nil || !strings.Contains(err.Error(), "is another program and stays") {
		t.Error(err)
	}
	if err := cni.RemoveCopy(dir, "sriov"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "sriov")); err != nil || string(text) != "theirs" {
		t.Errorf("%s, %v", text, err)
	}
}

// TestDeviceOfOneWhoIsGone: a soft device ends with its owner's namespace, and is made again
// for the next, before the owner's DEL has come.
func TestDeviceOfOneWhoIsGone(t *testing.T) {
	n := newNICs(t, "igb")
	n.needs("red", nil)
	n.devices.by["shop/red"] = cni.Choice{Device: "soft-a-0"}
	n.pods.Set(choosing("red@net1"))
	other := cni.Pod{Namespace: "shop", Name: "other", UID: "uid-other", Selection: "red@net1"}
	n.pods.Set(other)
	n.must(t, nativeOf(wire.Add, "one"))
	n.kernel.End("/run/netns/one")
	n.links.End("/run/netns/one")
	next := func(command string) *wire.Call {
		c := nativeOf(command, "two")
		c.Args = strings.NewReplacer("=web", "=other", "uid-web", "uid-other").Replace(c.Args)
		return c
	}
	n.must(t, next(wire.Add))
	n.must(t, nativeOf(wire.Del, "one"))
	n.must(t, next(wire.Check))
	n.must(t, next(wire.Del))
	n.kernel.Sandbox("/run/netns/one")
	n.state(t, nothingLeft)
	if r, err := n.keeper.Records(); len(r) != 0 || err != nil {
		t.Errorf("records %v, %v", r, err)
	}
}
