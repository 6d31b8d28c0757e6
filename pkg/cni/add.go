package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/portolan-cni/portolan/pkg/cni/wire"
)

// Prepare gives a pod that is bound to this node its addresses, so that OVN has made
// its half of the ports when ADD comes (decision 26). Nothing to do is no error, and
// with a pod that is gone there is nothing.
func (a *Agent) Prepare(ctx context.Context, p Pod) error {
	t := a.trace("PREPARE", "pod "+p.String())
	t.pod = p
	err := a.prepare(ctx, t, p)
	if _, gone := errors.AsType[*goneError](err); err != nil && !gone {
		return t.fail(err)
	}
	t.done()
	return nil
}

func (a *Agent) prepare(ctx context.Context, t *trace, p Pod) error {
	if !a.recovered.Load() {
		return errNotRecovered
	}
	ctx, cancel := a.config.Pods.During(ctx, p)
	defer cancel()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return err
	}
	unlock, err := a.pods.lock(ctx, p.UID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := context.Cause(ctx); err != nil { // it may have been forgotten while this waited
		return err
	}
	e := a.entryOf(p)
	if home := e.running(); home != nil {
		return a.live(ctx, t, e, home)
	}
	// Of a plan that cannot be read, ADD tells. What a network that is not known needs,
	// is made once it is.
	plan, _ := a.plan(p)
	list := []*iface{e.want(plan[0], a.home)}
	for _, w := range plan[1:] {
		// What plugins of others give, they give to a sandbox.
		if n, err := a.config.Networks.Attach(w); err == nil && n.Addresses != nil && n.Lease.Empty() {
			if len(e.attached("")) == 0 {
				w = a.rekey(e, w)
			}
			list = append(list, e.want(w, n))
		}
	}
	var fresh []*iface
	for _, i := range list {
		if i.port.Name == "" { // what is attached stays as it is
			fresh = append(fresh, i)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := a.allocate(ctx, t, e, fresh...); err != nil {
		return err
	}
	a.progress.prepared(p.UID, fresh)
	return nil
}

// add serves ADD. The caller holds the sandbox's lock.
func (a *Agent) add(ctx context.Context, t *trace, r *Request) (*Result, error) {
	if err := t.enter(ctx, StageFindPod); err != nil {
		return nil, err
	}
	pod, err := a.config.Pods.Wait(ctx, r.Args.Namespace, r.Args.Name, r.Args.UID)
	if err != nil {
		return nil, err
	}
	t.pod = pod
	t.subject = fmt.Sprintf("pod %s (UID %s, sandbox %.12s)", pod, pod.UID, r.ContainerID)
	// What is given to a pod that has been forgotten nobody takes back.
	ctx, cancel := a.config.Pods.During(ctx, pod)
	defer cancel()
	defer a.forgotten(ctx, pod)
	asked, err := a.asked(ctx, t, pod, r)
	if err != nil {
		return nil, err
	}
	if err := t.enter(ctx, StageWaitTurn); err != nil {
		return nil, err
	}
	unlock, err := a.pods.lock(ctx, pod.UID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	e := a.entryOf(pod)
	e.gone = false
	list, fresh, err := a.reuseAll(ctx, t, e, r, asked)
	if err != nil {
		return nil, err
	}
	if r.native() {
		if err := a.takeOthers(ctx, t, e, list); err != nil {
			return nil, err
		}
	}
	if len(fresh) > 0 {
		if err := a.make(ctx, t, e, r, fresh); err != nil {
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
			defer cancel()
			return nil, errors.Join(err, a.undo(undo, nil, e, fresh))
		}
		a.progress.attached(pod.UID, fresh)
	}
	if !r.native() {
		if err := a.writeInfo(r, list[0]); err != nil {
			return nil, err // the device is the sandbox's: DEL gives it back
		}
	}
	a.report(pod, r, list)
	return a.result(list[0], r), nil
}

// forgotten takes back what a call has told of a pod that is gone.
func (a *Agent) forgotten(ctx context.Context, p Pod) {
	if _, gone := errors.AsType[*goneError](context.Cause(ctx)); gone && a.lookup(p.UID) == nil {
		a.progress.forget(p.UID)
		a.tell(p, "")
	}
}

// make makes interfaces: those of ours together, then plugins of others do their part,
// in the order that the pod wishes.
func (a *Agent) make(ctx context.Context, t *trace, e *entry, r *Request, fresh []*iface) error {
	var ours []*iface
	for _, i := range fresh {
		if i.network.Addresses != nil {
			ours = append(ours, i)
		}
	}
	if err := a.chooseAll(ctx, t, e, r, ours); err != nil {
		return err
	}
	if err := a.leaseAll(ctx, t, e, r, ours); err != nil {
		return err
	}
	if len(ours) > 0 {
		if err := a.allocate(ctx, t, e, ours...); err != nil {
			return err
		}
		if err := a.attach(ctx, t, e, r, ours...); err != nil {
			return err
		}
	}
	return a.delegateAll(ctx, t, e, r, fresh)
}

// report says once, of all, what a pod that was attached natively has now; of a call
// for a pod that asks for nothing, nothing.
func (a *Agent) report(pod Pod, r *Request, list []*iface) {
	if a.config.Status == nil || !r.native() || pod.Selection == "" && pod.Instead == "" && !r.live {
		return
	}
	all := make([]Attachment, len(list))
	for n, i := range list {
		all[n] = i.attachment()
		all[n].MTU, all[n].Device = i.network.MTU, a.info(i)
		if i.chained != nil {
			all[n].Result = i.chained.Result
		} else if i.port.Name != "" {
			all[n].Result = a.result(i, r).types()
		}
	}
	a.config.Status(pod, all)
	a.progress.reported(pod.UID)
}

// settled is a wish whose network is known, and lets the pod in.
type settled struct {
	wish    Wish
	network Network
}

// reuseAll finds the interfaces of the wishes, and which of them are to be made.
func (a *Agent) reuseAll(ctx context.Context, t *trace, e *entry, r *Request, wishes []settled) (list, fresh []*iface, err error) {
	for _, s := range wishes {
		w := e.place(s.wish, r)
		if r.native() {
			w = a.rekey(e, w)
		}
		i := e.want(w, s.network)
		list = append(list, i)
		done, err := a.reuse(ctx, t, e, i, r)
		if err != nil {
			return nil, nil, err
		}
		if !done {
			i.wish, i.network = w, s.network
			fresh = append(fresh, i)
		}
	}
	return list, fresh, nil
}

// plan lists everything that a pod is to have, the default network first, which is
// there also when the rest cannot be read.
func (a *Agent) plan(p Pod) ([]Wish, error) {
	home := Wish{Pod: p, Key: defaultNetwork, IfName: defaultInterface}
	others, err := a.config.Networks.Plan(p)
	if err != nil {
		return []Wish{home}, err
	}
	if len(others) > 0 && others[0].Key == defaultNetwork {
		home, others = others[0], others[1:]
	}
	for _, w := range others {
		home.Elsewhere = home.Elsewhere || w.DefaultRoute
	}
	return append([]Wish{home}, others...), nil
}

// asked is what a call wants: by our own conflist everything that the pod is to have;
// else the default network, or that of the definition whose configuration it brings, as
// the pod's annotation wishes it.
func (a *Agent) asked(ctx context.Context, t *trace, pod Pod, r *Request) ([]settled, error) {
	if r.native() {
		return a.askedAll(ctx, t, pod, r)
	}
	plan, err := a.plan(pod)
	if r.Config.Definition == "" { // also of an annotation that cannot be read: its networks' calls tell
		plan[0].IfName = r.IfName
		return []settled{{plan[0], a.home}}, nil
	}
	if err != nil {
		return nil, err
	}
	w := Wish{Pod: pod, Key: r.Config.Definition, IfName: r.IfName}
	for _, p := range plan[1:] {
		if p.Definition() == w.Key && p.IfName == r.IfName {
			w = p
			break
		}
	}
	n, err := a.settle(ctx, t, w)
	if err == nil && n.Name != r.Config.Name {
		err = wire.Errorf(wire.CodeConfig, "definition %s is of network %q, and the configuration of this call is of network %q: set its name and netAttachDefName to its own",
			r.Config.Definition, n.Name, r.Config.Name)
	}
	return []settled{{w, n}}, err
}

func (a *Agent) askedAll(ctx context.Context, t *trace, pod Pod, r *Request) ([]settled, error) {
	plan, err := a.plan(pod)
	if err != nil {
		a.tell(pod, err.Error())
		return nil, err
	}
	plan[0].IfName = r.IfName
	if pod.Instead != "" {
		if _, err := a.settle(ctx, t, plan[0]); err != nil {
			return nil, err
		}
	}
	out := []settled{{plan[0], a.home}}
	for _, w := range plan[1:] {
		n, err := a.settle(ctx, t, w)
		if err != nil {
			return nil, err
		}
		out = append(out, settled{w, n})
	}
	return out, nil
}

// place finds, of the pod's attachments by one definition, the one that a call means:
// by the interface's name, else the first that has no interface.
func (e *entry) place(w Wish, r *Request) Wish {
	if w.Key != r.Config.Definition {
		return w // the default network, or planned
	}
	index := 0
	for {
		i := e.iface(KeyOf(w.Key, index))
		if i == nil || i.bare() || i.wish.IfName == r.IfName {
			break
		}
		index++
	}
	w.Key = KeyOf(w.Key, index)
	return w
}

// reuse decides what becomes of the port that an interface has: when it is this
// sandbox's and whole, the ADD is done; else it is discarded, and a new one is made.
func (a *Agent) reuse(ctx context.Context, t *trace, e *entry, i *iface, r *Request) (done bool, err error) {
	if i.bare() {
		return false, nil
	}
	t.port = i.port.Name
	if err := t.enter(ctx, StageVerify); err != nil {
		return false, err
	}
	if i.sandbox() == r.ContainerID && a.verify(ctx, i, r) == nil {
		if i.port.Name == "" {
			return true, nil
		}
		// While ovn-controller restarts, its flows go and come back: no reason to
		// make the interface of a running pod anew.
		if err := t.enter(ctx, StageInstalled); err != nil {
			return false, err
		}
		return true, a.waitInstalled(ctx, i)
	}
	return false, a.undo(ctx, t, e, []*iface{i})
}

// attach makes the sandbox's interfaces and their ports. The pairs come first, as
// vswitchd looks for a device as soon as it reads the port; all ports are one
// transaction. OVS and OVN are at work while the pod's ends are configured. Addresses are
// announced when their packets pass.
func (a *Agent) attach(ctx context.Context, t *trace, e *entry, r *Request, list ...*iface) error {
	for _, i := range list {
		if i.wish.Key == defaultNetwork || !r.native() {
			i.wish.IfName = r.IfName
		}
		i.port = Port{Pod: e.pod, Key: i.wish.Key, Network: i.network.Name, IfName: i.wish.IfName, Addresses: i.grant.Addresses,
			MAC: i.grant.MAC.String(), Netns: r.Netns, Native: r.native(), Unfinished: r.live,
			Name: i.function.found.Representor, Device: i.function.Device, Encap: i.function.Encap, Fallback: i.function.Fallback}
		if i.port.Device == "" {
			a.nameDevice(i)
		}
		a.setOwner(e, i, r.ContainerID)
	}
	if err := a.takeAll(ctx, t, list); err != nil {
		return err
	}
	made, pairs, ports := e.pairs(list, r.Netns)
	t.port = ports[0].Name
	if err := t.enter(ctx, StageCreateVeth); err != nil {
		return err
	}
	if err := a.config.Links.Create(made...); err != nil {
		return err
	}
	if err := t.enter(ctx, StageCreatePort); err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() { written <- a.config.Ports.Ensure(ctx, ports...) }() // ends with the transaction, or with ctx
	err := t.enter(ctx, StageConfigure)
	if err == nil {
		err = a.config.Links.Configure(pairs...)
	}
	// Also after an error: what is undone must have been done before.
	if unwritten := <-written; unwritten != nil {
		t.stage = StageCreatePort
		err = errors.Join(unwritten, err)
	}
	if err != nil {
		return err
	}
	if err := a.raiseAll(ctx, t, list); err != nil {
		return err
	}
	if err := t.enter(ctx, StageInstalled); err != nil {
		return err
	}
	for _, i := range list {
		t.port = i.port.Name
		if err := a.waitInstalled(ctx, i); err != nil {
			return err
		}
	}
	if err := t.enter(ctx, StageAnnounce); err != nil {
		return err
	}
	if err := a.config.Links.Announce(pairs...); err != nil {
		return err
	}
	if err := a.commitAll(ctx, t, list); err != nil {
		return err
	}
	return t.enter(ctx, StageAnswer)
}

// pairs lists what has two ends: the pairs that are to be made, and with the devices all
// that have an end in the sandbox; and the ports of all.
func (e *entry) pairs(list []*iface, netns string) (made, all []Pair, ports []Port) {
	for _, i := range list {
		p := Pair{i.device(), e.endpoint(i, netns)}
		if !p.Given {
			made = append(made, p)
		}
		if i.function.netdev() {
			all = append(all, p)
		}
		ports = append(ports, i.port)
	}
	return made, all, ports
}

// waitInstalled returns when OVN has installed an interface's port, and the port is
// the pod's.
func (a *Agent) waitInstalled(ctx context.Context, i *iface) error {
	if err := a.config.Ports.WaitInstalled(ctx, i.port.Name); err != nil || a.config.Written == nil {
		return err
	}
	return a.config.Written(ctx, i.wish.Pod)
}

// endpoint is an interface's, with its rank among the pod's.
func (e *entry) endpoint(i *iface, netns string) Endpoint {
	out := i.endpoint(netns)
	for _, before := range e.ifaces {
		if before == i {
			break
		}
		if before.network.Name == i.network.Name {
			out.Rank++
		}
	}
	return out
}

func (i *iface) endpoint(netns string) Endpoint {
	return Endpoint{Netns: netns, IfName: i.port.IfName, Addresses: i.grant.Addresses, Gateways: i.grant.Gateways, Routes: i.grant.Routes}
}

func (a *Agent) result(i *iface, r *Request) *Result {
	return &Result{
		Host:      ResultInterface{Name: i.port.Name, MTU: i.network.MTU},
		Pod:       ResultInterface{Name: i.port.IfName, MAC: i.grant.MAC.String(), MTU: i.network.MTU, Sandbox: r.Netns, PCI: i.function.pci()},
		Addresses: i.grant.Addresses, Gateways: i.grant.Gateways, Routes: i.grant.Routes,
	}
}

// verify reports what an attached interface lacks, but for OVN's flows.
func (a *Agent) verify(ctx context.Context, i *iface, r *Request) error {
	if i.network.Addresses != nil || i.port.Name != "" {
		if err := a.verifyPort(ctx, i, r.Netns); err != nil {
			return err
		}
	}
	return a.verifyChain(ctx, i, r)
}

func (a *Agent) verifyPort(ctx context.Context, i *iface, netns string) error {
	s, err := a.config.Ports.State(ctx, i.port.Name)
	switch {
	case err != nil:
		return err
	case !s.Exists:
		return fmt.Errorf("the OVS port %s is gone", i.port.Name)
	case s.Sandbox != i.port.Sandbox:
		return fmt.Errorf("the OVS port %s belongs to sandbox %q", i.port.Name, s.Sandbox)
	}
	if i.port.Device != "" {
		if err := a.config.Keeper.Check(ctx, i.port.Device, i.deviceOwner()); err != nil || !i.function.netdev() {
			return err
		}
	}
	return a.config.Links.Verify(i.device(), i.endpoint(netns))
}

// check serves CHECK. The caller holds the sandbox's lock.
func (a *Agent) check(ctx context.Context, t *trace, r *Request) error {
	if err := t.enter(ctx, StageVerify); err != nil {
		return err
	}
	none := wire.Errorf(wire.CodeInconsistent, "no port belongs to this sandbox")
	uid, ok := a.ownerOf(r.ContainerID)
	if !ok {
		return none
	}
	unlock, err := a.pods.lock(ctx, uid)
	if err != nil {
		return err
	}
	defer unlock()
	e := a.lookup(uid)
	if e == nil {
		return none
	}
	list := e.meant(r)
	if len(list) == 0 {
		return none
	}
	for _, i := range list {
		t.port = i.port.Name
		if err := a.verify(ctx, i, r); err != nil {
			return wire.Errorf(wire.CodeInconsistent, "%v", err)
		}
		if i.port.Name == "" {
			continue
		}
		if s, err := a.config.Ports.State(ctx, i.port.Name); err != nil || !s.Installed {
			return wire.Errorf(wire.CodeInconsistent, "the OVS port %s: %s", i.port.Name, waitingFor(s, err))
		}
	}
	return nil
}

// meant lists the interfaces that a CHECK or DEL of a sandbox is about: by its
// configuration the pod's all, or the one of its name.
func (e *entry) meant(r *Request) []*iface {
	list := e.attached(r.ContainerID)
	if r.native() {
		return list
	}
	for _, i := range list {
		if i.wish.IfName == r.IfName {
			return []*iface{i}
		}
	}
	return nil
}
