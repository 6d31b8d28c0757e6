package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// restore makes a device what it was before it was given, by its record, and drops the
// record when it is. It may be repeated: each step looks first at what there is. No
// error keeps the steps after it from being tried. The caller has the device's lock.
//
//	representor down → out of the switch → PF's settings → RDMA device → network device → representor as it was
//
// The switch lets go of the representor meanwhile, which is down. Some drivers refuse a PF's
// settings once the function is back; a representor that is up and in no switch would hand
// the function's packets to the node.
func (k *Keeper) restore(ctx context.Context, r *Record) error {
	if r.Boot != k.boot {
		return k.forget(ctx, r)
	}
	if r.Phase != Detaching {
		r.Phase = Detaching
		if err := k.journal.write(r); err != nil {
			return err
		}
	}
	d, err := k.config.Inventory.Resolve(r.Device)
	there := err == nil
	if err != nil && !IsNotFound(err) {
		return err
	}
	settled, err := k.unplug(ctx, r)
	errs := []error{err}
	if there {
		errs = append(errs, k.tellBack(ctx, r, d))
	}
	errs = append(errs, k.fetchRDMA(r), k.fetch(ctx, r, settled))
	settled(ctx)
	errs = append(errs, k.restorePort(r))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return k.journal.remove(r.Device)
}

// forget drops a record of another boot: no namespace, no function and no setting of then
// is there now. Its port may be, in a database that is on the disk.
func (k *Keeper) forget(ctx context.Context, r *Record) error {
	if r.Representor != "" && k.config.Switch != nil {
		if _, err := k.config.Switch.Unplug(ctx, r.Representor, r.Owner); err != nil {
			return err
		}
	}
	return k.journal.remove(r.Device)
}

// unplug takes the representor down and then out of the switch, which has let go of it
// when settled returns.
func (k *Keeper) unplug(ctx context.Context, r *Record) (settled func(context.Context), err error) {
	settled = func(context.Context) {}
	if r.Representor == "" {
		return settled, nil
	}
	host := k.kernel.Host()
	l, err := k.kernel.Link(host, r.Representor)
	if err == nil && l.Up {
		err = k.kernel.SetUp(host, l.Index, false)
	}
	if errors.Is(err, ErrNoLink) || errors.Is(err, unix.ENODEV) {
		err = nil
	}
	err = k.failed(r.Device, "taking representor "+r.Representor+" down", err)
	if k.config.Switch != nil {
		later, wrong := k.config.Switch.Unplug(ctx, r.Representor, r.Owner)
		if err = errors.Join(err, wrong); later != nil {
			settled = later
			k.letGo(ctx, r.Representor, l)
		}
	}
	return settled, err
}

// How long a switch has the kernel's lock to itself, and how often it is asked after.
const (
	flagsPatience = 10 * time.Millisecond
	flagsPause    = 500 * time.Microsecond
)

// letGo waits a moment for a switch that reads a representor's packets itself to take its
// flag off it. It then waits for RCU, without the kernel's lock of all network
// configuration, which the function's move is about to hold as long: both wait at once.
func (k *Keeper) letGo(ctx context.Context, representor string, l Link) {
	ctx, cancel := context.WithTimeout(ctx, flagsPatience)
	defer cancel()
	again := time.NewTicker(flagsPause)
	defer again.Stop()
	for err := error(nil); err == nil && l.Promisc; {
		select {
		case <-again.C:
			l, err = k.kernel.Link(k.kernel.Host(), representor)
		case <-ctx.Done():
			return
		}
	}
}

// tellBack tells the PF again what it knew of the function.
func (k *Keeper) tellBack(ctx context.Context, r *Record, d Device) error {
	var errs []error
	if r.Function != "" {
		p, err := k.config.Inventory.port(d)
		if err == nil {
			var mac net.HardwareAddr
			if mac, err = net.ParseMAC(r.Function); err == nil {
				err = k.kernel.SetFunctionMAC(p, mac)
			}
		}
		errs = append(errs, k.failed(r.Device, "setting the MAC of its port back to "+r.Function, err))
	}
	if r.VF == nil {
		return errors.Join(errs...)
	}
	if d.PF.Netdev == "" {
		return errors.Join(append(errs, &DeviceError{r.Device, "PF " + d.PF.ID, "its network device is not here, and knows settings of VF " + fmt.Sprint(d.Index),
			"move it back to the node's namespace, or bind its driver", nil})...)
	}
	vfs, err := k.kernel.VFs(d.PF.Netdev)
	if err != nil {
		return errors.Join(append(errs, k.failed(r.Device, "asking PF "+d.PF.Netdev+" for its VFs", err))...)
	}
	now, ok := vfs[d.Index]
	if !ok {
		return errors.Join(errs...) // it has been removed meanwhile
	}
	for _, a := range attributes() {
		err := k.setVF(ctx, d, a, now, *r.VF)
		if a == AttributeMAC && errors.Is(err, unix.EINVAL) && r.VF.MAC == noMAC && r.Netdev != nil {
			// A driver that lets no MAC be taken back: that which the function had by itself.
			own := *r.VF
			own.MAC = r.Netdev.MAC
			err = k.setVF(ctx, d, a, now, own)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// fetchRDMA moves an RDMA device back. When its namespace ends, the kernel does.
func (k *Keeper) fetchRDMA(r *Record) error {
	if r.RDMA == "" {
		return nil
	}
	ns, err := k.kernel.Open(r.Owner.Netns)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return k.failed(r.Device, "opening "+r.Owner.Netns+" for its RDMA device", err)
	}
	defer ns.Close()
	if ns.ID() != r.Owner.NetnsID {
		return nil
	}
	names, err := k.kernel.RDMADevices(ns)
	if err == nil && slices.Contains(names, r.RDMA) {
		err = k.kernel.MoveRDMA(ns, r.RDMA, k.kernel.Host())
	}
	return k.failed(r.Device, "moving RDMA device "+r.RDMA+" back", err)
}

// fetch brings the network device back from wherever it is, as it was. A pair that is made
// again has a representor of the same name, so the switch must have let go of the last.
func (k *Keeper) fetch(ctx context.Context, r *Record, settled func(context.Context)) error {
	if r.Netdev == nil {
		return nil
	}
	ns, l, err := k.inSandbox(r)
	if err != nil {
		return err
	}
	if ns != nil {
		defer ns.Close()
		if err := k.back(r, ns, l); err != nil {
			return err
		}
	}
	l, gone, err := k.returned(ctx, r, settled)
	if err != nil || gone {
		return err
	}
	return k.settle(r, l, r.Netdev)
}

// back moves a device from the sandbox to the node. It is made what it was before it
// comes, out of udev's sight.
func (k *Keeper) back(r *Record, ns Namespace, l Link) error {
	if l.Up {
		if err := k.kernel.SetUp(ns, l.Index, false); err != nil {
			return k.failed(r.Device, "taking "+l.Name+" down in the sandbox", err)
		}
		l.Up = false
	}
	now, err := k.adjust(ns, l, r.Netdev)
	if err == nil {
		err = k.kernel.Move(ns, now.Index, k.kernel.Host(), Change{})
	}
	if err == nil {
		return nil
	}
	at, looked := k.in(ns, r)
	if looked != nil {
		return errors.Join(err, looked)
	}
	if at == nil {
		return nil // it has moved all the same, or has gone
	}
	return k.backThrough(r, ns, *at)
}

// backThrough moves a device back that the sandbox, or the node, has a name of. One that
// another device of the node has would keep it from there: it comes under a name of its
// own, and settle says what is in its way.
func (k *Keeper) backThrough(r *Record, ns Namespace, l Link) error {
	host, want := k.kernel.Host(), *r.Netdev
	taken := false
	for _, name := range append([]string{want.Name}, want.AltNames...) {
		_, err := k.kernel.Link(host, name)
		taken = taken || err == nil
	}
	if taken {
		want.Name, want.AltNames = fmt.Sprintf("ptl%d", l.Index), nil
	}
	if err := k.through(ns, l, &want, host); err != nil {
		return k.failed(r.Device, "moving "+r.Owner.IfName+" back from the sandbox", err)
	}
	return nil
}

// returned waits until the device is the node's; gone when there is none any more.
func (k *Keeper) returned(ctx context.Context, r *Record, settled func(context.Context)) (l Link, gone bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, k.config.Patience)
	defer cancel()
	again := time.NewTicker(homePause)
	defer again.Stop()
	for {
		l, d, err := k.home(r)
		switch {
		case err == nil:
			return l, false, nil
		case r.Kind == Soft && (IsNotFound(err) || errors.Is(err, ErrNoLink)):
			// A veth pair ends with the namespace that one end is in.
			settled(ctx)
			if made, err := k.remake(r); made || err != nil {
				if err != nil {
					return Link{}, false, err
				}
				continue
			}
		case IsNotFound(err):
			return Link{}, true, nil // its VFs were removed, or the NIC
		case !errors.Is(err, ErrNoLink):
			return Link{}, false, err
		case d.Driver == "" || d.Userspace():
			return Link{}, true, nil // it was unbound, and what comes next is new
		case d.Bus == "netdevsim":
			return Link{}, true, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return Link{}, false, &DeviceError{r.Device, "network device", "it is neither in the sandbox " + r.Owner.Netns + " nor with the node",
				"look for a process that keeps the sandbox's namespace: the device returns when that ends", ErrNoLink}
		}
	}
}

// remake makes a soft device again whose pair has gone with its sandbox. A pair of which
// one end is elsewhere is left alone.
func (k *Keeper) remake(r *Record) (made bool, err error) {
	netdev, representor, err := SoftNames(r.Device)
	if err != nil {
		return false, err
	}
	if _, err := k.kernel.Link(k.kernel.Host(), representor); !errors.Is(err, ErrNoLink) {
		return false, err
	}
	err = k.kernel.MakeSoft(netdev, representor, k.config.Soft)
	if errors.Is(err, unix.EEXIST) {
		return false, nil // the end of the pair is still on its way
	}
	return err == nil, k.failed(r.Device, "making the pair "+netdev+", "+representor+" again", err)
}

// settle makes a device of the node what it was.
func (k *Keeper) settle(r *Record, l Link, want *End) error {
	host := k.kernel.Host()
	doing := "making " + l.Name + " again what it was as " + want.Name
	same := l.Name == want.Name && l.MAC == want.MAC && l.MTU == want.MTU && l.Alias == want.Alias && sameNames(l.AltNames, want.AltNames)
	if !same {
		if l.Up {
			if err := k.kernel.SetUp(host, l.Index, false); err != nil {
				return k.failed(r.Device, doing, err)
			}
			l.Up = false
		}
		var err error
		if l, err = k.adjust(host, l, want); err != nil {
			return k.failed(r.Device, doing, err)
		}
	}
	if l.Up != want.Up {
		return k.failed(r.Device, doing, k.kernel.SetUp(host, l.Index, want.Up))
	}
	return nil
}

func sameNames(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// restorePort makes the representor what it was, but for its name, which is never
// changed.
func (k *Keeper) restorePort(r *Record) error {
	if r.Port == nil {
		return nil
	}
	l, err := k.kernel.Link(k.kernel.Host(), r.Representor)
	if errors.Is(err, ErrNoLink) {
		return nil // it has gone with its VF, or the e-switch was made anew
	}
	if err != nil {
		return k.failed(r.Device, "looking at representor "+r.Representor, err)
	}
	want := *r.Port
	want.Name, want.AltNames = l.Name, l.AltNames
	return k.settle(r, l, &want)
}
