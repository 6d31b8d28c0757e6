package cni

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// commandLive names, in stages and messages, what is done while a pod runs.
const commandLive = "LIVE"

// running is the default interface of a pod whose sandbox was attached natively and is
// known by its namespace; nil for others, whose networks are their caller's.
func (e *entry) running() *iface {
	home := e.iface(defaultNetwork)
	if home == nil || e.gone || !home.port.Native || home.port.Netns == "" {
		return nil
	}
	return home
}

// inOrder lists the sandbox's interfaces by the order of a plan.
func (e *entry) inOrder(plan []Wish) []*iface {
	home := e.running()
	list := []*iface{home}
	for _, w := range plan[1:] {
		// A plan that is refused may name an interface twice.
		if i := e.same(w); i != nil && !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	for _, i := range e.attached(home.port.Sandbox) {
		if !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	return list
}

// live makes a pod that runs have what its annotation asks for now: what is not asked
// for any more is taken away, what is new is attached, by the functions that ADD uses;
// the rest is not touched. An interface is the same when its definition and its name
// are, and it has the addresses and the MAC that are asked for. What cannot be done is
// told, and leaves what runs as it is. The caller has the pod's lock.
func (a *Agent) live(ctx context.Context, t *trace, e *entry, home *iface) error {
	t.command = commandLive
	plan, err := a.plan(e.pod)
	if err == nil {
		err = sameName(plan)
	}
	if err != nil {
		a.tell(e.pod, err.Error()+"; the pod runs, and what it has stays as it is")
		return nil
	}
	l := &living{agent: a, t: t, e: e, home: home, wanted: map[*iface]bool{home: true}}
	missing := l.match(plan[1:])
	if len(missing) == 0 && !l.surplus() {
		a.tell(e.pod, "")
		return nil
	}
	if !a.config.Links.Lives(home.port.Netns) {
		return nil // it ends: by its DEL, or by Compare
	}
	made, failed := l.prepare(ctx, missing)
	failed = errors.Join(failed, l.detach(ctx))
	for _, i := range made {
		failed = errors.Join(failed, l.attach(ctx, i))
	}
	if l.changed {
		a.report(e.pod, requestOf(home.port), e.inOrder(plan))
	}
	a.tell(e.pod, strings.Join(l.complaints, "; "))
	return failed
}

// sameName refuses a plan in which two attachments have one interface name.
func sameName(plan []Wish) error {
	for n, w := range plan {
		if i := slices.IndexFunc(plan[:n], func(o Wish) bool { return o.IfName == w.IfName }); i >= 0 {
			return fmt.Errorf("the interface name %s is asked for by %s and by %s: give each its own", w.IfName, plan[i].Key, w.Key)
		}
	}
	return nil
}

// living is one pass over a running pod.
type living struct {
	agent      *Agent
	t          *trace
	e          *entry
	home       *iface
	wanted     map[*iface]bool
	complaints []string
	changed    bool
}

// match finds which interfaces are asked for as they are, and returns the wishes that
// have none.
func (l *living) match(wishes []Wish) (missing []Wish) {
	for _, w := range wishes {
		i := l.e.same(w)
		if i != nil && i.meets(w) && i.chainWhole() {
			l.wanted[i] = true
			continue
		}
		missing = append(missing, w)
	}
	return missing
}

// surplus reports whether there is an interface that is not asked for.
func (l *living) surplus() bool {
	return slices.ContainsFunc(l.e.ifaces, func(i *iface) bool { return !l.wanted[i] })
}

// same is the attached interface of a wish's definition and name.
func (e *entry) same(w Wish) *iface {
	for _, i := range e.ifaces {
		if !i.bare() && i.name() == w.IfName && definitionOf(i.wish.Key) == w.Definition() {
			return i
		}
	}
	return nil
}

// meets reports whether an interface has what a wish asks for. Who asks for no address
// has any.
func (i *iface) meets(w Wish) bool {
	addresses, mac := i.grant.Addresses, i.grant.MAC.String()
	if i.port.Name == "" && i.chained != nil && i.chained.Result != nil { // made by plugins of others
		addresses, mac = Grant{}.lease(w, i.chained.Result).Addresses, ""
		for _, f := range i.chained.Result.Interfaces {
			if f != nil && f.Sandbox != "" && f.Name == w.IfName {
				mac = f.Mac
			}
		}
	}
	for _, ip := range w.IPs {
		if !slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr() == ip.Addr() }) {
			return false
		}
	}
	return w.MAC == nil || w.MAC.String() == mac
}

// chainWhole reports whether plugins of others have done their part.
func (i *iface) chainWhole() bool {
	if i.chained == nil {
		return i.network.Chain.Empty()
	}
	return i.chained.Result != nil
}

// name of an interface in its pod.
func (i *iface) name() string {
	switch {
	case i.port.IfName != "":
		return i.port.IfName
	case i.chained != nil:
		return i.chained.IfName
	}
	return i.wish.IfName
}

// prepare gives what is to be attached its addresses, before anything is taken away: an
// interface whose new addresses cannot be had keeps the old ones.
func (l *living) prepare(ctx context.Context, wishes []Wish) (made []*iface, failed error) {
	for _, w := range wishes {
		old := l.e.same(w)
		i, err := l.grant(ctx, w)
		if err != nil {
			l.complaints = append(l.complaints, fmt.Sprintf("%s (%s): %v", w.IfName, w.Definition(), err))
			if old != nil {
				l.wanted[old] = true
			}
			if _, final := errors.AsType[*unserved](err); !final {
				failed = errors.Join(failed, err)
			}
			continue
		}
		l.wanted[i] = true
		made = append(made, i)
	}
	return made, failed
}

// unserved is an error that trying again does not mend.
type unserved struct{ error }

func (u *unserved) Unwrap() error { return u.error }

// grant gives a wish an interface with addresses.
func (l *living) grant(ctx context.Context, w Wish) (*iface, error) {
	n, err := l.agent.config.Networks.Attach(w)
	switch {
	case err != nil:
		return nil, &unserved{err} // it is asked again when anything of networks changes
	case n.needsDevice():
		return nil, &unserved{fmt.Errorf("the definition needs %s, and devices are allocated when a pod is admitted: delete the pod and create it anew with the network and the resource", n.needed())}
	case w.DefaultRoute:
		return nil, &unserved{errors.New("default-route is set when a sandbox is made: delete the pod and create it anew, or leave default-route out")}
	}
	w.Key = l.agent.keyFor(l.e, w)
	i := l.e.want(w, n)
	if n.Addresses == nil || !n.Lease.Empty() {
		return i, nil // plugins of others give what they give to the sandbox
	}
	if err := l.agent.allocate(ctx, l.t, l.e, i); err != nil {
		if !i.granted {
			l.e.remove(i)
		}
		return nil, err
	}
	return i, nil
}

// keyFor is the key of a wish that has no interface in its sandbox: of one that has
// addresses for it already, or the first that nobody has. Addresses that begin to rest
// are not taken up again: others may have been asked for.
func (a *Agent) keyFor(e *entry, w Wish) string {
	for _, i := range e.ifaces {
		if i.bare() && definitionOf(i.wish.Key) == w.Definition() && (i.wish.IfName == w.IfName || i.wish.IfName == "") && (!i.granted || i.meets(w)) {
			return i.wish.Key
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for index := 0; ; index++ {
		key := KeyOf(w.Definition(), index)
		if e.iface(key) == nil && a.leaving[ownerOf(w.Pod.UID, key)] == nil {
			return key
		}
	}
}

// rekey gives a wish the key that its interface has, whatever its place in the
// annotation is now.
func (a *Agent) rekey(e *entry, w Wish) Wish {
	if w.Key == defaultNetwork {
		return w
	}
	if i := e.same(w); i != nil && i.meets(w) {
		w.Key = i.wish.Key
	} else {
		w.Key = a.keyFor(e, w)
	}
	return w
}

// takeOthers removes what a pod had and, in a new call for all its networks, does not
// ask for any more.
func (a *Agent) takeOthers(ctx context.Context, t *trace, e *entry, asked []*iface) error {
	var errs []error
	for _, i := range slices.Backward(slices.Clone(e.ifaces)) {
		if !slices.Contains(asked, i) {
			errs = append(errs, a.take(ctx, t, e, i))
		}
	}
	return errors.Join(errs...)
}

// detach takes away what is not asked for.
func (l *living) detach(ctx context.Context) error {
	var errs []error
	for _, i := range slices.Backward(slices.Clone(l.e.ifaces)) {
		if l.wanted[i] {
			continue
		}
		attached := !i.bare()
		if attached && len(i.grant.Gateways) > 0 {
			l.complaints = append(l.complaints, fmt.Sprintf("%s (%s) has the pod's default route, and stays: delete the pod and create it anew", i.name(), i.wish.Definition()))
			continue
		}
		if err := l.agent.take(ctx, l.t, l.e, i); err != nil {
			errs = append(errs, err)
			continue
		}
		l.changed = l.changed || attached
	}
	return errors.Join(errs...)
}

// take removes an interface of a pod that goes on, and frees its addresses.
func (a *Agent) take(ctx context.Context, t *trace, e *entry, i *iface) error {
	if err := a.undo(ctx, t, e, []*iface{i}); err != nil {
		return err
	}
	if a.config.Connections != nil && len(i.grant.Addresses) > 0 {
		if err := t.enter(ctx, StageFlush); err != nil {
			return err
		}
		if err := a.config.Connections.Flush(ctx, i.addresses()); err != nil {
			return err
		}
	}
	if err := t.enter(ctx, StageFreeAddress); err != nil {
		return err
	}
	e.remove(i)
	a.unfell(i)
	a.progress.given(e.pod, e.granted(), true)
	if i.published {
		a.leave(e.pod, []*iface{i}, e.granted())
		return nil
	}
	gone := []*iface{i}
	a.rest(e.pod.UID, gone, a.leaves(gone))
	return nil
}

func (e *entry) remove(i *iface) {
	e.ifaces = slices.DeleteFunc(e.ifaces, func(o *iface) bool { return o == i })
}

// attach makes one interface of the sandbox. One that cannot be made holds up no other,
// and is tried again.
func (l *living) attach(ctx context.Context, i *iface) error {
	a := l.agent
	err := a.make(ctx, l.t, l.e, requestOf(l.home.port), []*iface{i})
	if err == nil {
		l.changed = true
		a.progress.attached(l.e.pod.UID, []*iface{i})
		return a.finish(ctx, i)
	}
	l.complaints = append(l.complaints, fmt.Sprintf("%s (%s): %v", i.wish.IfName, i.wish.Definition(), err))
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	return errors.Join(err, a.undo(undo, nil, l.e, []*iface{i}))
}
