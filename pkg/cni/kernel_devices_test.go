//go:build kernel

package cni_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/sriov"
)

// sysfs is one that shows the test's own network namespace.
func sysfs() string { return filepath.Join(nstest.Dir(), "sys") }

func mountSysfs() error {
	if err := os.MkdirAll(sysfs(), 0o755); err != nil {
		return err
	}
	return syscall.Mount("sysfs", sysfs(), "sysfs", 0, "")
}

// keeperOf makes the keeper of a server that has devices.
func keeperOf(sc serverConfig, ports cni.Ports) (*sriov.Keeper, error) {
	if sc.Devices == nil {
		return nil, nil
	}
	kernel, err := sriov.NewKernel()
	if err != nil {
		return nil, err
	}
	return sriov.NewKeeper(sriov.KeeperConfig{Dir: filepath.Join(filepath.Dir(sc.Socket), "devices"), Inventory: sriov.NewInventory(sysfs(), kernel.Devlink()), Kernel: kernel,
		Switch: cni.Switch{Ports: ports}, Soft: softOptions(), Log: slog.New(slog.DiscardHandler)})
}

func softOptions() sriov.SoftOptions {
	return sriov.SoftOptions{MTU: 1500, Group: intent.AttachmentGroup, Checksums: true}
}

// chosen gives each interface the device that the test says.
type chosen map[string]string

// Choose implements cni.Devices.
func (c chosen) Choose(_ context.Context, w cni.DeviceWish) (cni.Choice, error) {
	for _, key := range []string{w.Wish.Pod.Name + "/" + w.Wish.Key, w.Wish.Key} {
		if id, ok := c[key]; ok {
			if id == "" {
				return cni.Choice{Resource: w.Resource, Fallback: "the pod asks for none"}, nil
			}
			return cni.Choice{Device: id, Resource: w.Resource}, nil
		}
	}
	return cni.Choice{Device: w.Named, Resource: w.Resource}, nil
}

// Trusts implements cni.Devices.
func (chosen) Trusts(string, string) bool { return false }

func (chosen) Given(context.Context, cni.Pod) string { return "no device" }

// softDevices makes pairs that play functions, as a DevicePool does, and looks at the end
// whether they are as they were.
func softDevices(t *testing.T, labels ...string) {
	t.Helper()
	k, err := sriov.NewKernel()
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range labels {
		if err := k.MakeSoft("sv-"+label, "sr-"+label, softOptions()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.RemoveSoft("sr-" + label) })
	}
}

// devicesAt tells where each device's ends are: "a-0 node down", or what is wrong.
func devicesAt(t *testing.T) string {
	t.Helper()
	k, err := sriov.NewKernel()
	if err != nil {
		t.Fatal(err)
	}
	links, err := k.Links(k.Host())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range links {
		if strings.HasPrefix(l.Name, "sr-") || strings.HasPrefix(l.Name, "sv-") {
			out = append(out, fmt.Sprintf("%s up=%t mtu=%d", l.Name, l.Up, l.MTU))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

const softAtHome = "sr-a-0 up=false mtu=1500, sv-a-0 up=false mtu=1500"

// deviceServer serves a pod whose definition shop/net0 gets a device by its caller.
func deviceServer(t *testing.T, devices map[string]string, pods ...cni.Pod) *server {
	if len(pods) == 0 {
		pods = []cni.Pod{web()}
	}
	return startServer(t, serverConfig{Socket: filepath.Join(t.TempDir(), "cni.sock"), Pods: pods, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Devices: devices})
}

// delegated is a call of Multus' for one network, with a device.
func delegated(command, id, netns, device string) *wire.Call {
	c := kernelCall(command, id, netns)
	c.IfName = "net1"
	c.Config = fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"net0","type":"portolan-cni","netAttachDefName":"shop/net0","topology":"layer3","runtimeConfig":{"deviceID":%q}}`, device)
	return c
}

func TestKernelDevice(t *testing.T) {
	softDevices(t, "a-0")
	s := deviceServer(t, map[string]string{})
	ns := sandbox(t, "dev")
	first := s.succeed(delegated(wire.Add, "dev", ns, "soft-a-0"))
	if again := s.succeed(delegated(wire.Add, "dev", ns, "soft-a-0")); again != first {
		t.Errorf("the second ADD says %s, the first %s", again, first)
	}
	for _, w := range []string{`"name":"sr-a-0"`, `"name":"net1","mac":"0a:58:0a:14:00:03","mtu":1400`, "10.20.0.3/24"} {
		if !strings.Contains(first, w) {
			t.Errorf("%q is not in the result %s", w, first)
		}
	}
	out := in(t, ns, "ip", "addr", "show", "net1") + in(t, ns, "ip", "route") + in(t, ns, "ethtool", "-k", "net1")
	for _, w := range []string{"10.20.0.3/24", "mtu 1400", "0a:58:0a:14:00:03", "LOWER_UP", "10.20.0.0/16 via 10.20.0.1 dev net1", "tx-checksumming: off"} {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in:\n%s", w, out)
		}
	}
	record, err := vsctl("--bare", "--columns=name,external_ids", "find", "interface", "external_ids:sandbox=dev")
	for _, w := range []string{"sr-a-0\n", "iface-id=shop.net0_shop_web", "iface-id-ver=uid-web", "attached_mac=0a:58:0a:14:00:03", "vf-netdev-name=sv-a-0", "portolan/device=soft-a-0"} {
		if err != nil || !strings.Contains(strings.ReplaceAll(record, `"`, ""), w) {
			t.Errorf("%q is not in the record %s, %v", w, record, err)
		}
	}
	if got := devicesAt(t); got != "sr-a-0 up=true mtu=1400" {
		t.Error(got)
	}
	s.succeed(delegated(wire.Check, "dev", ns, "soft-a-0"))
	s.succeed(delegated(wire.Del, "dev", ns, "soft-a-0"))
	s.succeed(delegated(wire.Del, "dev", ns, "soft-a-0"))
	if got := devicesAt(t); got != softAtHome {
		t.Error(got)
	}
	s.must("gone uid-web")
	if got := s.left(); got != clean {
		t.Error(got)
	}
}
