package cni

import (
	"context"
	"errors"
	"slices"
)

// discard takes away what interfaces of e are: it gives devices back, one by one, and
// removes all pairs and then, in one transaction, their ports. A record goes last, so that
// it is never lost before what it describes. It tries all; t may be nil.
//
// Where something fails the call is in the stage of the first that did, which is the one to
// look at.
func (a *Agent) discard(ctx context.Context, t *trace, e *entry, list ...*iface) error {
	var errs []error
	var pairs []*iface
	var failed trace
	for _, i := range slices.Backward(list) {
		switch {
		case i.port.Name == "":
		case i.port.Device == "":
			pairs = append(pairs, i)
		default:
			err := a.discardDevice(ctx, t, e, i)
			if errs = append(errs, err); err != nil && t != nil && failed.stage == "" {
				failed = *t
			}
		}
	}
	errs = append(errs, a.discardPairs(ctx, t, e, pairs))
	if failed.stage != "" {
		t.stage, t.port, t.entered = failed.stage, failed.port, failed.entered
	}
	return errors.Join(errs...)
}

// enterAt notes a stage, and whose it is; nothing for nobody.
func (t *trace) enterAt(ctx context.Context, stage string, i *iface) error {
	if t == nil {
		return nil
	}
	t.port = i.port.Name
	return t.enter(ctx, stage)
}

func (a *Agent) discardDevice(ctx context.Context, t *trace, e *entry, i *iface) error {
	if err := t.enterAt(ctx, StageReturnDevice, i); err != nil {
		return err
	}
	if err := a.giveBack(ctx, i.port, i.deviceOwner()); err != nil {
		return i.wrap(err)
	}
	a.discarded(e, i)
	return nil
}

func (a *Agent) discardPairs(ctx context.Context, t *trace, e *entry, list []*iface) error {
	if len(list) == 0 {
		return nil
	}
	names := make([]string, len(list))
	for n, i := range list {
		names[n] = i.port.Name
	}
	err := t.enterAt(ctx, StageRemoveVeth, list[0])
	if err == nil {
		err = a.config.Links.Delete(names...)
	}
	if err == nil {
		err = t.enterAt(ctx, StageRemovePort, list[0])
	}
	if err == nil {
		err = a.config.Ports.RemoveAll(ctx, names...)
	}
	if err != nil && len(list) > 1 && ctx.Err() == nil { // one keeps no other
		var errs []error
		for n := range list {
			errs = append(errs, a.discardPairs(ctx, t, e, list[n:n+1]))
		}
		return errors.Join(errs...)
	}
	if err != nil {
		return err
	}
	a.discarded(e, list...)
	return nil
}

// discarded notes that interfaces have nothing any more.
func (a *Agent) discarded(e *entry, list ...*iface) {
	for _, i := range list {
		a.setOwner(e, i, "")
		a.letGoOf(i.port.Name, e.pod.UID)
		i.port, i.generation = Port{}, i.port.Generation+1
	}
}
