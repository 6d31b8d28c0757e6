//go:build kernel

package devices_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/nstest"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/plugin/plugintest"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// The kernel tier runs by root, in a network and a mount namespace of its own.
func TestMain(m *testing.M) {
	os.Exit(nstest.Main(syscall.CLONE_NEWNET|syscall.CLONE_NEWNS, func() int {
		sys := nstest.Dir() + "/sys"
		err := errors.Join(unix.Mount("tmpfs", nstest.Dir(), "tmpfs", 0, ""), os.Mkdir(sys, 0o755), unix.Mount("sysfs", sys, "sysfs", 0, ""))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}))
}

// realWorld is a node on this kernel, with the kubelet's part played.
func realWorld(t *testing.T) *world {
	t.Helper()
	kernel, err := sriov.NewKernel()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kernel.Close)
	machine, err := nic.NewKernel(nstest.Dir() + "/sys")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Close)
	inventory, quiet := sriov.NewInventory(nstest.Dir()+"/sys", kernel.Devlink()), slog.New(slog.DiscardHandler)
	w := &world{t: t, kubelet: plugintest.New(t)}
	soft := sriov.SoftOptions{Group: intent.AttachmentGroup, Checksums: true}
	w.keeper, err = sriov.NewKeeper(sriov.KeeperConfig{Dir: sriovtest.Dir(t), Inventory: inventory, Kernel: kernel, Switch: sriovtest.NewSwitch(), Soft: soft, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	w.config = devices.Config{
		Inventory: inventory, Kernel: kernel, Records: w.keeper, NICs: nic.New(nic.Config{Inventory: inventory, Machine: machine, Log: quiet}), Soft: soft,
		Plugins: w.kubelet.Dir(), Resources: w.kubelet.PodResources(), Sys: nstest.Dir() + "/sys", Info: filepath.Join(t.TempDir(), "dp"), Log: quiet, Now: w.now,
	}
	t.Cleanup(w.end)
	return w
}

// TestRealSoftPool makes, gives and removes veth pairs; their representors are quiet, and
// one that somebody removes is made again, by what the kernel tells.
func TestRealSoftPool(t *testing.T) {
	w := realWorld(t)
	w.kubelet.Start()
	pool := soft("kern", 4)
	pool.MTU = 1300
	w.start(pool)
	w.kubelet.Wait(fast, well(4, 4))
	w.pool("kern", ready)
	for file, want := range map[string]string{
		"/proc/sys/net/ipv6/conf/sr-kern-0/disable_ipv6": "1", "/proc/sys/net/ipv4/conf/sr-kern-0/arp_ignore": "8",
		nstest.Dir() + "/sys/class/net/sr-kern-0/mtu": "1300", nstest.Dir() + "/sys/class/net/sv-kern-0/mtu": "1300",
	} {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) && strings.Contains(file, "ipv6") {
			continue // a kernel without IPv6
		}
		if got := strings.TrimSpace(string(text)); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %s", file, got, err, want)
		}
	}
	if err := w.config.Kernel.RemoveSoft("sr-kern-2"); err != nil {
		t.Fatal(err)
	}
	w.until(func() bool { return slices.Contains(w.softs(), "soft-kern-2") }, func() any { return w.softs() })

	id := w.admit("p", fast, 1).Devices[fast][0]
	ns, err := w.config.Kernel.Temporary()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	function, _, err := sriov.SoftNames(id)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.config.Kernel.Link(w.config.Kernel.Host(), function)
	if err == nil {
		err = w.config.Kernel.Move(w.config.Kernel.Host(), l.Index, ns, sriov.Change{})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.d.Forget("kern")
	w.until(func() bool { return slices.Equal(w.softs(), []string{id}) }, func() any { return w.softs() })
	w.pool("kern", func(s v1alpha1.NodeDevicePool) bool { return s.Name == "" })
	w.kubelet.Remove("ns", "p")
	w.until(func() bool { w.pass(1e9); return len(w.softs()) == 0 }, func() any { return w.softs() })
}
