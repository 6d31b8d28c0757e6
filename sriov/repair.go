package sriov

import (
	"context"
	"errors"
	"fmt"
)

// Repaired is something that Repair has set right.
type Repaired struct {
	Device  string
	Owner   Owner
	Message string
}

// Repair makes each device that has a record wholly its owner's or wholly the node's.
// What an earlier process was giving or taking back is the node's again; what an owner
// has who lives stays, and is completed; of an owner who is gone it is taken back. It
// tries all, and reports what it has done and every error.
func (k *Keeper) Repair(ctx context.Context) ([]Repaired, error) {
	return k.Collect(ctx, k.Lives)
}

// Collect does the same by a judgement of the caller's who lives.
func (k *Keeper) Collect(ctx context.Context, lives func(Owner) bool) ([]Repaired, error) {
	ids, err := k.journal.list()
	if err != nil {
		return nil, err
	}
	var out []Repaired
	var errs []error
	for _, id := range ids {
		done, err := k.repair(ctx, id, lives)
		errs = append(errs, err)
		if done != nil {
			k.log.Info("device repaired", "device", done.Device, "pod", done.Owner.Pod, "message", done.Message)
			out = append(out, *done)
		}
	}
	return out, errors.Join(errs...)
}

func (k *Keeper) repair(ctx context.Context, id string, lives func(Owner) bool) (*Repaired, error) {
	unlock, err := k.locks.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := k.journal.read(id)
	if err != nil || r == nil {
		return nil, err
	}
	why := ""
	switch {
	case r.Boot != k.boot:
		why = "the machine was started anew since"
	case r.Phase == Attaching:
		why = "giving it to " + r.Owner.String() + " was not finished"
	case r.Phase == Detaching:
		why = "taking it back from " + r.Owner.String() + " was not finished"
	case !lives(r.Owner):
		why = r.Owner.String() + " is gone"
	default:
		return k.complete(ctx, r)
	}
	if err := k.restore(ctx, r); err != nil {
		return nil, fmt.Errorf("device %s is to be the node's again, for %s: %w", id, why, err)
	}
	return &Repaired{id, r.Owner, "the device is the node's again: " + why}, nil
}

// complete makes whole what an owner has: what was lost meanwhile is given again where
// that can be done without the owner's help; a device that has left the sandbox, as by a
// reset of its PF, is the node's.
func (k *Keeper) complete(ctx context.Context, r *Record) (*Repaired, error) {
	d, err := k.config.Inventory.Resolve(r.Device)
	if err != nil && !IsNotFound(err) {
		return nil, err
	}
	lost := IsNotFound(err)
	if !lost && !r.Userspace {
		ns, _, err := k.inSandbox(r)
		if err != nil {
			return nil, err
		}
		if lost = ns == nil; ns != nil {
			ns.Close()
		}
	}
	if lost {
		if err := k.restore(ctx, r); err != nil {
			return nil, fmt.Errorf("device %s has left the sandbox of %s: %w", r.Device, r.Owner, err)
		}
		return &Repaired{r.Device, r.Owner, "the device had left the sandbox of " + r.Owner.String() + ", and is the node's: the NIC was reset, or its VFs were made anew"}, nil
	}
	changed, err := k.retell(ctx, r, d)
	if err != nil {
		return nil, err
	}
	again, err := k.replug(ctx, r, d)
	if err != nil {
		return nil, err
	}
	if changed || again {
		return &Repaired{r.Device, r.Owner, "the device of " + r.Owner.String() + " had lost settings or its place in the switch: given again"}, nil
	}
	return nil, nil
}

// retell tells the PF again what it has forgotten.
func (k *Keeper) retell(ctx context.Context, r *Record, d Device) (changed bool, err error) {
	if r.VF == nil || d.PF.Netdev == "" {
		return false, nil
	}
	want, err := r.Wanted.Settings.over(*r.VF, r.mac())
	if err != nil {
		return false, err
	}
	vfs, err := k.kernel.VFs(d.PF.Netdev)
	if err != nil {
		return false, k.failed(r.Device, "asking PF "+d.PF.Netdev+" for its VFs", err)
	}
	now, ok := vfs[d.Index]
	if !ok {
		return false, nil
	}
	var errs []error
	for _, a := range attributes() {
		if now.part(a) == want.part(a) || a == AttributeMAC && r.Function != "" {
			continue
		}
		changed = true
		errs = append(errs, k.setVF(ctx, d, a, now, want))
	}
	return changed, errors.Join(errs...)
}

// replug puts the representor into the switch again, where there is one, and up.
func (k *Keeper) replug(ctx context.Context, r *Record, d Device) (changed bool, err error) {
	if r.Representor == "" || k.config.Switch == nil {
		return false, nil
	}
	host := k.kernel.Host()
	l, err := k.kernel.Link(host, r.Representor)
	if err != nil {
		return false, k.failed(r.Device, "looking at representor "+r.Representor, err)
	}
	p := Plugged{Owner: r.Owner, MAC: r.mac(), Userspace: r.Userspace, Encap: r.Wanted.Encap}
	if r.Netdev != nil {
		p.Netdev = r.Netdev.Name
	}
	if err := k.config.Switch.Plug(ctx, r.Representor, p); err != nil || l.Up {
		return false, err
	}
	return true, k.failed(r.Device, "bringing representor "+d.Representor+" up", k.kernel.SetUp(host, l.Index, true))
}
