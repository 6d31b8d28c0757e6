package sriov

import "context"

// Resolve finds a device by its id, as an attachment would: with what its record says, and
// with its faults.
func (k *Keeper) Resolve(id string) (Device, error) {
	id, err := CanonicalID(id)
	if err != nil {
		return Device{}, err
	}
	d, err := k.config.Inventory.Resolve(id)
	if err != nil {
		return d, err
	}
	if r, err := k.journal.read(id); err == nil && r != nil && r.Netdev != nil && d.Netdev == "" {
		d.Netdev = r.Netdev.Name // a pod has it
	}
	return d, nil
}

// Mend makes whole what an owner has of a device: what was lost meanwhile is given again
// where the owner need not help. A device that has left its sandbox is the node's, which
// is told as a Repaired, as all that was done is; nil: it was whole.
func (k *Keeper) Mend(ctx context.Context, id string, o Owner) (done *Repaired, err error) {
	err = k.own(ctx, id, o, func(r *Record) error {
		if r.Phase != Attached {
			return &DeviceError{id, k.journal.path(id), "the device is " + string(r.Phase), "attach it again", nil}
		}
		done, err = k.complete(ctx, r)
		return err
	})
	return done, err
}

// Reclaim takes a device back from an owner who is gone, so that it can be found: a soft
// device ends with its owner's namespace. Nothing is done when it is free, or the owner
// lives.
func (k *Keeper) Reclaim(ctx context.Context, id string) error {
	id, unlock, err := k.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	r, err := k.journal.read(id)
	if err != nil || r == nil || r.Boot == k.boot && k.Lives(r.Owner) {
		return err
	}
	return k.restore(ctx, r)
}
