package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
)

// Recover takes up what an earlier process left. pods are those now bound to this
// node and not completed, after the informer has synced; known are the
// allocations that their annotations record, which count where neither OVS nor the
// journal has a record (decision 17). It must succeed before anything else is served.
//
// A record is kept when its veth is there and it names a sandbox, whose DEL, GC or
// next ADD then finds it, also when only half of it was made; other records, and
// veths without a record, are removed. An address is kept while the pod is, or
// while its sandbox is; those of others rest anew, as far as the journal knows them.
func (a *Agent) Recover(ctx context.Context, pods []Pod, known []Attachment) error {
	a.repairDevices(ctx)
	ports, err := a.config.Ports.List(ctx)
	if err != nil {
		return err
	}
	delegations, err := a.config.Plugins.List()
	if err != nil {
		return err
	}
	devices, err := a.config.Links.List()
	if err != nil {
		return err
	}
	live := make(map[string]Pod, len(pods))
	for _, p := range pods {
		live[p.UID] = p
	}
	// Should a pod have two records, the one in use is kept.
	slices.SortStableFunc(ports, func(a, b Port) int { return cmp.Compare(b.Sandbox, a.Sandbox) })
	there := a.there(devices, ports)
	var errs []error
	kept := make(map[string]bool, len(ports))
	for _, p := range ports {
		keep, err := a.restore(ctx, p, live, there[p.Name], leaseOf(delegations, p))
		if keep {
			kept[p.Name] = true
		}
		errs = append(errs, err)
	}
	errs = append(errs, a.restoreHeld(live))
	a.restoreDelegations(delegations, live)
	for _, k := range known {
		if _, ok := live[k.Pod.UID]; ok {
			a.restoreKnown(k)
		}
	}
	// Each pod once, with all that it has: of an annotation with less, other zones and a
	// global zone's controller would take the rest away.
	for _, e := range a.entries {
		a.publish(e)
	}
	recorded := make(map[string]bool, len(ports))
	for _, p := range ports {
		recorded[p.Name] = true
	}
	for _, d := range devices {
		if kept[d] {
			continue
		}
		err := a.config.Links.Delete(d)
		if err == nil && !recorded[d] {
			a.repaired(Repair{What: RepairedDevice, Message: fmt.Sprintf("the veth pair %s had no OVS port: removed", d)})
		}
		errs = append(errs, err)
	}
	if err := a.releaseStrangers(ctx); err != nil {
		a.log.Error("devices of nobody are not the node's yet", "err", err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("taking up the attachments of an earlier run: %w", err)
	}
	a.sweep(ctx)
	a.recovered.Store(true)
	a.log.Info("attachments recovered", "ports", len(kept), "removed", len(ports)-len(kept))
	return nil
}

// sweep forgets the connections of addresses whose pods went while no agent ran. A
// failure is no reason to serve nobody.
func (a *Agent) sweep(ctx context.Context) {
	if a.config.Connections == nil {
		return
	}
	subnets := a.config.Pool.Subnets()
	var keep []netip.Addr
	for _, s := range subnets {
		keep = append(keep, alloc.Gateway(s), alloc.Management(s))
	}
	for _, e := range a.entries { // nothing else runs yet
		keep = append(keep, e.addresses()...)
	}
	if err := a.config.Connections.Sweep(ctx, subnets, keep); err != nil {
		a.log.Warn("connections of pods that went while the agent was down may be remembered", "err", err)
	}
}

// restore takes up one record, or removes it. lease is the record of its addresses where
// a plugin gave them.
func (a *Agent) restore(ctx context.Context, p Port, live map[string]Pod, device bool, lease *Delegation) (keep bool, err error) {
	pod, alive := live[p.Pod.UID]
	keep = p.Pod.UID != "" && p.Sandbox != "" && a.lookupPort(p.Pod.UID, p.Key) == "" &&
		(device || alive && p.Netns != "" && a.config.Links.Lives(p.Netns)) // of a sandbox that lives Compare makes it again
	if !alive {
		pod = p.Pod
	}
	if keep || alive {
		w := a.wished(pod, p.Key, p.IfName)
		w.Encap = p.Encap
		n, _ := a.knownNetwork(w, p.Network)
		given := p.Addresses
		if lease != nil {
			given = nil
		}
		grant, err := n.keep(w, given)
		if lease != nil {
			grant = grant.lease(w, lease.Result)
		}
		if err != nil {
			// Its node's subnet has changed, or the record was tampered with. The pod
			// keeps running as it is; a new sandbox gets a new address.
			a.log.Warn("a port's recorded address cannot be kept", "pod", pod.String(), "port", p.Name, "network", n.Name, "err", err)
		}
		if mac, err := net.ParseMAC(p.MAC); err == nil {
			grant.MAC = mac
		}
		if keep || err == nil && len(p.Addresses) > 0 {
			e := a.entryOf(pod)
			i := e.want(w, n)
			i.grant, i.granted, e.gone = grant, true, !alive
			i.generation = max(i.generation, p.Generation+1)
			if keep {
				a.adopt(e, i, p)
			}
		}
	}
	if keep {
		return true, nil
	}
	if err := a.remove(ctx, p); err != nil {
		return false, err
	}
	a.repaired(Repair{RepairedPort, p.Pod, fmt.Sprintf("the OVS port %s (interface %s, sandbox %.12s) was left by a sandbox that is gone: removed", p.Name, p.IfName, p.Sandbox)})
	return false, nil
}

// wished is the wish that an interface was made for, as far as it is known.
func (a *Agent) wished(p Pod, key, ifName string) Wish {
	if plan, err := a.plan(p); err == nil {
		for _, same := range []func(w Wish) bool{
			func(w Wish) bool { return w.IfName == ifName && w.Definition() == definitionOf(key) },
			func(w Wish) bool { return w.Key == key },
		} {
			if i := slices.IndexFunc(plan, same); i >= 0 {
				w := plan[i]
				if w.Key = key; ifName != "" {
					w.IfName = ifName
				}
				return w
			}
		}
	}
	return Wish{Pod: p, Key: key, IfName: ifName}
}

// knownNetwork finds the network of an interface that an earlier run made; one that
// is gone has its name and nothing to give.
func (a *Agent) knownNetwork(w Wish, name string) (Network, bool) {
	if w.Key == defaultNetwork {
		return a.home, true
	}
	if n, ok := a.config.Networks.Named(name); ok {
		return n, true
	}
	if name == "" { // of an annotation, which does not say it
		if n, err := a.config.Networks.Attach(w); err == nil {
			return n, true
		}
	}
	return Network{Name: name}, false
}

// keep takes up what was given. Also where that cannot be, the interface has it.
func (n Network) keep(w Wish, given []netip.Prefix) (Grant, error) {
	err := fmt.Errorf("network %q is not known any more", n.Name)
	if n.Addresses != nil {
		var g Grant
		if g, err = n.Addresses.Keep(w, given); err == nil {
			return g, nil
		}
	}
	if w.Key == defaultNetwork {
		return PoolAddresses{}.grant(w, given), err
	}
	return Grant{Addresses: given}.finish(w, nil, nil), err
}

func (a *Agent) lookupPort(uid, key string) string {
	if e := a.lookup(uid); e != nil {
		if i := e.iface(key); i != nil {
			return i.port.Name
		}
	}
	return ""
}

// adopt makes a recorded port the interface's.
func (a *Agent) adopt(e *entry, i *iface, p Port) {
	i.port = p
	i.port.Pod, i.port.Sandbox = e.pod, ""
	a.adoptDevice(i)
	a.takes(p.Name, e.pod.UID)
	a.setOwner(e, i, p.Sandbox)
}

// restoreHeld takes up what the journal records: the addresses of live pods that
// have no port; and the rests of those that are gone, which are forgotten with the
// process, while another zone may not have heard of the end yet.
func (a *Agent) restoreHeld(live map[string]Pod) error {
	if a.config.Journal == nil {
		return nil
	}
	held, err := a.config.Journal.List()
	if err != nil {
		return err
	}
	slices.SortFunc(held, func(a, b Held) int { return cmp.Compare(a.owner(), b.owner()) })
	for _, h := range held {
		if pod, alive := live[h.Pod.UID]; alive {
			h.Pod = pod
			a.restoreKnown(Attachment{Pod: pod, Key: h.Key, Network: h.Network, Grant: Grant{Addresses: h.Addresses}})
		}
	}
	for _, h := range held {
		if _, alive := live[h.Pod.UID]; !alive && !h.over(time.Now(), journalRest) {
			a.restoreGone(h)
		}
	}
	return nil
}

// restoreGone puts to rest what a pod had that is gone, or keeps it with the sandbox
// that the pod has left.
func (a *Agent) restoreGone(h Held) {
	e := a.lookup(h.Pod.UID)
	if e != nil && e.iface(h.Key) != nil {
		return
	}
	w := Wish{Pod: h.Pod, Key: h.Key, IfName: defaultInterface}
	n, _ := a.knownNetwork(w, h.Network)
	if n.Addresses == nil {
		return // of a network that is gone
	}
	grant, err := n.Addresses.Keep(w, h.Addresses)
	if err != nil {
		a.log.Info("an address that would rest is not this node's, or another pod's", "pod", h.Pod.String(), "network", n.Name, "err", err)
		return
	}
	i := &iface{wish: w, network: n, grant: grant, granted: true, published: true, generation: a.config.Generation}
	if e != nil {
		e.ifaces = append(e.ifaces, i)
		return
	}
	a.leave(h.Pod, []*iface{i}, nil)
}

// restoreKnown takes up an allocation that only the journal or the pod's annotation
// records.
func (a *Agent) restoreKnown(k Attachment) {
	if e := a.lookup(k.Pod.UID); e != nil && e.iface(k.Key) != nil && e.iface(k.Key).granted {
		return
	}
	w := a.wished(k.Pod, k.Key, k.IfName)
	n, ok := a.knownNetwork(w, k.Network)
	if !ok {
		return // nobody has it, and nobody gives it
	}
	grant, err := n.Addresses.Keep(w, k.Addresses)
	if err != nil {
		a.log.Warn("a recorded address cannot be kept", "pod", k.Pod.String(), "network", n.Name, "err", err)
		return
	}
	e := a.entryOf(k.Pod)
	i := e.want(w, n)
	i.grant, i.granted = grant, true
}
