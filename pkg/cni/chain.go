package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Chain is what plugins of others do for an interface.
type Chain struct {
	// List is their configuration list. What the interface is so far is in prevResult of
	// its first plugin, where Portolan has made it.
	List json.RawMessage `json:"list"`
	// Values are for the plugins that declare a capability, by its name.
	Values map[string]json.RawMessage `json:"values,omitempty"`
}

// Empty reports whether there is nothing to do.
func (c Chain) Empty() bool { return len(c.List) == 0 }

// What a Delegation is for.
const (
	DelegateInterface = "interface" // the interface, or what is done to it after ours
	DelegateAddresses = "addresses" // addresses of an interface of ours
)

// Delegation is a chain that plugins of others carry out for an interface of a sandbox.
// As it is recorded, it is all that is needed to undo it.
type Delegation struct {
	For     string `json:"for"`
	Pod     Pod    `json:"pod"`
	Key     string `json:"key"` // of the attachment, as Wish's
	Sandbox string `json:"sandbox"`
	Netns   string `json:"netns"`
	IfName  string `json:"ifName"`
	InfraID string `json:"infraID,omitempty"` // as the runtime calls the sandbox to plugins
	Device  string `json:"device,omitempty"`  // that the plugins were given
	Chain
	// Result is what the last plugin said; nil: begun, and not known to have ended.
	Result *types100.Result `json:"result,omitempty"`
}

// Plugins run plugins of others, and remember what they have begun.
// delegate.Plugins implements it.
type Plugins interface {
	// Add carries a chain out, and records that before and after. What an error leaves is
	// Del's to undo.
	Add(ctx context.Context, d Delegation) (*types100.Result, error)
	// Check asks whether it still is as it was made.
	Check(ctx context.Context, d Delegation) error
	// Del undoes all or half of it, and then forgets it; it may be repeated.
	Del(ctx context.Context, d Delegation) error
	// List returns what is recorded: begun by this process or an earlier one.
	List() ([]Delegation, error)
}

// noPlugins is Plugins where none are run.
type noPlugins struct{}

var errNoPlugins = errors.New("this node runs no plugins of others")

func (noPlugins) Add(context.Context, Delegation) (*types100.Result, error) { return nil, errNoPlugins }
func (noPlugins) Check(context.Context, Delegation) error                   { return errNoPlugins }
func (noPlugins) Del(context.Context, Delegation) error                     { return nil }
func (noPlugins) List() ([]Delegation, error)                               { return nil, nil }

// delegateAll has plugins of others do their part for interfaces, one after another
// (multi-network specification, section 6.2).
func (a *Agent) delegateAll(ctx context.Context, t *trace, e *entry, r *Request, list []*iface) error {
	for _, i := range list {
		if !r.native() || i.network.Chain.Empty() {
			continue
		}
		chain, err := a.othersDevice(ctx, t, e, i)
		if err != nil {
			return i.wrap(err)
		}
		if i.port.Name != "" {
			if chain.List, err = afterOurs(chain.List, a.result(i, r)); err != nil {
				return err
			}
		}
		if err := t.enter(ctx, StageRunPlugins); err != nil {
			return err
		}
		d := a.begin(e, i, r, DelegateInterface, chain)
		result, err := a.config.Plugins.Add(ctx, *d)
		if err != nil {
			return i.wrap(err)
		}
		d.Result = result
		if err := i.unchanged(result); err != nil {
			return i.wrap(err)
		}
	}
	return a.wayOut(e, r)
}

// wayOut leaves a sandbox the default route that its pod asks for alone, else the default
// network's: plugins of others add those that their configuration has.
func (a *Agent) wayOut(e *entry, r *Request) error {
	var way *iface
	others := false
	for _, i := range e.attached(r.ContainerID) {
		others = others || i.port.Name == "" && i.chained != nil
		if i.wish.DefaultRoute || way == nil && i.wish.Key == defaultNetwork {
			way = i
		}
	}
	if way == nil || !others {
		return nil
	}
	gateways := way.grant.Gateways
	if way.port.Name == "" {
		if gateways = way.wish.Gateways; len(gateways) == 0 {
			gateways = onePerFamily(gatewaysOf(way.chained.Result))
		}
	}
	if len(gateways) == 0 {
		return way.wrap(errors.New("default-route is asked for, and neither the pod's annotation nor the plugin names a gateway: give its address in default-route"))
	}
	return way.wrap(a.config.Links.Route(Endpoint{Netns: r.Netns, IfName: way.wish.IfName, Gateways: gateways}))
}

// gatewaysOf are those that a result has, for addresses and default routes.
func gatewaysOf(result *types100.Result) []netip.Addr {
	var out []netip.Addr
	add := func(ip net.IP) {
		if gw, ok := netip.AddrFromSlice(ip); ok {
			out = append(out, gw.Unmap())
		}
	}
	for _, ip := range result.IPs {
		add(ip.Gateway)
	}
	for _, r := range result.Routes {
		if ones, _ := r.Dst.Mask.Size(); ones == 0 {
			add(r.GW)
		}
	}
	return out
}

// leaseAll asks plugins for the addresses of interfaces whose networks say so.
func (a *Agent) leaseAll(ctx context.Context, t *trace, e *entry, r *Request, list []*iface) error {
	for _, i := range list {
		if i.network.Lease.Empty() {
			continue
		}
		if err := t.enter(ctx, StageRunPlugins); err != nil {
			return err
		}
		if !r.native() {
			i.wish.IfName = r.IfName
		}
		d := a.begin(e, i, r, DelegateAddresses, i.network.Lease)
		result, err := a.config.Plugins.Add(ctx, *d)
		if err == nil && len(result.IPs) == 0 {
			err = errors.New("the plugin that ipam names gives no address")
		}
		if err != nil {
			return i.wrap(err)
		}
		d.Result = result
	}
	return nil
}

// lease adds to a grant what a plugin has given: addresses, the way out where it is to be
// through this interface, and the other routes.
func (g Grant) lease(w Wish, result *types100.Result) Grant {
	g.Addresses, g.Gateways, g.Routes = nil, nil, nil
	if result == nil {
		return g
	}
	gateways := gatewaysOf(result)
	for _, ip := range result.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		ones, _ := ip.Address.Mask.Size()
		if ok {
			g.Addresses = append(g.Addresses, netip.PrefixFrom(addr.Unmap(), ones))
		}
	}
	for _, r := range result.Routes {
		addr, ok := netip.AddrFromSlice(r.Dst.IP)
		ones, _ := r.Dst.Mask.Size()
		via, given := netip.AddrFromSlice(r.GW)
		if ok && ones > 0 { // a default route is the pod's to ask for
			to := Route{Destination: netip.PrefixFrom(addr.Unmap(), ones), Gateway: via.Unmap(), Metric: indexOf(w.Key)}
			if !given {
				to.Gateway, _ = gatewayOf(to.Destination, gateways)
			}
			g.Routes = append(g.Routes, to)
		}
	}
	if w.DefaultRoute {
		if g.Gateways = w.Gateways; len(g.Gateways) == 0 {
			g.Gateways = onePerFamily(gateways)
		}
	}
	return g
}

func onePerFamily(list []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		if !slices.ContainsFunc(out, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			out = append(out, a)
		}
	}
	return out
}

// withdraw takes addresses back that a plugin has given, and returns when no row names
// them any more: only then may the plugin give them to somebody else.
func (a *Agent) withdraw(ctx context.Context, e *entry, i *iface) error {
	if i.leased == nil {
		return nil
	}
	if i.granted && i.published {
		done := make(chan struct{})
		i.granted, i.published, i.grant, i.withdrawn = false, false, Grant{}, done
		a.config.Publisher.Released(e.pod, e.granted(), func() { close(done) })
	}
	i.granted, i.grant = false, Grant{}
	if i.withdrawn == nil {
		return nil
	}
	select {
	case <-i.withdrawn:
		i.withdrawn = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("OVN has the addresses still, so they are not given back to their plugin: %w", context.Cause(ctx))
	}
}

// begin files a delegation with its interface: from now on it is to be undone.
func (a *Agent) begin(e *entry, i *iface, r *Request, what string, c Chain) *Delegation {
	d := &Delegation{For: what, Pod: e.pod, Key: i.wish.Key, Sandbox: r.ContainerID, Netns: r.Netns, IfName: i.wish.IfName, InfraID: r.Args.InfraID, Chain: c}
	if what == DelegateInterface && i.port.Name == "" {
		d.Device = i.function.Device
	}
	a.file(e, i, d)
	return d
}

// file notes that a sandbox has, or had begun, a delegation.
func (a *Agent) file(e *entry, i *iface, d *Delegation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.For == DelegateAddresses {
		i.leased = d
	} else {
		i.chained = d
	}
	a.owners[d.Sandbox] = e.pod.UID
}

func (i *iface) wrap(err error) error {
	if err == nil || i.wish.Key == defaultNetwork {
		return err
	}
	return fmt.Errorf("interface %s by definition %s: %w", i.wish.IfName, definitionOf(i.wish.Key), err)
}

// unchanged refuses a MAC that a later plugin has given to an interface of ours: OVN
// would let none of its packets in.
func (i *iface) unchanged(result *types100.Result) error {
	if i.port.Name == "" {
		return nil
	}
	for _, f := range result.Interfaces {
		if f != nil && f.Sandbox != "" && f.Name == i.wish.IfName && f.Mac != "" && f.Mac != i.grant.MAC.String() {
			return fmt.Errorf("a plugin after Portolan's has changed its MAC from %s to %s, which OVN lets no packet of in: ask for a MAC by mac in the pod's annotation, and take it out of the definition", i.grant.MAC, f.Mac)
		}
	}
	return nil
}

// afterOurs puts what Portolan has made before the first plugin of a list.
func afterOurs(list json.RawMessage, ours *Result) (json.RawMessage, error) {
	var all map[string]json.RawMessage
	var plugins []map[string]json.RawMessage
	var version string
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(all["plugins"], &plugins); err != nil || len(plugins) == 0 {
		return nil, fmt.Errorf("plugins of the configuration list: %w", err)
	}
	if raw, ok := all["cniVersion"]; ok {
		if err := json.Unmarshal(raw, &version); err != nil {
			return nil, err
		}
	}
	var err error
	if plugins[0]["prevResult"], err = ours.Encode(version); err != nil {
		return nil, err
	}
	if all["plugins"], err = json.Marshal(plugins); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// undo removes what interfaces have, in the reverse of the order in which it was made:
// what plugins did, the ports, then what addresses plugins gave. It tries all.
func (a *Agent) undo(ctx context.Context, t *trace, e *entry, list []*iface) error {
	var errs []error
	for _, i := range slices.Backward(list) {
		errs = append(errs, a.undelegate(ctx, t, e, i, &i.chained))
	}
	errs = append(errs, a.discard(ctx, t, e, list...))
	for _, i := range slices.Backward(list) {
		if i.port.Name != "" {
			continue // it has the addresses still
		}
		if err := a.withdraw(ctx, e, i); err != nil {
			errs = append(errs, i.wrap(err))
			continue
		}
		errs = append(errs, a.undelegate(ctx, t, e, i, &i.leased))
	}
	return errors.Join(errs...)
}

// undelegate has plugins undo what they began for an interface. t may be nil.
func (a *Agent) undelegate(ctx context.Context, t *trace, e *entry, i *iface, at **Delegation) error {
	d := *at
	if d == nil {
		return nil
	}
	if t != nil {
		if err := t.enter(ctx, StageUndoPlugins); err != nil {
			return err
		}
	}
	if err := a.config.Plugins.Del(ctx, *d); err != nil {
		return i.wrap(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	*at = nil
	if len(e.attached(d.Sandbox)) == 0 {
		delete(a.owners, d.Sandbox)
	}
	return nil
}

// verifyChain reports what plugins of others miss of an interface that they made.
func (a *Agent) verifyChain(ctx context.Context, i *iface, r *Request) error {
	if i.leased != nil {
		if err := a.config.Plugins.Check(ctx, *i.leased); err != nil {
			return i.wrap(err)
		}
	}
	if !r.native() || i.network.Chain.Empty() && i.chained == nil {
		return nil
	}
	switch {
	case i.chained == nil:
		return i.wrap(errors.New("plugins of others have not run"))
	case i.chained.Result == nil:
		return i.wrap(errors.New("plugins of others have not ended"))
	}
	if err := a.config.Plugins.Check(ctx, *i.chained); err != nil {
		return i.wrap(err)
	}
	return nil
}

// restoreDelegations takes up what plugins of others had begun when an earlier process
// ended. It is undone by the sandbox's next call, or GC, unless it is whole.
func (a *Agent) restoreDelegations(list []Delegation, live map[string]Pod) {
	for _, d := range list {
		if d.For == DelegateFunction {
			continue // its interface is a call's of type sriov
		}
		pod, alive := live[d.Pod.UID]
		if !alive {
			pod = d.Pod
		}
		e := a.entryOf(pod)
		e.gone = !alive
		i := e.iface(d.Key)
		if i == nil {
			w := a.wished(pod, d.Key, d.IfName)
			n, err := a.config.Networks.Attach(w)
			if err != nil {
				n = Network{} // it can be undone all the same
			}
			i = e.want(w, n)
		}
		if d.Device != "" {
			i.function.Device = d.Device
		}
		a.file(e, i, &d)
	}
}

// leaseOf finds the record of a port's addresses, nil where no plugin gave them.
func leaseOf(list []Delegation, p Port) *Delegation {
	for n, d := range list {
		if d.For == DelegateAddresses && d.Pod.UID == p.Pod.UID && d.Key == p.Key && d.Sandbox == p.Sandbox && d.Result != nil {
			return &list[n]
		}
	}
	return nil
}
