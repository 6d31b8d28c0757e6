package cni

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Repair is something that Compare, or a start, has set right.
type Repair struct {
	What    string // one of the Repaired words: a metric's label
	Pod     Pod    // whose it was; zero: not known
	Message string // what was found, and what was done
}

// What can be set right.
const (
	RepairedSandbox    = "sandbox"    // of one that vanished without a DEL, what it had was removed
	RepairedPort       = "port"       // an OVS port of nobody was removed
	RepairedDevice     = "device"     // a pair of nobody was removed
	RepairedFunction   = "function"   // a function of a NIC was taken back, or made whole
	RepairedRecord     = "record"     // an interface's OVS port was written again
	RepairedInterface  = "interface"  // an interface was made again
	RepairedPod        = "pod"        // the end of a pod was made up for
	RepairedAddress    = "address"    // an address of nobody was freed
	RepairedAnnotation = "annotation" // a pod's annotation was written again
)

// turnPatience is how long Compare waits for a pod that a call works on: then it is
// left for the next time, and what is being made is never collected.
const turnPatience = 20 * time.Millisecond

func (a *Agent) repaired(r Repair) {
	a.log.Info("repaired", "what", r.What, "pod", r.Pod.String(), "message", r.Message)
	if a.config.Repaired != nil {
		a.config.Repaired(r)
	}
}

// Compare holds what the agent knows against what there is (network namespaces, pairs,
// OVS ports, pods, addresses), sets right what differs, and says what. A port of a
// sandbox that lives is never removed: a sandbox is gone when its namespace and its
// pairs are, for a pair outlives no namespace. What may be on its way is set right
// when it differs the next time too.
func (a *Agent) Compare(ctx context.Context) error {
	if !a.recovered.Load() {
		return errNotRecovered
	}
	select {
	case <-a.comparing:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { a.comparing <- struct{}{} }()
	was := a.doubts
	a.doubts = make(map[string]bool)
	doubted := func(what string) bool {
		a.doubts[what] = true
		return was[what]
	}
	return errors.Join(a.comparePorts(ctx), a.comparePods(ctx, doubted), a.compareAddresses(ctx, doubted), a.reportAll(ctx))
}

// takes makes a device's name a pod's, or of something that is being removed; false
// when it is somebody's already.
func (a *Agent) takes(name, uid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, taken := a.devices[name]; taken {
		return false
	}
	a.devices[name] = uid
	return true
}

// letGoOf lets a name go that is a pod's still.
func (a *Agent) letGoOf(name, uid string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.devices[name] == uid {
		delete(a.devices, name)
	}
}

// nameDevice names the port of an interface that is about to be made after a device
// that nobody has.
func (a *Agent) nameDevice(i *iface) {
	for {
		i.port.Generation = i.generation
		i.port.Name = i.device().Host
		if a.takes(i.port.Name, i.wish.Pod.UID) {
			return
		}
		i.generation++
	}
}

// withPod works on a pod that no call works on; what is busy is left alone.
func (a *Agent) withPod(ctx context.Context, uid string, f func(e *entry) error) error {
	turn, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	unlock, err := a.pods.lock(turn, uid)
	if err != nil {
		return context.Cause(ctx)
	}
	defer unlock()
	if e := a.lookup(uid); e != nil {
		return f(e)
	}
	return nil
}

// comparePorts compares OVS ports, pairs and what is known of both.
func (a *Agent) comparePorts(ctx context.Context) error {
	a.mu.Lock()
	known := maps.Clone(a.devices)
	a.mu.Unlock()
	// Read after what is known: what is made meanwhile has a name that is taken.
	ports, err := a.config.Ports.List(ctx)
	if err != nil {
		return err
	}
	devices, err := a.config.Links.List()
	if err != nil {
		return err
	}
	there := a.there(devices, ports)
	whole := make(map[string]bool, len(ports))
	var errs []error
	for _, p := range ports {
		// A device may have lost what only looking at it shows.
		whole[p.Name] = !p.Unfinished && there[p.Name] && p.Device == ""
		if _, ours := known[p.Name]; !ours && !(there[p.Name] && (p.Netns == "" || a.config.Links.Lives(p.Netns))) {
			errs = append(errs, a.removeStranger(ctx, p, Repair{RepairedPort, p.Pod,
				fmt.Sprintf("the OVS port %s (interface %s, sandbox %.12s) belonged to no sandbox: removed", p.Name, p.IfName, p.Sandbox)}))
		}
	}
	for _, d := range devices {
		_, ours := known[d]
		if _, recorded := whole[d]; !ours && !recorded {
			errs = append(errs, a.removeStranger(ctx, Port{Name: d}, Repair{What: RepairedDevice, Message: fmt.Sprintf("the veth pair %s had no OVS port: removed", d)}))
		}
	}
	errs = append(errs, a.releaseStrangers(ctx))
	suspects := map[string]bool{}
	for name, uid := range known {
		if !whole[name] && uid != "" {
			suspects[uid] = true
		}
	}
	for _, uid := range slices.Sorted(maps.Keys(suspects)) {
		errs = append(errs, a.withPod(ctx, uid, func(e *entry) error { return a.mendAll(ctx, e) }))
	}
	return errors.Join(errs...)
}

func setOf(list []string) map[string]bool {
	out := make(map[string]bool, len(list))
	for _, s := range list {
		out[s] = true
	}
	return out
}

// removeStranger removes the pair, or gives back the device, and removes the port of a name
// that nobody has.
func (a *Agent) removeStranger(ctx context.Context, p Port, what Repair) error {
	if !a.takes(p.Name, "") {
		return nil // it is being made
	}
	defer a.letGoOf(p.Name, "")
	remove := a.remove
	if what.What != RepairedPort {
		remove = func(context.Context, Port) error { return a.config.Links.Delete(p.Name) }
	}
	if err := remove(ctx, p); err != nil {
		return err
	}
	a.repaired(what)
	return nil
}

// mendAll removes what vanished sandboxes of a pod have left, and makes whole what
// those that live have. The caller has the pod's lock.
func (a *Agent) mendAll(ctx context.Context, e *entry) error {
	devices, err := a.config.Links.List() // anew: nobody works on the pod now
	if err != nil {
		return err
	}
	there := a.there(devices, e.ports())
	t := a.trace("COMPARE", "pod "+e.pod.String())
	var errs []error
	for _, sandbox := range e.sandboxes() {
		list := e.attached(sandbox)
		vanished := !slices.ContainsFunc(list, func(i *iface) bool {
			return i.netns() == "" || there[i.port.Name] || a.config.Links.Lives(i.netns())
		})
		if vanished {
			names := interfaceNames(list)
			if err := a.detach(ctx, t, e, list); err != nil {
				errs = append(errs, t.fail(err))
				continue
			}
			a.repaired(Repair{RepairedSandbox, e.pod, fmt.Sprintf("sandbox %.12s ended without a DEL: its ports (%s) were removed", sandbox, names)})
			continue
		}
		for _, i := range list {
			if err := a.mend(ctx, t, e, i, there[i.port.Name]); err != nil {
				errs = append(errs, t.fail(err))
			}
		}
	}
	return errors.Join(errs...)
}

// sandboxes lists those that have interfaces of the pod.
func (e *entry) sandboxes() []string {
	var out []string
	for _, i := range e.attached("") {
		if !slices.Contains(out, i.sandbox()) {
			out = append(out, i.sandbox())
		}
	}
	return out
}

// netns is the path of the namespace that an interface is in; "": not known.
func (i *iface) netns() string {
	switch {
	case i.port.Name != "":
		return i.port.Netns
	case i.chained != nil:
		return i.chained.Netns
	case i.leased != nil:
		return i.leased.Netns
	}
	return ""
}

func interfaceNames(list []*iface) string {
	names := make([]string, len(list))
	for n, i := range list {
		names[n] = i.name()
	}
	return strings.Join(names, ", ")
}

// mend makes an interface of a sandbox that lives whole: its OVS port is written again;
// if its pair is gone, or was not finished, it is made anew under its name and with
// its addresses. What a pod has changed in its own namespace is its own.
func (a *Agent) mend(ctx context.Context, t *trace, e *entry, i *iface, there bool) error {
	s, err := a.config.Ports.State(ctx, i.port.Name)
	if err == nil && i.port.Device != "" {
		s.Exists = s.Exists && s.Sandbox == i.port.Sandbox
		there, err = a.mendDevice(ctx, i, there)
	}
	if err != nil || there && s.Exists && !i.port.Unfinished {
		return err
	}
	if e.gone || i.port.Netns == "" {
		return nil // it ends with its sandbox; or an earlier release has not recorded where it is
	}
	if there && (!i.port.Unfinished || i.chainWhole() && a.config.Links.Verify(i.device(), i.endpoint(i.port.Netns)) == nil) {
		if err := a.config.Ports.Ensure(ctx, i.port); err != nil {
			return err
		}
		if !s.Exists {
			a.repaired(Repair{RepairedRecord, e.pod, fmt.Sprintf("the OVS port %s of interface %s was gone: written again", i.port.Name, i.port.IfName)})
		}
		return a.finish(ctx, i)
	}
	if !a.config.Links.Lives(i.port.Netns) {
		return nil
	}
	r := requestOf(i.port)
	if err := a.undelegate(ctx, t, e, i, &i.chained); err != nil {
		return err
	}
	if err := a.discard(ctx, t, e, i); err != nil {
		return err
	}
	if err := a.findAgain(i); err != nil {
		return err
	}
	// After an error it has its port's name, and is not finished: the next time.
	if err := a.attach(ctx, t, e, r, i); err != nil {
		return err
	}
	if err := a.delegateAll(ctx, t, e, r, []*iface{i}); err != nil {
		return err
	}
	a.repaired(Repair{RepairedInterface, e.pod, fmt.Sprintf("interface %s was gone, or not whole: made again with its addresses", i.port.IfName)})
	return a.finish(ctx, i)
}

// requestOf is the call that a port was made by, to make more of its kind.
func requestOf(p Port) *Request {
	r := &Request{Command: "ADD", ContainerID: p.Sandbox, Netns: p.Netns, IfName: p.IfName, Args: Args{InfraID: p.Sandbox}, live: true}
	if p.Native {
		r.Config.MultiNetwork = Native
	}
	return r
}

// finish notes that a port that was made while the pod runs is whole.
func (a *Agent) finish(ctx context.Context, i *iface) error {
	if !i.port.Unfinished {
		return nil
	}
	if err := a.config.Ports.Finish(ctx, i.port.Name); err != nil {
		return err
	}
	i.port.Unfinished = false
	return nil
}

// comparePods makes up for the ends of pods that nobody was told of.
func (a *Agent) comparePods(ctx context.Context, doubted func(string) bool) error {
	alive := a.alive()
	a.mu.Lock()
	uids := slices.Sorted(maps.Keys(a.entries))
	a.mu.Unlock()
	var errs []error
	for _, uid := range uids {
		if alive[uid] {
			continue
		}
		errs = append(errs, a.withPod(ctx, uid, func(e *entry) error {
			left := e.attached("")
			if e.gone && len(left) > 0 || !doubted("pod "+uid) {
				return nil
			}
			if e.gone = true; len(left) == 0 {
				t := a.trace("COMPARE", "pod "+e.pod.String())
				if err := a.release(ctx, t, e); err != nil {
					return t.fail(err)
				}
			}
			a.repaired(Repair{RepairedPod, e.pod, "it was not known that the pod is gone: its addresses are free when its sandbox is gone"})
			return nil
		}))
	}
	return errors.Join(errs...)
}

// alive has the UIDs of this node's pods.
func (a *Agent) alive() map[string]bool {
	out := map[string]bool{}
	for _, p := range a.config.Pods.List() {
		out[p.UID] = true
	}
	return out
}

// compareAddresses frees addresses that no interface has.
func (a *Agent) compareAddresses(ctx context.Context, doubted func(string) bool) error {
	alive := a.alive()
	var errs []error
	for _, n := range append([]Network{a.home}, a.config.Networks.All()...) {
		if n.Addresses == nil {
			continue
		}
		for _, owner := range n.Addresses.Owners() {
			uid, key, named := strings.Cut(owner, " ")
			if !named {
				key = defaultNetwork
			}
			if a.ownerless(uid, owner) {
				if !alive[uid] && doubted("address "+n.Name+" "+owner) {
					a.freeOwner(n, uid, key, true)
				}
				continue
			}
			errs = append(errs, a.withPod(ctx, uid, func(e *entry) error {
				if e.iface(key) == nil && doubted("address "+n.Name+" "+owner) {
					a.freeOwner(n, uid, key, false)
				}
				return nil
			}))
		}
	}
	return errors.Join(errs...)
}

// ownerless reports whether nothing is known of the pod of an owner.
func (a *Agent) ownerless(uid, owner string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.entries[uid] == nil && a.leaving[owner] == nil
}

// freeOwner puts to rest what an owner has, unless it is leaving; of an owner whose pod
// is not known, unless it is known by now.
func (a *Agent) freeOwner(n Network, uid, key string, unknown bool) {
	owner := ownerOf(uid, key)
	a.mu.Lock()
	if a.leaving[owner] != nil || unknown && a.entries[uid] != nil || !n.Addresses.Free(owner) {
		a.mu.Unlock()
		return
	}
	pod := Pod{}
	if e := a.entries[uid]; e != nil {
		pod = e.pod
	}
	a.mu.Unlock()
	if a.config.Journal != nil {
		if err := a.config.Journal.Free(uid, key, time.Now()); err != nil {
			a.log.Warn("the rest of an address is not recorded", "uid", uid, "err", err)
		}
	}
	a.repaired(Repair{RepairedAddress, pod, fmt.Sprintf("addresses of network %s were held for pod UID %s (%s), which has no such interface: freed", n.Name, uid, key)})
}

// reportAll says again what running pods have: whoever is told compares.
func (a *Agent) reportAll(ctx context.Context) error {
	a.mu.Lock()
	uids := slices.Sorted(maps.Keys(a.entries))
	a.mu.Unlock()
	var errs []error
	for _, uid := range uids {
		errs = append(errs, a.withPod(ctx, uid, func(e *entry) error {
			home := e.running()
			if home == nil {
				return nil
			}
			plan, err := a.plan(e.pod)
			if err != nil {
				return nil // that is told already
			}
			list := e.inOrder(plan)
			if !slices.ContainsFunc(list, func(i *iface) bool { return i.network.Addresses == nil && i.chained == nil }) {
				a.report(e.pod, requestOf(home.port), list)
			} // else a network is not known any more, and what was said of it stays
			return nil
		}))
	}
	return errors.Join(errs...)
}
