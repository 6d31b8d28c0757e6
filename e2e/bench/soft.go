package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// softMTU is what soft devices have while no pod has them.
const softMTU = 1500

// devices are the node's soft devices, without a kubelet: every interface whose
// definition names a resource gets the one that there is.
type devices struct {
	kernel *sriov.NetlinkKernel
	sys    string // a sysfs of the namespace that the program is in: the machine's has the machine's devices
	one    string // id; "": there is none
}

// open makes the keeper of devices that the agent has.
func (d *devices) open(dir string, ports cni.Ports) (*sriov.Keeper, error) {
	d.sys = filepath.Join(dir, "sys")
	if err := os.Mkdir(d.sys, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("sysfs", d.sys, "sysfs", 0, ""); err != nil {
		return nil, err
	}
	var err error
	if d.kernel, err = sriov.NewKernel(); err != nil {
		return nil, err
	}
	records := filepath.Join(dir, "devices") // as portolan-node's, in memory
	if err := errors.Join(os.Mkdir(records, 0o700), syscall.Mount("ptb", records, "tmpfs", 0, "")); err != nil {
		return nil, err
	}
	return d.keeper(records, cni.Switch{Ports: ports})
}

func (d *devices) keeper(dir string, s sriov.Switch) (*sriov.Keeper, error) {
	return sriov.NewKeeper(sriov.KeeperConfig{Dir: dir, Inventory: sriov.NewInventory(d.sys, d.kernel.Devlink()), Kernel: d.kernel,
		Switch: s, Soft: softOptions(), Log: slog.New(slog.DiscardHandler)})
}

func softOptions() sriov.SoftOptions {
	return sriov.SoftOptions{MTU: softMTU, Group: intent.AttachmentGroup, Checksums: true}
}

func (d *devices) close() {
	if d.kernel != nil {
		d.kernel.Close()
	}
}

// Choose implements cni.Devices.
func (d *devices) Choose(_ context.Context, w cni.DeviceWish) (cni.Choice, error) {
	if w.Resource != "" && d.one == "" {
		return cni.Choice{}, errors.New("there is no device")
	}
	if w.Resource == "" {
		return cni.Choice{}, nil
	}
	return cni.Choice{Device: d.one, Resource: w.Resource}, nil
}

// Trusts implements cni.Devices.
func (d *devices) Trusts(string, string) bool { return false }

// Given implements cni.Devices.
func (d *devices) Given(context.Context, cni.Pod) string { return "no device" }

// softPair is a soft device that one contender alone is given.
type softPair struct{ id, netdev, representor string }

// pair makes one as the agent makes those of a DevicePool.
func (d *devices) pair(label string) (softPair, error) {
	id, err := sriov.SoftID(label)
	if err != nil {
		return softPair{}, err
	}
	p := softPair{id: id}
	if p.netdev, p.representor, err = sriov.SoftNames(id); err != nil {
		return p, err
	}
	return p, d.kernel.MakeSoft(p.netdev, p.representor, softOptions())
}
