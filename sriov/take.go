package sriov

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Take makes a device an owner's, all but its representor's place in the switch: the
// function is in the sandbox under its name, and down. The caller puts the representor
// into the switch, calls Raise, and Commit when all is well; or Release. What another
// owner had who is gone is restored first.
func (k *Keeper) Take(ctx context.Context, a Attachment) (*Given, error) {
	id, unlock, err := k.lock(ctx, a.Device)
	if err != nil {
		return nil, err
	}
	defer unlock()
	a.Device = id
	had, err := k.journal.read(a.Device)
	if err != nil {
		return nil, err
	}
	if had != nil {
		done, err := k.had(ctx, had, a)
		if done != nil || err != nil {
			return done, err
		}
	}
	d, err := k.ready(a)
	if err != nil {
		return nil, err
	}
	r, s, err := k.prepare(ctx, d, a)
	if err != nil {
		return nil, err
	}
	defer s.sandbox.Close()
	if err := k.journal.write(r); err != nil {
		return nil, err
	}
	out, err := k.place(ctx, r, d, s)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		return nil, errors.Join(err, k.restore(undo, r))
	}
	return out, nil
}

// had decides about a device that has a record: another's who lives is not given away;
// the asker's own, when it is whole, is done; all else is restored.
func (k *Keeper) had(ctx context.Context, had *Record, a Attachment) (*Given, error) {
	mine := had.Owner.is(a.Owner)
	if !mine && had.Boot == k.boot && k.Lives(had.Owner) {
		return nil, &BusyError{a.Device, had.Owner, a.Owner}
	}
	if mine && had.Phase == Attached && had.Boot == k.boot && sameWish(had.Wanted, a) && k.Lives(had.Owner) && k.check(had) == nil {
		d, err := k.config.Inventory.Resolve(a.Device)
		if err != nil {
			return nil, err
		}
		return k.given(had, d, nil)
	}
	if err := k.restore(ctx, had); err != nil {
		return nil, fmt.Errorf("device %s was left by %s and cannot be taken back: %w", a.Device, had.Owner, err)
	}
	return nil, nil
}

func sameWish(a, b Attachment) bool {
	a.Owner, b.Owner = Owner{}, Owner{}
	return reflect.DeepEqual(a, b)
}

// given is what an owner has.
func (k *Keeper) given(r *Record, d Device, notes []string) (*Given, error) {
	out := &Given{Device: d, MAC: r.mac(), MTU: r.Wanted.MTU, Notes: notes}
	out.Device.Representor = r.Representor
	if r.Netdev != nil {
		out.IfName, out.Device.Netdev = r.Owner.IfName, r.Netdev.Name
		if out.MAC == "" {
			out.MAC = r.Netdev.MAC
		}
		if out.MTU == 0 {
			out.MTU = r.Netdev.MTU
		}
	} else {
		out.Device.Netdev = ""
		if out.MAC == "" && r.VF != nil && r.VF.MAC != noMAC {
			out.MAC = r.VF.MAC
		}
		if out.MTU == 0 {
			out.MTU = d.PF.MTU
		}
	}
	return out, nil
}

// ready finds a device, and refuses one that cannot be what is asked for.
func (k *Keeper) ready(a Attachment) (Device, error) {
	d, err := k.config.Inventory.Resolve(a.Device)
	if err != nil {
		return d, err
	}
	if err := d.Fault(); err != nil {
		return d, err
	}
	wrong := func(field, found, do string) error { return &DeviceError{a.Device, field, found, do, nil} }
	switch {
	case !validName(a.Owner.IfName):
		return d, wrong("interface", fmt.Sprintf("%.32q is no name of a network device", a.Owner.IfName), "use up to 15 bytes without spaces, slashes and colons")
	case a.MAC != nil && !unicast(a.MAC):
		return d, wrong("mac", a.MAC.String()+" is not the address of one station", "use one such as 02:00:00:00:00:01")
	case len(d.VDPA) > 0:
		return d, wrong("vdpa", "it is used by "+strings.Join(d.VDPA, ", "), "remove them with vdpa dev del: vDPA devices cannot be given")
	case d.Mode == Switchdev && a.Settings.any():
		return d, wrong("settings", "its NIC is in switchdev mode, where VLANs, rates and guards are the switch's", "take the settings out, and give the network a VLAN; or use a NIC in legacy mode")
	case d.Kind != VF && a.Settings.any():
		return d, wrong("settings", "it is no VF", "take the settings out")
	case d.Mode == Legacy && d.Kind == SF:
		return d, wrong("e-switch", "its NIC is in legacy mode, where scalable functions reach nobody", "put the NIC into switchdev mode")
	case d.Kind == VF && d.PF.Netdev == "":
		return d, wrong("PF "+d.PF.ID, "its network device is not here", "look whether it has a driver, or was moved to another namespace")
	}
	if err := a.Settings.Check(); err != nil {
		return d, fmt.Errorf("device %s: %w", a.Device, err)
	}
	return d, nil
}

func validName(s string) bool {
	return s != "" && len(s) < unix.IFNAMSIZ && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}

// sight is what a record was made of: the sandbox's namespace, which is open, and the
// device's two ends as they are; zero where there is none.
type sight struct {
	sandbox        Namespace
	function, port Link
}

// prepare looks at all that is going to be changed, and returns the record of it.
func (k *Keeper) prepare(ctx context.Context, d Device, a Attachment) (*Record, sight, error) {
	ns, err := k.kernel.Open(a.Owner.Netns)
	if err != nil {
		return nil, sight{}, fmt.Errorf("the sandbox's network namespace %s: %w", a.Owner.Netns, err)
	}
	s := sight{sandbox: ns}
	r := &Record{Version: recordVersion, Boot: k.boot, Phase: Attaching, Device: d.ID, Kind: d.Kind, Owner: a.Owner, Wanted: a,
		Userspace: d.Userspace(), Representor: d.Representor}
	r.Owner.NetnsID = ns.ID()
	if err := k.lookAt(ctx, r, &d, &s); err != nil {
		return nil, s, errors.Join(err, ns.Close())
	}
	return r, s, nil
}

func (k *Keeper) lookAt(ctx context.Context, r *Record, d *Device, s *sight) error {
	var err error
	if !r.Userspace {
		if _, err := k.kernel.Link(s.sandbox, r.Owner.IfName); err == nil {
			return &DeviceError{d.ID, "interface " + r.Owner.IfName, "the sandbox has one of that name already", "give the attachment another name", unix.EEXIST}
		}
		if s.function, err = k.atHome(ctx, r, *d); err != nil {
			return err
		}
		r.Netdev = endOf(s.function)
	}
	if d.Representor != "" {
		if s.port, err = k.kernel.Link(k.kernel.Host(), d.Representor); err != nil {
			return k.failed(d.ID, "looking at representor "+d.Representor, err)
		}
		r.Port = endOf(s.port)
	}
	if d.Kind == VF {
		vfs, err := k.kernel.VFs(d.PF.Netdev)
		if err != nil {
			return k.failed(d.ID, "asking PF "+d.PF.Netdev+" for its VFs", err)
		}
		vf, ok := vfs[d.Index]
		if !ok {
			return &DeviceError{d.ID, "PF " + d.PF.Netdev, fmt.Sprintf("it has no VF %d", d.Index), "look at ip link show " + d.PF.Netdev, nil}
		}
		r.VF = &vf
		return k.unique(r, d, vfs)
	}
	return nil
}

// unique refuses a MAC that another VF of the PF has: one of the two would get nothing.
func (k *Keeper) unique(r *Record, d *Device, vfs map[int]VFState) error {
	mac := r.mac()
	for n, v := range vfs {
		if n != d.Index && mac != "" && strings.EqualFold(v.MAC, mac) {
			return &DeviceError{d.ID, fmt.Sprintf("VF %d of PF %s", n, d.PF.Netdev), "it has the MAC " + mac + " already",
				"look whose VF that is; if it is nobody's, ip link set " + d.PF.Netdev + fmt.Sprintf(" vf %d mac %s", n, noMAC), nil}
		}
	}
	return nil
}

// atHome waits until a device's network device is the node's: it may be on its way back
// from a namespace that has just ended. d is the device as it was looked up.
func (k *Keeper) atHome(ctx context.Context, r *Record, d Device) (Link, error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.Patience)
	defer cancel()
	again := time.NewTicker(homePause)
	defer again.Stop()
	l, err := k.netdev(d)
	for errors.Is(err, ErrNoLink) {
		select {
		case <-again.C:
			l, _, err = k.home(r)
		case <-ctx.Done():
			return Link{}, &DeviceError{r.Device, "network device", "it is not in the node's namespace, and no record says whose it is",
				"look for it with ip netns exec; a sandbox that still runs without a record has to be removed", ErrNoLink}
		}
	}
	return l, err
}

// homePause is how often a network device that is on its way is looked for.
const homePause = 10 * time.Millisecond

// home finds a device's network device in the node's namespace; ErrNoLink when it is not
// there.
func (k *Keeper) home(r *Record) (Link, Device, error) {
	d, err := k.config.Inventory.Resolve(r.Device)
	if err != nil {
		return Link{}, d, err
	}
	l, err := k.netdev(d)
	return l, d, err
}

func (k *Keeper) netdev(d Device) (Link, error) {
	if d.Netdev == "" {
		return Link{}, fmt.Errorf("device %s: %w", d.ID, ErrNoLink)
	}
	return k.kernel.Link(k.kernel.Host(), d.Netdev)
}
