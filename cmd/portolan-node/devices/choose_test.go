package devices_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// wish of pod ns/p for a definition.
func wish(key, resource, offload, named string) cni.DeviceWish {
	return cni.DeviceWish{Wish: cni.Wish{Pod: cni.Pod{Namespace: "ns", Name: "p", UID: "uid-p"}, Key: key}, Resource: resource, Offload: offload, Named: named}
}

// TestChoose tells what an interface gets, by what its pod has and its definition says.
func TestChoose(t *testing.T) {
	n, legacy := shape("connectx-6", 4, sriov.Switchdev), shape("igb", 2, sriov.Legacy)
	vf, old := n.VFAddress(0), legacy.VFAddress(0)
	w := newWorld(t, n, legacy)
	w.kubelet.Start()
	requested := int64(0)
	w.config.Requests = func(context.Context, string, string) (map[string]int64, error) {
		return map[string]int64{fast: requested}, nil
	}
	w.start(soft("a", 2))
	w.pool("a", ready)
	for name, test := range map[string]struct {
		has       []string // of fast
		requested int64
		wish      cni.DeviceWish
		want      cni.Choice
		says      string // of its error, or fallback
		pending   bool
	}{
		"nothing asked":            {wish: wish("ns/a", "", multus.OffloadPrefer, "")},
		"require nothing":          {wish: wish("ns/a", "", multus.OffloadRequire, ""), says: "name a resource"},
		"hardware":                 {has: []string{vf}, wish: wish("ns/a", fast, multus.OffloadPrefer, ""), want: cni.Choice{Device: vf, Resource: fast}},
		"required":                 {has: []string{vf}, wish: wish("ns/a", fast, multus.OffloadRequire, ""), want: cni.Choice{Device: vf, Resource: fast}},
		"hardware, off":            {has: []string{vf}, wish: wish("ns/a", fast, multus.OffloadOff, "")},
		"legacy, off":              {has: []string{old}, wish: wish("ns/a", fast, multus.OffloadOff, ""), want: cni.Choice{Device: old, Resource: fast}},
		"legacy, required":         {has: []string{old}, wish: wish("ns/a", fast, multus.OffloadRequire, ""), says: "is in legacy mode"},
		"soft, preferred":          {has: []string{"soft-a-1"}, wish: wish("ns/a", fast, multus.OffloadPrefer, ""), want: cni.Choice{Device: "soft-a-1", Resource: fast}, says: "soft-a-1 is soft"},
		"soft, off":                {has: []string{"soft-a-1"}, wish: wish("ns/a", fast, multus.OffloadOff, ""), want: cni.Choice{Device: "soft-a-1", Resource: fast}},
		"soft, required":           {has: []string{"soft-a-1"}, wish: wish("ns/a", fast, multus.OffloadRequire, ""), says: "is soft"},
		"not requested, preferred": {wish: wish("ns/a", fast, multus.OffloadPrefer, ""), says: "requests none of it"},
		"not requested, required":  {wish: wish("ns/a", fast, multus.OffloadRequire, ""), says: "requests none of it"},
		"not requested, off":       {wish: wish("ns/a", fast, multus.OffloadOff, "")},
		"not given yet":            {requested: 1, wish: wish("ns/a", fast, multus.OffloadPrefer, ""), says: "requests 1 of resource portolan.io/fast, and the kubelet has given it no device yet", pending: true},
		"named":                    {has: []string{vf}, wish: wish("ns/a", fast, multus.OffloadPrefer, strings.ToUpper(vf)), want: cni.Choice{Device: vf, Resource: fast}},
		"another's":                {has: []string{vf}, wish: wish("ns/a", fast, multus.OffloadPrefer, n.VFAddress(1)), says: "given it none such: it has " + vf},
		"gone":                     {has: []string{"0000:3b:0f.0"}, wish: wish("ns/a", fast, multus.OffloadPrefer, ""), says: "does not exist"},
		"no id":                    {wish: wish("ns/a", fast, multus.OffloadPrefer, "x y"), says: "it is no PCI address"},
	} {
		requested = max(test.requested, int64(len(test.has)))
		w.kubelet.Set("ns", "p", fast, test.has...)
		got, err := w.d.Choose(t.Context(), test.wish)
		text := got.Fallback
		if err != nil {
			text = err.Error()
			if !strings.Contains(text, "definition ns/a") {
				t.Errorf("%s: %v does not name the definition", name, err)
			}
		}
		got.Fallback = ""
		if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || pending(err) != test.pending ||
			(test.says == "") != (text == "") || !strings.Contains(text, test.says) {
			t.Errorf("%s: %+v, %q, pending %t\n%s", name, got, text, pending(err), diff)
		}
		w.kubelet.Remove("ns", "p")
	}
}

// TestPairs: interfaces of one resource get the pod's devices in their order, the same
// again after a restart, and whichever asks first.
func TestPairs(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	w.config.Requests = func(context.Context, string, string) (map[string]int64, error) { return map[string]int64{fast: 2}, nil }
	w.start(soft("a", 4))
	w.kubelet.Wait(fast, well(4, 4))
	w.kubelet.Set("ns", "p", fast, "soft-a-3", "soft-a-1")
	choose := func(key string, has map[string]string) string {
		t.Helper()
		in := wish(key, fast, multus.OffloadPrefer, "")
		in.Has = has
		c, err := w.d.Choose(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		return c.Device
	}
	if got := choose("ns/a", nil); got != "soft-a-1" {
		t.Errorf("the first gets %s", got)
	}
	if got := choose("ns/a/1", map[string]string{"ns/a": "soft-a-1"}); got != "soft-a-3" {
		t.Errorf("the second gets %s", got)
	}
	w.attach("soft-a-3", "p", "ns/a")
	w.end()
	w.start(soft("a", 4))
	if got := choose("ns/a", nil); got != "soft-a-3" {
		t.Errorf("the first gets %s, and has soft-a-3", got)
	}
	if got := choose("ns/a/1", nil); got != "soft-a-1" {
		t.Errorf("the second gets %s", got)
	}
	in := wish("ns/a/2", fast, multus.OffloadPrefer, "")
	in.Has = map[string]string{"ns/a": "soft-a-3", "ns/a/1": "soft-a-1"}
	if c, err := w.d.Choose(t.Context(), in); err == nil || !strings.Contains(err.Error(), "no device of resource portolan.io/fast is left") ||
		!strings.Contains(err.Error(), "ns/a: soft-a-3") {
		t.Errorf("the third gets %+v, %v", c, err)
	}
	// A named device that another interface of the pod has, as Multus names one for two.
	in = wish("ns/b", fast, multus.OffloadPrefer, "soft-a-3")
	in.Has = map[string]string{"default": "soft-a-3"}
	if _, err := w.d.Choose(t.Context(), in); err == nil || !strings.Contains(err.Error(), "device soft-a-3 is that of the pod's interface on default already") {
		t.Errorf("one device for two: %v", err)
	}
	w.kubelet.Twin("ns", "p", fast, "soft-a-0")
	if _, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); !pending(err) {
		t.Errorf("with two pods of the name: %v", err)
	}
	w.kubelet.Stop()
	if _, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); !pending(err) {
		t.Errorf("without a kubelet: %v", err)
	}
}

func pending(err error) bool {
	_, ok := errors.AsType[*cni.PendingError](err)
	return ok
}

// TestRequire names what keeps flows out of the NIC.
func TestRequire(t *testing.T) {
	n := shape("connectx-6", 1, sriov.Switchdev)
	for name, test := range map[string]struct {
		software error
		offload  string
		says     string
	}{
		"Open vSwitch": {errors.New("other_config:hw-offload is not true"), "", "hw-offload is not true"},
		"the uplink":   {nil, n.Netdev, "hw-tc-offload of " + n.Netdev + " is off"},
	} {
		w := newWorld(t, n)
		w.kubelet.Start()
		w.config.Software = func() error { return test.software }
		if test.offload != "" {
			w.config.Kernel = noOffload{w.kernel, test.offload}
		}
		w.start(nics("a", nil))
		w.kubelet.Set("ns", "p", fast, n.VFAddress(0))
		if _, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadRequire, "")); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
		w.end()
	}
}

// TestReserved: the device of the management port is nobody's, whichever pool it is of.
func TestReserved(t *testing.T) {
	n := shape("connectx-6", 2, sriov.Switchdev)
	w := newWorld(t, n)
	w.kubelet.Start()
	w.config.Node = func() devices.Node { return devices.Node{Reserved: []string{strings.ToUpper(n.VFAddress(0))}} }
	w.start(nics("a", nil))
	w.kubelet.Wait(fast, func(m map[string]string) bool { return well(1, 2)(m) && m[n.VFAddress(0)] == "Unhealthy" })
	w.kubelet.Set("ns", "p", fast, n.VFAddress(0))
	if _, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); err == nil || !strings.Contains(err.Error(), "it is the node's management port") {
		t.Errorf("it says %v", err)
	}
}

// TestRequireWithoutUplink: a NIC whose network device somebody has moved away.
func TestRequireWithoutUplink(t *testing.T) {
	n := shape("connectx-6", 1, sriov.Switchdev)
	w := newWorld(t, n)
	w.kubelet.Start()
	w.start(nics("a", nil))
	w.pool("a", ready)
	w.m.Drop(n.Netdev)
	w.m.Devlink.Delete(n.Netdev)
	w.config.Inventory.Invalidate()
	w.kubelet.Set("ns", "p", fast, n.VFAddress(0))
	_, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadRequire, ""))
	if err == nil || !strings.Contains(err.Error(), "is not here: look whether it was moved to another network namespace") || strings.Contains(err.Error(), "%!") {
		t.Errorf("it says %v", err)
	}
}

// noOffload has a network device that hands nothing to its NIC.
type noOffload struct {
	sriov.Kernel
	name string
}

func (n noOffload) Offload(name string) (bool, error) {
	if name == n.name {
		return false, nil
	}
	return n.Kernel.Offload(name)
}

// TestEncap: tunnels of a pool's devices begin at the address of their NIC.
func TestEncap(t *testing.T) {
	n := shape("connectx-6", 2, sriov.Switchdev)
	w := newWorld(t, n)
	w.kubelet.Start()
	addresses := map[string][]netip.Addr{n.Netdev: {netip.MustParseAddr("192.0.2.7")}, "vlan5": {netip.MustParseAddr("192.0.2.9")}}
	w.config.Addresses = func(name string) ([]netip.Addr, error) { return addresses[name], nil }
	told := make(chan []netip.Addr)
	w.config.Tunneled = func(list []netip.Addr) {
		select {
		case told <- list:
		case <-t.Context().Done():
		case <-time.After(50 * time.Millisecond): // nobody asks any more
		}
	}
	part := func(vf int) []intent.NICPart { return []intent.NICPart{{NIC: n.Netdev, VFs: [][2]int{{vf, vf}}}} }
	w.start(
		nics("a", func(p *intent.DevicePool) { p.Tunnel, p.NICs.PFNames = "uplink", part(0) }),
		nics("b", func(p *intent.DevicePool) { p.Tunnel, p.NICs.PFNames = "vlan5", part(1) }))
	w.pool("b", ready)
	want := []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.9")}
	w.d.Know(nics("b", func(p *intent.DevicePool) { p.Tunnel, p.NICs.PFNames = "vlan5", part(1) })) // one more look
	if got := <-told; !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	s := soft("s", 1)
	s.Tunnel = "wlan5"
	addresses["wlan5"] = []netip.Addr{netip.MustParseAddr("192.0.2.11")}
	w.d.Know(s)
	w.until(func() bool {
		got := <-told
		return slices.Equal(got, append(slices.Clone(want), addresses["wlan5"][0]))
	}, func() any { return w.d.States() })
	w.kubelet.Set("ns", "p", fast, "soft-s-0")
	if c, err := w.d.Choose(t.Context(), wish("ns/s", fast, multus.OffloadPrefer, "")); err != nil || c.Device != "soft-s-0" || c.Encap != addresses["wlan5"][0] {
		t.Errorf("%+v, %v", c, err)
	}
	w.kubelet.Set("ns", "p", fast, n.VFAddress(1))
	if c, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); err != nil || c.Encap != want[1] {
		t.Errorf("%+v, %v", c, err)
	}
	w.d.Know(nics("b", func(p *intent.DevicePool) { p.Tunnel, p.NICs.PFNames = "eth9", part(1) }))
	w.pool("b", because("Failed", "network device eth9", "no address"))
	if c, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); err == nil || !strings.Contains(err.Error(), "eth9") {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestTrusts: namespaces that a device's pool names, and no others.
func TestTrusts(t *testing.T) {
	w := newWorld(t)
	w.kubelet.Start()
	p := soft("a", 1)
	p.Trusted = &intent.Labels{{Key: "trusted", Op: intent.Exists}}
	w.start(p, soft("b", 1))
	w.pool("b", ready)
	w.d.Namespace("good", map[string]string{"trusted": ""})
	w.d.Namespace("bad", map[string]string{})
	for device, spaces := range map[string]map[string]bool{
		"soft-a-0": {"good": true, "bad": false, "unknown": false}, "soft-b-0": {"good": false}, "soft-c-0": {"good": false},
	} {
		for space, want := range spaces {
			if got := w.d.Trusts(device, space); got != want {
				t.Errorf("%s in %s: %t", device, space, got)
			}
		}
	}
	w.d.Namespace("good", nil)
	if w.d.Trusts("soft-a-0", "good") {
		t.Error("a namespace that is gone is trusted")
	}
}

// TestWithoutKubelet: devices that are named are given as they are.
func TestWithoutKubelet(t *testing.T) {
	w := newWorld(t)
	w.config.Plugins, w.config.Resources = "", ""
	w.start(soft("a", 1))
	w.pool("a", ready)
	if c, err := w.d.Choose(t.Context(), wish("ns/a", "", multus.OffloadOff, "soft-a-0")); err != nil || c.Device != "soft-a-0" || c.Resource != fast {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err := w.d.Choose(t.Context(), wish("ns/a", fast, multus.OffloadPrefer, "")); err != nil || c.Device != "" || c.Fallback == "" {
		t.Errorf("%+v, %v", c, err)
	}
	w.d.Forget("a")
	w.until(func() bool { return len(w.d.States()) == 0 }, func() any { return w.d.States() })
	if ids := w.softs(); len(ids) != 1 {
		t.Errorf("%v are left, and one was chosen just now", ids)
	}
	w.pass(5 * 60e9)
	w.until(func() bool { return len(w.softs()) == 0 }, func() any { return w.softs() })
}
