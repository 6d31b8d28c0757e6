package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/durable"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/metrics"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
)

// devicing is what the whole process has of devices: one inventory, one keeper.
type devicing struct {
	*devices.Devices
	kernel    *sriov.NetlinkKernel
	machine   *nic.Kernel
	inventory *sriov.Inventory
	keeper    *sriov.Keeper
}

// deviceTimeout bounds a question about a pod.
const deviceTimeout = 5 * time.Second

// connectDevices makes what knows NICs and their functions, and keeps the node's pools of
// them. close closes it.
func (a *agent) connectDevices() error {
	d := &devicing{}
	a.devices = d
	var err error
	if d.kernel, err = sriov.NewKernel(); err != nil {
		return err
	}
	if d.machine, err = nic.NewKernel(a.cfg.Sys); err != nil {
		return err
	}
	d.inventory = sriov.NewInventory(a.cfg.Sys, d.kernel.Devlink())
	soft := sriov.SoftOptions{Group: intent.AttachmentGroup, Checksums: a.facts.datapath == intent.UserspaceDatapath}
	if d.keeper, err = sriov.NewKeeper(sriov.KeeperConfig{
		Dir: a.cfg.deviceRecords(), Inventory: d.inventory, Kernel: d.kernel, Switch: cni.Switch{Ports: a.ports}, Soft: soft, Log: slog.Default(),
	}); err != nil {
		return err
	}
	cfg := devices.Config{
		Inventory: d.inventory, Kernel: d.kernel, Records: d.keeper, NICs: nic.New(nic.Config{Inventory: d.inventory, Machine: d.machine, Log: slog.Default()}),
		Soft: soft, Uses: a.uses, Sys: a.cfg.Sys, Software: a.software, Addresses: a.tunnelAddresses, Tunneled: a.facts.tunnels.want, Node: a.nodeDevices, CDI: a.cfg.CDIDir, Info: a.cfg.DeviceDir,
		Figures: func(list []devices.Count) {
			out := make([]metrics.DeviceCount, len(list))
			for n, c := range list {
				out[n] = metrics.DeviceCount(c)
			}
			a.health.devices.Show(out)
		}, Log: slog.Default(),
	}
	if a.client != nil && a.cfg.KubeletDir != "" {
		cfg.Plugins, cfg.Resources = filepath.Join(a.cfg.KubeletDir, "device-plugins"), filepath.Join(a.cfg.KubeletDir, "pod-resources/kubelet.sock")
		cfg.Requests = func(ctx context.Context, namespace, name string) (map[string]int64, error) {
			ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
			defer cancel()
			return kube.PodRequests(ctx, a.client, namespace, name)
		}
	}
	if d.Devices, err = devices.New(cfg); err != nil {
		return err
	}
	a.pools = d
	return nil
}

// describe tells what a device is.
func (d *devicing) describe(id string) inspect.PodDevice {
	out := inspect.PodDevice{ID: id}
	if found, err := d.inventory.Resolve(id); err == nil {
		out = deviceOf(found)
	}
	out.Pool, out.Resource = d.Offered(id)
	return out
}

// deviceOf is a device in the words of package inspect.
func deviceOf(d sriov.Device) inspect.PodDevice {
	out := inspect.PodDevice{ID: d.ID, Kind: string(d.Kind), Mode: string(d.Mode), PF: d.PF.ID}
	if d.PF.Netdev != "" {
		out.PF = d.PF.Netdev + " (" + d.PF.ID + ")"
	}
	return out
}

// listDevices tells of the node's pools, and of what they offer.
func (a *agent) listDevices(ctx context.Context) (inspect.Devices, error) {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	out := inspect.Devices{Pools: []inspect.DevicePool{}, Devices: []inspect.NodeDevice{}}
	for _, s := range a.devices.States() {
		out.Pools = append(out.Pools, inspect.DevicePool{
			Name: s.Name, Ready: s.Ready, Reason: s.Reason, Message: s.Message, Devices: int(s.Devices), Well: int(s.Well), InUse: int(s.InUse), Steps: s.Steps,
		})
	}
	list, err := a.devices.List(ctx)
	for _, l := range list {
		n := inspect.NodeDevice{
			PodDevice: deviceOf(l.Device), Netdev: l.Device.Netdev, Representor: l.Device.Representor, Driver: l.Device.Driver, Holder: l.Holder, Trouble: l.Trouble,
		}
		if n.Pool, n.Resource = l.Pool, l.Resource; err != nil && n.Holder == "" {
			n.Holder = fmt.Sprintf("not known: %v", err)
		}
		out.Devices = append(out.Devices, n)
	}
	return out, nil
}

// removeDevices takes away what an agent has made of devices, but for what pods have of
// NICs: that comes back to the node with their end. NICs stay as they are.
func (c *Config) removeDevices() error {
	kernel, err := sriov.NewKernel()
	if err != nil {
		return err
	}
	defer kernel.Close()
	inventory := sriov.NewInventory(c.Sys, kernel.Devlink())
	ids, err := inventory.SoftDevices(intent.AttachmentGroup)
	errs := []error{err}
	for _, id := range ids {
		_, representor, err := sriov.SoftNames(id)
		if err == nil {
			err = kernel.RemoveSoft(representor)
		}
		errs = append(errs, err)
	}
	if c.CDIDir != "" {
		errs = append(errs, durable.Remove(filepath.Join(c.CDIDir, devices.CDIFile)))
	}
	return errors.Join(errs...)
}

// deviceRecords is the directory of the records of who has which device. It is one that a
// boot empties: nothing that a record tells of outlives the machine's run, and to have
// each on the disk before a device is changed costs an ADD and a DEL two syncs each.
func (c *Config) deviceRecords() string { return filepath.Join(filepath.Dir(c.Socket), "devices") }

func (d *devicing) close() {
	if d == nil {
		return
	}
	if d.Devices != nil {
		if err := d.Devices.Close(); err != nil {
			slog.Warn("connection to the kubelet not closed", "err", err)
		}
	}
	if d.machine != nil {
		d.machine.Close()
	}
	if d.kernel != nil {
		d.kernel.Close()
	}
}

// nodeDevices are those that are, or are to be, the node's management port.
func (a *agent) nodeDevices() devices.Node {
	if a.management == nil {
		return devices.Node{}
	}
	return a.management.devices()
}

// uses are what network devices are for that a NIC may be, or be below.
func (a *agent) uses() map[string]devices.Use {
	out := map[string]devices.Use{}
	for _, b := range a.machine.bridges() {
		if b.NIC != "" {
			out[b.NIC] = devices.Use{Why: "it is the NIC of PhysicalNetwork " + b.Network}
		}
	}
	if name := a.facts.gateway.NIC; name != "" {
		out[name] = devices.Use{Why: "it is the node's gateway NIC", Node: true}
	}
	return out
}

// software says why Open vSwitch hands no flows to NICs; nil: it does.
func (a *agent) software() error {
	ctx, cancel := context.WithTimeout(context.Background(), deviceTimeout)
	defer cancel()
	switch {
	case a.facts.datapath == intent.UserspaceDatapath:
		return errors.New("the node has the userspace datapath, whose packets are in no NIC; set datapath: system in the Cluster file where the kernel has it")
	case a.ovs.OtherConfig(ctx, "hw-offload") != "true":
		return errors.New("no flows are handed to NICs by Open vSwitch (its other_config:hw-offload is not true); set spec.offload.mode: hardware in the Cluster file for this node")
	}
	return nil
}

// tunnelAddresses are those of a network device that tunnels of this node can begin at:
// all tunnels of a cluster are of one family.
func (a *agent) tunnelAddresses(name string) ([]netip.Addr, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("looking for it: %w", err)
	}
	addrs, err := link.Addrs()
	if err != nil {
		return nil, fmt.Errorf("its addresses: %w", err)
	}
	family := a.facts.encapIPs()
	var out []netip.Addr
	for _, addr := range addrs {
		p, err := netip.ParsePrefix(addr.String())
		if err != nil || len(family) == 0 {
			continue
		}
		if ip := p.Addr().Unmap(); ip.IsGlobalUnicast() && ip.Is4() == family[0].Is4() {
			out = append(out, ip)
		}
	}
	return out, nil
}
