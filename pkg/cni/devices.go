package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/sriov"
)

// Switch is what a sriov.Keeper has to know of OVS. The ports of a pod are written in one
// transaction, so by the agent and not by the keeper; but a keeper that takes a device
// back takes its port away.
type Switch struct{ Ports Ports }

// Plug implements sriov.Switch: what has no port is found by Recover and Compare.
func (s Switch) Plug(context.Context, string, sriov.Plugged) error { return nil }

// Unplug implements sriov.Switch.
func (s Switch) Unplug(ctx context.Context, representor string, o sriov.Owner) (settled func(context.Context), err error) {
	return s.Ports.Withdraw(ctx, representor, o.Sandbox)
}

// WaitInstalled implements sriov.Switch.
func (s Switch) WaitInstalled(ctx context.Context, representor string) error {
	return s.Ports.WaitInstalled(ctx, representor)
}

// function is the device that an interface has, or is to have.
type function struct {
	Choice
	found sriov.Device // as it was when it was chosen, or taken up; zero: not known
}

// netdev reports whether the sandbox has a network device of it.
func (f function) netdev() bool { return f.Device == "" || !f.found.Userspace() }

// pci is the function's address; "" of what is no PCI function.
func (f function) pci() string {
	if f.Device == "" || f.found.Bus != "pci" {
		return ""
	}
	return f.Device
}

// needsDevice reports whether a network's interfaces are not simply veth pairs.
func (n Network) needsDevice() bool {
	return n.Resource != "" || n.Device != "" || n.Offload == multus.OffloadRequire
}

// needed says what needsDevice means, for people.
func (n Network) needed() string {
	switch {
	case n.Resource != "":
		return "a device of " + n.Resource
	case n.Device != "":
		return "device " + n.Device
	}
	return "a device, as its offload is require"
}

// chooseAll chooses the devices of interfaces of ours that are to be made. Nothing has been
// changed yet.
func (a *Agent) chooseAll(ctx context.Context, t *trace, e *entry, r *Request, list []*iface) error {
	for _, i := range list {
		i.function, i.wish.Encap = function{}, netip.Addr{}
	}
	for _, i := range list {
		named := i.network.Device
		if !r.native() {
			named = cmp.Or(r.Config.device(), named)
		}
		if named == "" && !i.network.needsDevice() {
			continue
		}
		if err := t.enter(ctx, StageChooseDevice); err != nil {
			return err
		}
		if err := a.choose(ctx, e, i, named); err != nil {
			return i.wrap(err)
		}
	}
	return nil
}

// choose chooses an interface's device, and looks whether it can be a port.
func (a *Agent) choose(ctx context.Context, e *entry, i *iface, named string) error {
	c, err := a.choice(ctx, e, i, named)
	if err != nil {
		return err
	}
	if c.Device != "" && a.config.Keeper == nil {
		return fmt.Errorf("it is to have device %s, and this node gives no devices", c.Device)
	}
	if c.Device != "" {
		if err = a.config.Keeper.Reclaim(ctx, c.Device); err == nil {
			i.function.found, err = a.config.Keeper.Resolve(c.Device)
		}
		if err == nil {
			err = portable(i.function.found, i.network)
		}
		if err != nil {
			i.function = function{}
			return err
		}
		c.Device = i.function.found.ID
	}
	i.function.Choice, i.wish.Encap = c, c.Encap
	a.fell(i, c.Fallback)
	return nil
}

func (a *Agent) choice(ctx context.Context, e *entry, i *iface, named string) (Choice, error) {
	if a.config.Devices != nil {
		w := DeviceWish{Wish: i.wish, Resource: i.network.Resource, Offload: cmp.Or(i.network.Offload, multus.OffloadPrefer), Named: named, Has: map[string]string{}}
		for _, other := range e.ifaces {
			if other != i && other.function.Device != "" {
				w.Has[other.wish.Key] = other.function.Device
			}
		}
		return a.config.Devices.Choose(ctx, w)
	}
	if named == "" && i.network.Offload == multus.OffloadRequire {
		return Choice{}, errors.New("its definition says offload require, and this node gives no devices: set offload to prefer")
	}
	return Choice{Device: named, Resource: i.network.Resource}, nil
}

// portable refuses a device that cannot be a port of a network of ours.
func portable(d sriov.Device, n Network) error {
	if err := d.Fault(); err != nil {
		return err
	}
	if d.Representor != "" {
		return nil
	}
	do := "put the NIC into switchdev mode (mode switchdev in its DevicePool)"
	return fmt.Errorf("device %s is of NIC %s in legacy mode, where a function has no port that network %s could have: %s; or attach it to the physical network itself by a definition of type sriov, with its vlan", d.ID, d.PF.ID, n.Name, do)
}

// deviceOwner is by whom the keeper knows an interface.
func (i *iface) deviceOwner() sriov.Owner {
	return sriov.Owner{Sandbox: i.port.Sandbox, Pod: i.wish.Pod.String(), UID: i.wish.Pod.UID, NAD: i.wish.Key, IfName: i.port.IfName, Netns: i.port.Netns}
}

// takeAll makes the functions of interfaces that have devices the sandbox's.
func (a *Agent) takeAll(ctx context.Context, t *trace, list []*iface) error {
	for _, i := range list {
		if i.port.Device == "" {
			continue
		}
		t.port = i.port.Name
		if err := t.enter(ctx, StageTakeDevice); err != nil {
			return err
		}
		w := sriov.Attachment{Device: i.port.Device, Owner: i.deviceOwner(), MAC: i.grant.MAC, MTU: i.network.MTU, Alias: i.device().Alias}
		if i.port.Encap.IsValid() {
			w.Encap = i.port.Encap.String()
		}
		given, err := a.onceFree(ctx, a.config.Keeper.Take, w)
		if err != nil {
			return i.wrap(err)
		}
		if given.Device.Representor != i.port.Name {
			return i.wrap(fmt.Errorf("the representor of device %s was %s and is %s now: try again", i.port.Device, i.port.Name, given.Device.Representor))
		}
		i.port.Netdev, i.function.found = given.Device.Netdev, given.Device
		for _, note := range given.Notes {
			a.log.Info("device", "pod", i.wish.Pod.String(), "device", i.port.Device, "note", note)
		}
		a.claim(i.port.Name, i.wish.Pod.UID)
	}
	return nil
}

// busyPause is how often a device is looked at whose last pod is on its way.
const busyPause = 50 * time.Millisecond

// onceFree gives a device, also one that another pod still has: the kubelet gives a device
// again when the containers of that pod have ended, which is before its DEL.
func (a *Agent) onceFree(ctx context.Context, give func(context.Context, sriov.Attachment) (*sriov.Given, error), w sriov.Attachment) (*sriov.Given, error) {
	end := time.NewTimer(a.config.Patience)
	defer end.Stop()
	again := time.NewTicker(busyPause)
	defer again.Stop()
	for {
		given, err := give(ctx, w)
		if busy, is := errors.AsType[*sriov.BusyError](err); !is || busy.Owner.Pod == w.Owner.Pod {
			return given, err
		}
		select {
		case <-again.C:
		case <-end.C:
			return nil, err
		case <-ctx.Done():
			return nil, err
		}
	}
}

// claim makes a representor's name a pod's. Whoever had it has lost the device.
func (a *Agent) claim(name, uid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.devices[name] = uid
}

// eachDevice calls what is done to an owner's device for interfaces that have one.
func eachDevice(ctx context.Context, list []*iface, do func(ctx context.Context, id string, o sriov.Owner) error) error {
	for _, i := range list {
		if i.port.Device == "" {
			continue
		}
		if err := do(ctx, i.port.Device, i.deviceOwner()); err != nil {
			return i.wrap(err)
		}
	}
	return nil
}

// raiseAll brings representors up that are ports.
func (a *Agent) raiseAll(ctx context.Context, t *trace, list []*iface) error {
	if !withDevice(list) {
		return nil
	}
	if err := t.enter(ctx, StageRaiseDevice); err != nil {
		return err
	}
	return eachDevice(ctx, list, a.config.Keeper.Raise)
}

// commitAll notes that devices are wholly their owners'. vswitchd, which writes a device's
// flags when it opens it, may have taken a representor down meanwhile.
func (a *Agent) commitAll(ctx context.Context, t *trace, list []*iface) error {
	if !withDevice(list) {
		return nil
	}
	if err := t.enter(ctx, StageCommitDevice); err != nil {
		return err
	}
	return eachDevice(ctx, list, a.config.Keeper.Commit)
}

func withDevice(list []*iface) bool {
	for _, i := range list {
		if i.port.Device != "" {
			return true
		}
	}
	return false
}

// giveBack takes a device and its port away from a sandbox; what is another's by now stays.
func (a *Agent) giveBack(ctx context.Context, p Port, o sriov.Owner) error {
	if a.config.Keeper == nil {
		return fmt.Errorf("device %s cannot be taken back: this node gives no devices", p.Device)
	}
	if err := a.config.Keeper.Release(ctx, p.Device, o); err != nil {
		return err
	}
	// A record that was lost with the directory leaves a port.
	return a.config.Ports.Remove(ctx, p.Name, p.Sandbox)
}

// ownerOfPort is by whom the keeper knows a recorded port.
func ownerOfPort(p Port) sriov.Owner {
	return sriov.Owner{Sandbox: p.Sandbox, Pod: p.Pod.String(), UID: p.Pod.UID, NAD: p.Key, IfName: p.IfName, Netns: p.Netns}
}

// fell tells why an interface has no device of hardware, though that is preferred.
func (a *Agent) fell(i *iface, reason string) {
	if a.config.Fell != nil {
		a.config.Fell(i.wish.Pod, i.wish.Key, reason)
	}
}

// unfell takes back what was told of an interface that goes.
func (a *Agent) unfell(i *iface) {
	if i.function.Fallback != "" {
		a.fell(i, "")
	}
}
