package cni

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/portolan-cni/portolan/sriov"
)

// repairDevices makes each device wholly a sandbox's or wholly the node's, after an
// earlier process. A device that cannot be taken back keeps its record, and holds up no
// other: it is tried again by Compare.
func (a *Agent) repairDevices(ctx context.Context) {
	if a.config.Keeper == nil {
		return
	}
	done, err := a.config.Keeper.Repair(ctx)
	for _, r := range done {
		a.repaired(repairOf(r))
	}
	if err != nil {
		a.log.Error("devices of an earlier run are not the node's yet", "err", err)
	}
}

func repairOf(r sriov.Repaired) Repair {
	p := Pod{UID: r.Owner.UID}
	p.Namespace, p.Name, _ = strings.Cut(r.Owner.Pod, "/")
	return Repair{RepairedFunction, p, fmt.Sprintf("device %s: %s", r.Device, r.Message)}
}

// records lists the devices that sandboxes have.
func (a *Agent) records() []sriov.Record {
	if a.config.Keeper == nil {
		return nil
	}
	list, err := a.config.Keeper.Records()
	if err != nil {
		a.log.Error("a record of a device cannot be read", "err", err) // which says nothing of the others
	}
	return list
}

// there tells, by its name, which ports have what they are of: the node's end of a pair, or
// a device that is the sandbox's.
func (a *Agent) there(pairs []string, ports []Port) map[string]bool {
	out := setOf(pairs)
	has := map[string]sriov.Record{}
	for _, r := range a.records() {
		has[r.Device] = r
	}
	for _, p := range ports {
		if r, ok := has[p.Device]; p.Device != "" {
			out[p.Name] = ok && r.Phase == sriov.Attached && r.Representor == p.Name && r.Owner.Sandbox == p.Sandbox && r.Owner.IfName == p.IfName &&
				a.config.Keeper.Lives(r.Owner)
		}
	}
	return out
}

// ports are those of a pod's interfaces.
func (e *entry) ports() []Port {
	var out []Port
	for _, i := range e.ifaces {
		if i.port.Name != "" {
			out = append(out, i.port)
		}
	}
	return out
}

// adoptDevice takes up the device of a recorded port.
func (a *Agent) adoptDevice(i *iface) {
	i.function = function{Choice: Choice{Device: i.port.Device, Encap: i.port.Encap, Fallback: i.port.Fallback}}
	if i.port.Fallback != "" {
		a.fell(i, i.port.Fallback)
	}
	if i.port.Device == "" || a.config.Keeper == nil {
		return
	}
	d, err := a.config.Keeper.Resolve(i.port.Device)
	if err != nil {
		a.log.Warn("the device of a port cannot be found", "pod", i.wish.Pod.String(), "port", i.port.Name, "err", err)
	}
	i.function.found = d
	if d.Representor == "" { // the NIC is in another mode meanwhile
		i.function.found.Representor = i.port.Name
	}
}

// remove takes away a recorded port with its pair or device. What a record describes goes
// before it.
func (a *Agent) remove(ctx context.Context, p Port) error {
	if p.Device != "" {
		return a.giveBack(ctx, p, ownerOfPort(p))
	}
	if err := a.config.Links.Delete(p.Name); err != nil {
		return err
	}
	return a.config.Ports.Remove(ctx, p.Name, "")
}

// releaseStrangers takes back devices that no interface has that is known. It leaves pods
// alone that a call works on.
func (a *Agent) releaseStrangers(ctx context.Context) error {
	var errs []error
	for _, r := range a.records() {
		if a.hasDevice(r) {
			continue
		}
		turn, cancel := context.WithTimeout(ctx, turnPatience)
		unlock, err := a.pods.lock(turn, r.Owner.UID)
		cancel()
		if err != nil {
			continue
		}
		errs = append(errs, a.releaseStranger(ctx, r))
		unlock()
	}
	return errors.Join(append(errs, a.collectFunctions(ctx))...)
}

func (a *Agent) releaseStranger(ctx context.Context, r sriov.Record) error {
	if a.hasDevice(r) { // by now
		return nil
	}
	if err := a.config.Keeper.Release(ctx, r.Device, r.Owner); err != nil {
		return fmt.Errorf("device %s of nobody: %w", r.Device, err)
	}
	a.repaired(repairOf(sriov.Repaired{Device: r.Device, Owner: r.Owner, Message: "it belonged to no interface that is known, and is the node's again"}))
	return nil
}

// hasDevice reports whether somebody who is known has a device.
func (a *Agent) hasDevice(r sriov.Record) bool {
	if r.Representor == "" {
		return a.config.Keeper.Lives(r.Owner) // on the physical network: it has no port
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.devices[r.Representor] == r.Owner.UID && a.owners[r.Owner.Sandbox] == r.Owner.UID
}

// mendDevice makes whole what a sandbox has of a device that is there; it is not there any
// more when it has left the sandbox, as by a reset of its NIC.
func (a *Agent) mendDevice(ctx context.Context, i *iface, there bool) (still bool, err error) {
	if !there {
		return false, nil
	}
	done, err := a.config.Keeper.Mend(ctx, i.port.Device, i.deviceOwner())
	if err != nil || done == nil {
		return true, err
	}
	a.repaired(repairOf(*done))
	return a.there(nil, []Port{i.port})[i.port.Name], nil
}

// findAgain looks at the device of an interface that is to be made again.
func (a *Agent) findAgain(i *iface) error {
	if i.function.Device == "" {
		return nil
	}
	d, err := a.config.Keeper.Resolve(i.function.Device)
	if err == nil {
		err = portable(d, i.network)
	}
	i.function.found = d
	return i.wrap(err)
}
