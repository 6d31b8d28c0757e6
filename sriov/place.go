package sriov

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place makes the changes, each of which restore undoes.
func (k *Keeper) place(ctx context.Context, r *Record, d Device, ns Namespace) (*Given, error) {
	if err := k.quiet(r); err != nil {
		return nil, err
	}
	notes, err := k.tell(ctx, r, d)
	if err != nil {
		return nil, err
	}
	if r.Netdev != nil {
		if err := k.carry(r, d, ns); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{d.PF.Netdev, d.Representor} {
		if d.Kind == Soft || d.Mode != Switchdev || name == "" {
			continue
		}
		if on, err := k.kernel.Offload(name); err != nil || !on {
			notes = append(notes, "hw-tc-offload of "+name+" is off: no flow of the device is in hardware")
		}
	}
	return k.given(r, d, notes)
}

// quiet makes the representor fit for the switch, and down until it is there.
func (k *Keeper) quiet(r *Record) error {
	if r.Port == nil {
		return nil
	}
	host, doing := k.kernel.Host(), "making representor "+r.Representor+" ready"
	l, err := k.kernel.Link(host, r.Representor)
	if err == nil && l.Up {
		err = k.kernel.SetUp(host, l.Index, false)
	}
	if err == nil {
		err = k.kernel.Mute(r.Representor)
	}
	if err == nil && r.Wanted.MTU != 0 && l.MTU != r.Wanted.MTU {
		err = k.kernel.SetMTU(host, l.Index, r.Wanted.MTU)
	}
	if err == nil && r.Wanted.Alias != "" && l.Alias != r.Wanted.Alias {
		err = k.kernel.SetAlias(host, l.Index, r.Wanted.Alias)
	}
	return k.failed(r.Device, doing, err)
}

// tell tells the PF what it has to know of the function.
func (k *Keeper) tell(ctx context.Context, r *Record, d Device) (notes []string, err error) {
	if r.Kind == SF && r.mac() != "" {
		// A driver may want that before the function is active. The function itself gets the
		// address, too, which is all that a switchdev NIC needs.
		if err := k.setFunction(r, d); err != nil {
			notes = append(notes, "the port of the function takes no MAC: "+err.Error())
		}
	}
	if r.VF == nil {
		return notes, nil
	}
	want, err := r.Wanted.Settings.over(*r.VF, r.mac())
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", r.Device, err)
	}
	for _, a := range attributes() {
		err := k.setVF(ctx, d, a, *r.VF, want)
		if a == AttributeMAC && errors.Is(err, unix.EOPNOTSUPP) && d.Mode == Switchdev {
			if err = k.setFunction(r, d); err != nil && r.Netdev != nil {
				notes, err = append(notes, "neither the PF nor the port of the function takes a MAC; the function itself has it: "+err.Error()), nil
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return notes, nil
}

// setFunction gives a function its MAC by its port, whose MAC is written down before.
func (k *Keeper) setFunction(r *Record, d Device) error {
	p, err := k.config.Inventory.port(d)
	if err != nil {
		return err
	}
	before, err := k.kernel.FunctionMAC(p)
	if err != nil {
		return k.failed(d.ID, "asking for the MAC of port "+p.String(), err)
	}
	mac, err := net.ParseMAC(r.mac())
	if err != nil || before == r.mac() {
		return err
	}
	r.Function = before
	if err := k.journal.write(r); err != nil {
		return err
	}
	return k.failed(d.ID, "setting the MAC of port "+p.String(), k.kernel.SetFunctionMAC(p, mac))
}

// busyTries is how often a PF is asked that is busy with another of its VFs.
const busyTries = 20

// setVF makes one attribute of a VF what it is to be, if it is not.
func (k *Keeper) setVF(ctx context.Context, d Device, a Attribute, now, want VFState) error {
	if now.part(a) == want.part(a) {
		return nil
	}
	again := time.NewTicker(homePause)
	defer again.Stop()
	for n := 0; ; n++ {
		err := k.kernel.SetVF(d.PF.Netdev, d.Index, a, want)
		if err == nil {
			return nil
		}
		if errors.Is(err, unix.EBUSY) && n < busyTries {
			select {
			case <-again.C:
				continue
			case <-ctx.Done():
			}
		}
		return &DeviceError{d.ID, fmt.Sprintf("%s of VF %d of PF %s", a, d.Index, d.PF.Netdev), "driver " + cmp.Or(d.PF.Driver, "(none)") + " refuses it: " + err.Error(),
			"take the setting out, or use a NIC whose driver has it", err}
	}
}

// carry moves the function to the sandbox, by way of a namespace where no other name is.
func (k *Keeper) carry(r *Record, d Device, ns Namespace) error {
	host := k.kernel.Host()
	l, err := k.kernel.Link(host, r.Netdev.Name)
	if err != nil {
		return k.failed(r.Device, "looking at "+r.Netdev.Name, err)
	}
	want := &End{Name: r.Owner.IfName, Alias: l.Alias, MAC: cmp.Or(r.mac(), l.MAC), MTU: cmp.Or(r.Wanted.MTU, l.MTU)}
	if err := k.through(host, l, want, ns); err != nil {
		return k.failed(r.Device, "moving "+r.Netdev.Name+" to the sandbox as "+r.Owner.IfName, err)
	}
	return k.carryRDMA(r, d, host, ns)
}

// through moves a device from one namespace to another by way of a third, where it is
// made what it is to be.
func (k *Keeper) through(from Namespace, l Link, want *End, to Namespace) error {
	if l.Up {
		if err := k.kernel.SetUp(from, l.Index, false); err != nil {
			return fmt.Errorf("taking it down: %w", err)
		}
	}
	temporary, err := k.kernel.Temporary()
	if err != nil {
		return fmt.Errorf("making a temporary namespace: %w", err)
	}
	defer temporary.Close()
	if err := k.kernel.Move(from, l.Index, temporary); err != nil {
		return fmt.Errorf("moving it to a temporary namespace: %w", err)
	}
	if l, err = k.kernel.Link(temporary, l.Name); err != nil {
		return fmt.Errorf("finding it in a temporary namespace: %w", err)
	}
	if l, err = k.adjust(temporary, l, want); err != nil {
		return err
	}
	return k.kernel.Move(temporary, l.Index, to)
}

// adjust makes a device that is down what it is to be, but up.
func (k *Keeper) adjust(ns Namespace, l Link, want *End) (Link, error) {
	for _, name := range l.AltNames {
		if !slices.Contains(want.AltNames, name) {
			if err := k.kernel.DelAltName(ns, l.Index, name); err != nil {
				return l, fmt.Errorf("removing the name %s: %w", name, err)
			}
		}
	}
	if l.Name != want.Name {
		if err := k.kernel.Rename(ns, l.Index, want.Name); err != nil {
			return l, fmt.Errorf("renaming %s to %s: %w", l.Name, want.Name, err)
		}
	}
	for _, name := range want.AltNames {
		if !slices.Contains(l.AltNames, name) {
			if err := k.kernel.AddAltName(ns, l.Index, name); err != nil {
				return l, fmt.Errorf("adding the name %s: %w", name, err)
			}
		}
	}
	if !strings.EqualFold(l.MAC, want.MAC) {
		mac, err := net.ParseMAC(want.MAC)
		if err != nil {
			return l, err
		}
		if err := k.setMAC(ns, l.Index, want.Name, mac); err != nil {
			return l, fmt.Errorf("setting its MAC to %s: %w", want.MAC, err)
		}
	}
	if l.MTU != want.MTU {
		if err := k.kernel.SetMTU(ns, l.Index, want.MTU); err != nil {
			return l, fmt.Errorf("setting its MTU to %d, which the PF's limits: %w", want.MTU, err)
		}
	}
	if l.Alias != want.Alias {
		if err := k.kernel.SetAlias(ns, l.Index, want.Alias); err != nil {
			return l, fmt.Errorf("setting its alias: %w", err)
		}
	}
	return l, nil
}

// setMAC gives a device that is down its MAC. Some drivers (igbvf) take none once the PF
// has set one, not even the same, and learn the PF's when they begin anew.
func (k *Keeper) setMAC(ns Namespace, index int, name string, mac net.HardwareAddr) error {
	err := k.kernel.SetMAC(ns, index, mac)
	if !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	if again := errors.Join(k.kernel.SetUp(ns, index, true), k.kernel.SetUp(ns, index, false)); again != nil {
		return errors.Join(err, again)
	}
	now, looked := k.kernel.Link(ns, name)
	if looked != nil || !strings.EqualFold(now.MAC, mac.String()) {
		return errors.Join(err, looked)
	}
	return nil
}

// carryRDMA moves the function's RDMA device after it, where those are in one namespace
// each.
func (k *Keeper) carryRDMA(r *Record, d Device, from, to Namespace) error {
	if len(d.RDMA) == 0 {
		return nil
	}
	exclusive, err := k.kernel.RDMAExclusive()
	if err != nil || !exclusive {
		return k.failed(r.Device, "asking for the mode of RDMA namespaces", err)
	}
	r.RDMA = d.RDMA[0]
	if err := k.journal.write(r); err != nil {
		return err
	}
	return k.failed(r.Device, "moving RDMA device "+r.RDMA+" to the sandbox", k.kernel.MoveRDMA(from, r.RDMA, to))
}

// inSandbox finds a device in its owner's namespace, which the caller closes; nil when
// it is not there, or the namespace is gone.
func (k *Keeper) inSandbox(r *Record) (Namespace, Link, error) {
	ns, err := k.kernel.Open(r.Owner.Netns)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, Link{}, nil
	}
	if err != nil {
		return nil, Link{}, fmt.Errorf("device %s: the sandbox's network namespace %s: %w", r.Device, r.Owner.Netns, err)
	}
	l, err := k.in(ns, r)
	if err != nil || l == nil {
		return nil, Link{}, errors.Join(err, ns.Close())
	}
	return ns, *l, nil
}

// in finds a device in a namespace whatever its name is there; nil when it is not.
func (k *Keeper) in(ns Namespace, r *Record) (*Link, error) {
	if r.Owner.NetnsID != "" && ns.ID() != r.Owner.NetnsID {
		return nil, nil
	}
	links, err := k.kernel.Links(ns)
	if err != nil {
		return nil, fmt.Errorf("device %s: listing the sandbox's devices: %w", r.Device, err)
	}
	peer, err := k.peer(r)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.Parent == r.Device || peer != nil && l.Peer == peer.Index && l.Index == peer.Peer {
			return &l, nil
		}
	}
	return nil, nil
}

// peer is the representor of a device that is known by nothing else; nil for others, and
// when it is gone.
func (k *Keeper) peer(r *Record) (*Link, error) {
	if r.Kind != Soft && !simulated.MatchString(r.Device) {
		return nil, nil
	}
	l, err := k.kernel.Link(k.kernel.Host(), r.Representor)
	if errors.Is(err, ErrNoLink) {
		return nil, nil
	}
	return &l, err
}
