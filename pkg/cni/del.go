package cni

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// del serves DEL: it removes what the call is about of what belongs to the sandbox,
// and nothing else. Addresses stay the pod's. The caller holds the sandbox's lock.
func (a *Agent) del(ctx context.Context, t *trace, r *Request) error {
	uid, ok := a.ownerOf(r.ContainerID)
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
	if e == nil {
		return nil
	}
	return a.detach(ctx, t, e, e.meant(r))
}

// detach removes interfaces, the last first. It tries all and reports every error.
func (a *Agent) detach(ctx context.Context, t *trace, e *entry, list []*iface) error {
	if err := a.undo(ctx, t, e, list); err != nil {
		return err
	}
	if e.gone && len(e.attached("")) == 0 {
		if err := a.release(ctx, t, e); err != nil {
			a.Gone(e.pod) // no call comes again for the address
			a.log.Warn("a pod's addresses are not free yet, trying again", "pod", e.pod.String(), "err", err)
		}
	}
	return t.enter(ctx, StageAnswer)
}

// Forget says that a pod has been deleted or has run to completion: its address
// is free. While a sandbox of it still lives, that waits for its DEL or GC
// (decision 19).
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
	t.subject = "pod " + e.pod.String()
	if left := e.attached(""); len(left) > 0 {
		e.gone, t.port = true, left[0].port.Name
		return nil
	}
	return a.release(ctx, t, e)
}

// release gives the pod's addresses back once no connection of theirs is
// remembered, and forgets the pod. It may be repeated.
func (a *Agent) release(ctx context.Context, t *trace, e *entry) error {
	if a.config.Connections != nil {
		if err := t.enter(ctx, StageFlush); err != nil {
			return err
		}
		if err := a.config.Connections.Flush(ctx, e.addresses()); err != nil {
			return err
		}
	}
	if err := t.enter(ctx, StageFreeAddress); err != nil {
		return err
	}
	a.free(e)
	return nil
}

// addresses are those of all interfaces.
func (e *entry) addresses() []netip.Addr {
	var out []netip.Addr
	for _, i := range e.ifaces {
		out = append(out, i.addresses()...)
	}
	return out
}

func (i *iface) addresses() []netip.Addr {
	out := make([]netip.Addr, 0, len(i.grant.Addresses))
	for _, p := range i.grant.Addresses {
		out = append(out, p.Addr())
	}
	return out
}

// free forgets the pod; its addresses rest once its rows are gone.
func (a *Agent) free(e *entry) {
	a.drop(e.pod.UID)
	a.progress.forget(e.pod.UID)
	a.tell(e.pod, "")
	for _, i := range e.ifaces {
		a.unfell(i)
	}
	for _, i := range e.ifaces {
		if i.published {
			a.leave(e.pod, e.ifaces, nil)
			return
		}
	}
	a.rest(e.pod.UID, e.ifaces, a.leaves(e.ifaces))
}

// leave tells that a pod has these left of what it had: none, when it is gone. The
// others' addresses stay its own until that is done: they are not given while a row of
// this zone still names them, however long a database is away.
func (a *Agent) leave(p Pod, had []*iface, left []Attachment) {
	which := a.leaves(had)
	a.config.Publisher.Released(p, left, func() { a.rest(p.UID, had, which) })
}

// leaves notes whose addresses are about to rest.
func (a *Agent) leaves(had []*iface) (which *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	which = new(int)
	for _, i := range had {
		a.leaving[i.wish.Owner()] = which
	}
	return which
}

// stays notes that an interface has come back before its addresses rested.
func (a *Agent) stays(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.leaving, owner)
}

// rest puts addresses to rest, but for those of interfaces that have come back.
func (a *Agent) rest(uid string, had []*iface, which *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range had {
		if a.leaving[i.wish.Owner()] != which {
			continue
		}
		delete(a.leaving, i.wish.Owner())
		if i.network.Addresses == nil || !i.network.Addresses.Free(i.wish.Owner()) || a.config.Journal == nil {
			continue
		}
		if err := a.config.Journal.Free(uid, i.wish.Key, time.Now()); err != nil {
			// The next start finds them held by a pod that is gone, and puts them to rest.
			a.log.Warn("the rest of an address is not recorded", "uid", uid, "err", err)
		}
	}
}

// gc serves GC: it removes what belongs to sandboxes that are not in keep. The
// addresses of pods that wait for theirs stay.
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
	return a.del(ctx, t, &Request{ContainerID: sandbox, Config: NetConf{MultiNetwork: Native}})
}
