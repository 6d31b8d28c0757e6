package cni

import (
	"context"
	"errors"
	"maps"
	"slices"
)

// del serves DEL: it removes what belongs to the sandbox, and nothing else. The
// address stays the pod's. The caller holds the sandbox's lock.
func (a *Agent) del(ctx context.Context, t *trace, sandbox string) error {
	uid, ok := a.ownerOf(sandbox)
	if !ok {
		return nil // gone already, or never attached, or taken over by a newer sandbox
	}
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return err
	}
	unlock, err := a.pods.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	e := a.lookup(uid)
	if e == nil || e.port.Sandbox != sandbox {
		return nil
	}
	t.port = e.port.Name
	e.retired = true
	if err := a.discard(ctx, t, e); err != nil {
		return err
	}
	if e.gone {
		// Also when the call's time is up: nobody comes again for the address.
		_ = t.enter(ctx, StageFreeAddress)
		a.free(e)
	}
	return t.enter(ctx, StageAnswer)
}

// Forget says that a pod has been deleted or has run to completion: a prepared
// port is removed and the address is free. While a sandbox of it still lives, both
// wait for its DEL or GC (decision 19).
func (a *Agent) Forget(ctx context.Context, uid string) error {
	t := a.trace("FORGET", "pod UID "+uid)
	if err := a.forget(ctx, t, uid); err != nil {
		return t.fail(err)
	}
	t.done()
	return nil
}

func (a *Agent) forget(ctx context.Context, t *trace, uid string) error {
	if !a.recovered.Load() {
		return errNotRecovered
	}
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return err
	}
	unlock, err := a.pods.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	e := a.lookup(uid)
	if e == nil {
		return nil
	}
	t.subject, t.port = "pod "+e.pod.String(), e.port.Name
	if e.port.Sandbox != "" {
		e.gone = true
		return nil
	}
	if err := a.discard(ctx, t, e); err != nil {
		return err
	}
	if err := t.enter(ctx, StageFreeAddress); err != nil {
		return err
	}
	a.free(e)
	return nil
}

// free gives the pod's addresses back and forgets it.
func (a *Agent) free(e *entry) {
	at := a.attachment(e)
	a.config.Pool.Release(e.pod.UID)
	a.drop(e.pod.UID)
	if e.published {
		a.config.Publisher.Released(at)
	}
}

// gc serves GC: it removes what belongs to sandboxes that are not in keep.
// Prepared ports belong to none, and stay.
func (a *Agent) gc(ctx context.Context, t *trace, keep []ValidAttachment) error {
	valid := make(map[string]bool, len(keep))
	for _, k := range keep {
		valid[k.ContainerID] = true
	}
	a.mu.Lock()
	sandboxes := slices.Sorted(maps.Keys(a.owners))
	a.mu.Unlock()
	var errs []error
	for _, s := range sandboxes {
		if valid[s] {
			continue
		}
		if err := a.collect(ctx, t, s); err != nil {
			errs = append(errs, err)
			continue
		}
		a.log.Info("collected what a vanished sandbox had left", "sandbox", s)
	}
	return errors.Join(errs...)
}

func (a *Agent) collect(ctx context.Context, t *trace, sandbox string) error {
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return err
	}
	unlock, err := a.sandboxes.lock(ctx, sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	return a.del(ctx, t, sandbox)
}
