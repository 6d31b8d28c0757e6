package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// Options tell Discover where to look.
type Options struct {
	Interface string       // spec.gateway.interface of the Cluster file; "": found
	NodeIPs   []netip.Addr // the Node's InternalIPs, preferred over the default route
	Bridge    string       // what the bridge is or will be called: "br-ex"
	Force     bool         // spec.gateway.takeover is force: take a NIC that others configure
	RunDir    string       // the machine's /run, where network daemons keep state; "": /run
	// BridgeNIC tells the NIC and the datapath of an OVS bridge that is there
	// already, from the OVS database (NIC "": no such bridge, or none in it).
	BridgeNIC func(bridge string) (nic string, dp intent.Datapath)
}

// ErrNoGateway means that no link has the node's addresses or a default route.
var ErrNoGateway = errors.New("no gateway NIC found: no default route and no link with the node's address; name one as spec.gateway.interface in the Cluster file (ConfigMap portolan-config)")

// Discover finds the gateway NIC and what it has. In this order: what an earlier
// takeover saved, while the bridge or nobody has the addresses; an OVS bridge of
// others that has them; a NIC that has them, which is refused when others would
// fight for it.
func (k *Kernel) Discover(o Options) (Gateway, error) {
	saved, found, err := k.loadGateway()
	if err != nil {
		return Gateway{}, err
	}
	if found && k.bridgeHas(saved) {
		if o.Interface != "" && o.Interface != saved.NIC {
			return Gateway{}, fmt.Errorf("spec.gateway.interface is %s, and the gateway is %s now: run portolan-node cleanup on the node first", o.Interface, saved.NIC)
		}
		return k.resume(saved)
	}
	l, err := k.gatewayLink(o)
	if errors.Is(err, ErrNoGateway) && found {
		return k.resume(saved)
	}
	if err != nil {
		return Gateway{}, err
	}
	g, err := k.describe(l)
	if err != nil {
		return Gateway{}, err
	}
	if found && g.NIC == saved.NIC && len(g.Addresses) == 0 {
		return k.resume(saved)
	}
	if g.Bridge = o.Bridge; o.BridgeNIC != nil {
		if nic, dp := o.BridgeNIC(g.NIC); nic != "" {
			g.NIC, g.Bridge, g.Foreign = nic, g.NIC, dp
			return g, nil
		}
	}
	// Before its addresses are looked at: the port of a bridge has none, and giving it
	// some would be bad advice.
	if err := unfit(l); err != nil {
		return Gateway{}, err
	}
	if len(g.Addresses) == 0 {
		return Gateway{}, fmt.Errorf("gateway NIC %s has no address: give it the node's, or name another as spec.gateway.interface in the Cluster file", g.NIC)
	}
	if !o.Force {
		err = k.refuse(l, o.RunDir)
	}
	return g, err
}

// resume takes the saved gateway on: after a restart the addresses are on the
// bridge, on nothing (the bridge is gone, or we died moving them), or both.
func (k *Kernel) resume(saved Gateway) (Gateway, error) {
	l, err := k.nl.LinkByName(saved.NIC)
	if err != nil {
		return saved, fmt.Errorf("NIC %s, taken over earlier: %w", saved.NIC, err)
	}
	saved.MTU, saved.Resumed = l.Attrs().MTU, true
	return saved, nil
}

// gatewayLink is the link that has the node's addresses or the default route.
func (k *Kernel) gatewayLink(o Options) (netlink.Link, error) {
	if o.Interface != "" {
		l, err := k.nl.LinkByName(o.Interface)
		if err != nil {
			return nil, fmt.Errorf("spec.gateway.interface is %s: %w; this machine has %s", o.Interface, err, k.candidates())
		}
		return l, nil
	}
	ls, err := dump.Whole(k.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, ip := range o.NodeIPs {
		for _, l := range ls {
			if as, err := k.addresses(l); err == nil && (Gateway{Addresses: as}).has(ip) {
				return l, nil
			}
		}
	}
	return k.defaultLink()
}

// candidates lists what a NIC could be called.
func (k *Kernel) candidates() string {
	ls, err := dump.Whole(k.nl.LinkList)
	if err != nil {
		return "links that cannot be listed: " + err.Error()
	}
	var names []string
	for _, l := range ls {
		if l.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	return strings.Join(names, ", ")
}

func (k *Kernel) bridgeHas(g Gateway) bool {
	l, err := k.nl.LinkByName(g.Bridge)
	if err != nil {
		return false
	}
	as, err := k.addresses(l)
	return err == nil && slices.ContainsFunc(as, func(p netip.Prefix) bool { return g.has(p.Addr()) })
}

// defaultLink is the link of the default route with the smallest metric, IPv4 first.
func (k *Kernel) defaultLink() (netlink.Link, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rs, err := dump.Whole(func() ([]netlink.Route, error) {
			return k.nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		best := -1
		for i, r := range rs {
			if dst, ok := prefixOf(r.Dst); ok && dst.Bits() > 0 || r.LinkIndex == 0 || r.Gw == nil {
				continue
			}
			if best < 0 || r.Priority < rs[best].Priority {
				best = i
			}
		}
		if best >= 0 {
			return k.nl.LinkByIndex(rs[best].LinkIndex)
		}
	}
	return nil, ErrNoGateway
}

// describe reads what a link has.
func (k *Kernel) describe(l netlink.Link) (Gateway, error) {
	a := l.Attrs()
	g := Gateway{NIC: a.Name, MAC: a.HardwareAddr.String(), MTU: a.MTU, Virtual: l.Type() == "veth"}
	var err error
	if g.Addresses, err = k.addresses(l); err != nil {
		return g, fmt.Errorf("link %s: list addresses: %w", a.Name, err)
	}
	filter := &netlink.Route{LinkIndex: a.Index, Table: unix.RT_TABLE_UNSPEC}
	rs, err := dump.Whole(func() ([]netlink.Route, error) {
		return k.nl.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return g, fmt.Errorf("link %s: list routes: %w", a.Name, err)
	}
	names := map[int]string{a.Index: a.Name}
	for _, r := range rs {
		// The kernel makes its own again when the addresses come.
		if r.Protocol != unix.RTPROT_KERNEL && r.Type == unix.RTN_UNICAST && r.Table != unix.RT_TABLE_LOCAL {
			g.Routes = append(g.Routes, NICRoute{routeOf(r, names), int(r.Protocol)})
		}
	}
	return g, nil
}
