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
func (k *Keeper) place(ctx context.Context, r *Record, d Device, s sight) (*Given, error) {
	if err := k.quiet(r, s.port); err != nil {
		return nil, err
	}
	notes, err := k.tell(ctx, r, d)
	if err != nil {
		return nil, err
	}
	if r.Netdev != nil {
		if err := k.carry(r, d, s.function, s.sandbox); err != nil {
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
func (k *Keeper) quiet(r *Record, l Link) error {
	if r.Port == nil {
		return nil
	}
	host, doing := k.kernel.Host(), "making representor "+r.Representor+" ready"
	var err error
	if l.Up {
		err = k.kernel.SetUp(host, l.Index, false)
	}
	if err == nil {
		err = k.kernel.Mute(r.Representor)
	}
	c := Change{}
	if l.MTU != r.Wanted.MTU {
		c.MTU = r.Wanted.MTU
	}
	if r.Wanted.Alias != "" && l.Alias != r.Wanted.Alias {
		c.Alias = &r.Wanted.Alias
	}
	if err == nil && !c.empty() {
		err = k.kernel.Set(host, l.Index, c)
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

// carry moves the function to the sandbox, where it gets all that it is to have in the
// same message, so out of udev's sight. Its other names stay behind.
func (k *Keeper) carry(r *Record, d Device, l Link, ns Namespace) error {
	want := &End{Name: r.Owner.IfName, Alias: l.Alias, MAC: cmp.Or(r.mac(), l.MAC), MTU: cmp.Or(r.Wanted.MTU, l.MTU)}
	if err := k.deliver(r, l, want, ns); err != nil {
		return k.failed(r.Device, "moving "+r.Netdev.Name+" to the sandbox as "+r.Owner.IfName, err)
	}
	return k.carryRDMA(r, d, k.kernel.Host(), ns)
}

func (k *Keeper) deliver(r *Record, l Link, want *End, ns Namespace) error {
	host := k.kernel.Host()
	c, err := l.toward(want)
	if err != nil {
		return err
	}
	if err = k.kernel.Move(host, l.Index, ns, c); err == nil && len(l.AltNames) == 0 {
		return nil
	}
	at, looked := k.in(ns, r)
	switch {
	case looked != nil:
		return errors.Join(err, looked)
	case at != nil: // what was refused is tried by itself, and told
		_, err = k.adjust(ns, *at, want)
		return err
	case err == nil:
		return errors.New("it was moved, and is not there: somebody has taken it away")
	case errors.Is(err, unix.EEXIST): // the sandbox has one of its other names
		return k.through(host, l, want, ns)
	}
	return err
}

// through moves a device from one namespace to another by way of a third, where no other
// name is, and where it is made what it is to be. Each move waits for the kernel's memory
// barrier, 15 to 20 ms, under its one lock of all network configuration.
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
	if err := k.kernel.Move(from, l.Index, temporary, Change{}); err != nil {
		return fmt.Errorf("moving it to a temporary namespace: %w", err)
	}
	if l, err = k.kernel.Link(temporary, l.Name); err != nil {
		return fmt.Errorf("finding it in a temporary namespace: %w", err)
	}
	if l, err = k.adjust(temporary, l, want); err != nil {
		return err
	}
	return k.kernel.Move(temporary, l.Index, to, Change{})
}

// toward is what of a device is not as it is to be.
func (l Link) toward(want *End) (c Change, err error) {
	if l.Name != want.Name {
		c.Name = want.Name
	}
	if !strings.EqualFold(l.MAC, want.MAC) {
		c.MAC, err = net.ParseMAC(want.MAC)
	}
	if l.MTU != want.MTU {
		c.MTU = want.MTU
	}
	if l.Alias != want.Alias {
		c.Alias = &want.Alias
	}
	return c, err
}

func (c Change) empty() bool { return c.Name == "" && c.MAC == nil && c.MTU == 0 && c.Alias == nil }

// adjust makes a device that is down what it is to be, but up.
func (k *Keeper) adjust(ns Namespace, l Link, want *End) (Link, error) {
	for _, name := range l.AltNames {
		if !slices.Contains(want.AltNames, name) {
			if err := k.kernel.DelAltName(ns, l.Index, name); err != nil {
				return l, fmt.Errorf("removing the name %s: %w", name, err)
			}
		}
	}
	c, err := l.toward(want)
	if err != nil {
		return l, err
	}
	if !c.empty() && k.kernel.Set(ns, l.Index, c) != nil {
		if err := k.each(ns, l, c); err != nil {
			return l, err
		}
	}
	for _, name := range want.AltNames {
		if !slices.Contains(l.AltNames, name) {
			if err := k.kernel.AddAltName(ns, l.Index, name); err != nil {
				return l, fmt.Errorf("adding the name %s: %w", name, err)
			}
		}
	}
	return l, nil
}

// each makes a change again that was refused, one by one, to say what of it is, and to
// help drivers that have to be helped.
func (k *Keeper) each(ns Namespace, l Link, c Change) error {
	if c.Name != "" {
		if err := k.kernel.Set(ns, l.Index, Change{Name: c.Name}); err != nil {
			return fmt.Errorf("renaming %s to %s: %w", l.Name, c.Name, err)
		}
		l.Name = c.Name
	}
	if c.MAC != nil {
		if err := k.setMAC(ns, l.Index, l.Name, c.MAC); err != nil {
			return fmt.Errorf("setting its MAC to %s: %w", c.MAC, err)
		}
	}
	if c.MTU != 0 {
		if err := k.kernel.Set(ns, l.Index, Change{MTU: c.MTU}); err != nil {
			return fmt.Errorf("setting its MTU to %d, which the PF's limits: %w", c.MTU, err)
		}
	}
	if c.Alias != nil {
		if err := k.kernel.Set(ns, l.Index, Change{Alias: c.Alias}); err != nil {
			return fmt.Errorf("setting its alias: %w", err)
		}
	}
	return nil
}

// setMAC gives a device that is down its MAC. Some drivers (igbvf) take none once the PF
// has set one, not even the same, and learn the PF's when they begin anew.
func (k *Keeper) setMAC(ns Namespace, index int, name string, mac net.HardwareAddr) error {
	err := k.kernel.Set(ns, index, Change{MAC: mac})
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
