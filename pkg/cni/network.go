package cni

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/alloc"
)

// Network is what the agent has to know of a logical network to attach pods to it.
type Network struct {
	Name      string
	MTU       int // of pods' interfaces, in bytes; 0: the kernel's default
	Addresses Addresses
	// Chain is what plugins of others do after ours, or alone where Addresses is nil. Where
	// Multus is the caller, Multus runs them.
	Chain Chain
	// Lease asks a plugin of others for the addresses; empty: Addresses gives them.
	Lease Chain
	// Resource that a device of it is needed for, by the definition; "": none.
	Resource string
	Device   string // by the pod's annotation or the definition; "": none is named
	Offload  string // of networks of ours: multus.OffloadRequire and so on; "": prefer
}

// Wish is one interface that a pod is to have.
type Wish struct {
	Pod Pod
	// Key is "default", or of whom the pod's annotation speaks: the definition's
	// "namespace/name", from the second attachment of one definition on with "/index".
	Key    string
	IfName string // "": as the runtime names it
	// Network that the definition is of, where that is known.
	Network string

	IPs       []netip.Prefix // asked for; of a bare address a prefix of its whole length
	MAC       net.HardwareAddr
	Bandwidth Bandwidth // of the interface, by OVN; zero: no limit
	Claim     string    // the IPAMClaim that holds the addresses beyond the pod, in its namespace
	// DefaultRoute is through this interface; Gateways, where they are not the network's.
	DefaultRoute bool
	Gateways     []netip.Addr
	// Elsewhere: the pod's default route is through another interface than this, the
	// default network's.
	Elsewhere bool
	// Encap is the Choice's: the tunnel address that the interface's packets leave and come
	// by; zero: the node's first. Networks whose ports other zones know tell it to them.
	Encap netip.Addr
}

// Bandwidth limits an interface, in bits a second and bits; a rate of 0 is no limit, a
// burst of 0 leaves it to who carries it out. Ingress is towards the pod.
type Bandwidth struct {
	IngressRate, IngressBurst, EgressRate, EgressBurst int64
}

// Owner is by what allocators know an interface: the pod's UID, and on a network
// that is not the default one its key.
func (w Wish) Owner() string { return ownerOf(w.Pod.UID, w.Key) }

// Definition is the wish's definition, "namespace/name".
func (w Wish) Definition() string { return definitionOf(w.Key) }

// DefinitionNamespace is where the definition is.
func (w Wish) DefinitionNamespace() string {
	space, _, _ := strings.Cut(w.Key, "/")
	return space
}

func ownerOf(uid, key string) string {
	if key == defaultNetwork {
		return uid
	}
	return uid + " " + key
}

// definitionOf is a key without its index.
func definitionOf(key string) string {
	if parts := strings.SplitN(key, "/", 3); len(parts) == 3 {
		return parts[0] + "/" + parts[1]
	}
	return key
}

// indexOf is a key's index.
func indexOf(key string) int {
	if parts := strings.SplitN(key, "/", 3); len(parts) == 3 {
		n, _ := strconv.Atoi(parts[2])
		return n
	}
	return 0
}

// KeyOf is the key of a definition's attachment, by its index from 0.
func KeyOf(definition string, index int) string {
	if index == 0 {
		return definition
	}
	return definition + "/" + strconv.Itoa(index)
}

// Grant is what an interface has been given on its network.
type Grant struct {
	Addresses []netip.Prefix // with the subnet's length; none where the network gives none
	MAC       net.HardwareAddr
	Gateways  []netip.Addr // of the default route; none: it has no default route
	Routes    []Route      // others
	TunnelKey int          // of the logical port; 0: none is asked for
	Encap     netip.Addr   // the wish's
}

// Route is one route of a pod's interface.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
	// Metric tells the routes of several interfaces on one network apart: the first has 0.
	Metric int
}

// Addresses are a network's, given to interfaces. What is given must be safe from
// others before Give returns.
type Addresses interface {
	// Give returns what an interface has, or gives it something.
	Give(ctx context.Context, w Wish) (Grant, error)
	// Keep takes up, after a restart, what was given before. Its error says why that
	// cannot be; nothing is changed then.
	Keep(w Wish, given []netip.Prefix) (Grant, error)
	// Free puts an interface's addresses to rest; false when it had none.
	Free(owner string) bool
	// Owners lists whose addresses are given on this node.
	Owners() []string
}

// Networks knows the networks beside the default one.
type Networks interface {
	// Plan lists what a pod's annotations ask for, in their order; first the default
	// network, if they ask something of it.
	Plan(p Pod) ([]Wish, error)
	// Attach returns the network, of the default one nothing, that a wish's definition is of, if the pod may join
	// it. Its error is a *PendingError while that is not known yet.
	Attach(w Wish) (Network, error)
	// Named returns a network by its name.
	Named(name string) (Network, bool)
	// All lists the networks that this node has given addresses of.
	All() []Network
	// Changed is closed when another answer may be given.
	Changed() <-chan struct{}
}

// PendingError says what is not there yet, and may come.
type PendingError struct{ Reason string }

// Error is the reason.
func (e *PendingError) Error() string { return e.Reason }

// None is Networks where there is but the default one.
type none struct{}

func (none) Plan(Pod) ([]Wish, error) { return nil, nil }
func (none) Attach(w Wish) (Network, error) {
	return Network{}, fmt.Errorf("definition %s: this node serves the default network alone", w.Key)
}
func (none) Named(string) (Network, bool) { return Network{}, false }
func (none) All() []Network               { return nil }
func (none) Changed() <-chan struct{}     { return nil }

// PoolAddresses are those of a node's own subnets, which nobody else gives: memory is
// enough, with the record of the port behind it.
type PoolAddresses struct {
	Pool *alloc.Pool
	// Routes that interfaces get through the subnet's gateway; nil: the default route.
	Routes []netip.Prefix
	// Cluster is what to reach through the gateway when the default route is elsewhere.
	Cluster []netip.Prefix
}

// Give implements Addresses.
func (p PoolAddresses) Give(_ context.Context, w Wish) (Grant, error) {
	given, err := p.Pool.AllocateOf(w.Owner(), w.IPs)
	if err != nil {
		return Grant{}, err
	}
	return p.grant(w, given), nil
}

// Keep implements Addresses.
func (p PoolAddresses) Keep(w Wish, given []netip.Prefix) (Grant, error) {
	if err := p.Pool.Reserve(w.Owner(), given); err != nil {
		return Grant{}, err
	}
	return p.grant(w, p.Pool.Lookup(w.Owner())), nil
}

// Free implements Addresses.
func (p PoolAddresses) Free(owner string) bool { return p.Pool.Release(owner) }

// Owners implements Addresses.
func (p PoolAddresses) Owners() []string { return p.Pool.Owners() }

func (p PoolAddresses) grant(w Wish, given []netip.Prefix) Grant {
	g := Grant{Addresses: given}
	var gateways []netip.Addr
	for _, a := range given {
		gateways = append(gateways, alloc.Gateway(a))
	}
	if w.Elsewhere {
		return g.finish(w, gateways, append([]netip.Prefix{}, p.Cluster...))
	}
	return g.finish(w, gateways, p.Routes)
}

// finish gives a grant its MAC and its routes: the default route through the gateways
// where there is nothing else to reach, or it was asked for; else the routes.
func (g Grant) finish(w Wish, gateways []netip.Addr, routes []netip.Prefix) Grant {
	g.MAC, g.Encap = macOf(w, g.Addresses), w.Encap
	if routes == nil || w.DefaultRoute {
		g.Gateways = gateways
	}
	if len(w.Gateways) > 0 {
		g.Gateways = w.Gateways
	}
	for _, r := range routes {
		if i := slices.IndexFunc(gateways, func(a netip.Addr) bool { return a.Is4() == r.Addr().Is4() }); i >= 0 {
			g.Routes = append(g.Routes, Route{r, gateways[i], indexOf(w.Key)})
		}
	}
	return g
}

// Finish is the grant of addresses on a network with these gateways and routes.
func Finish(w Wish, g Grant, gateways []netip.Addr, routes []netip.Prefix) Grant {
	return g.finish(w, gateways, routes)
}

// macOf is an interface's MAC: asked for, or of its address, or of its name.
func macOf(w Wish, addresses []netip.Prefix) net.HardwareAddr {
	if w.MAC != nil {
		return w.MAC
	}
	if mac := alloc.MACOf(addresses); mac != nil {
		return mac
	}
	sum := sha256.Sum256([]byte(w.Pod.UID + "/" + w.Key))
	return append(net.HardwareAddr{0x0a, 0x58}, sum[:4]...)
}

// settle waits until the network of a wish is known, and says once a call for what.
func (a *Agent) settle(ctx context.Context, t *trace, w Wish) (Network, error) {
	told := ""
	for {
		changed := a.config.Networks.Changed() // before asking, so that nothing is missed
		n, err := a.config.Networks.Attach(w)
		reason := ""
		if err != nil {
			reason = err.Error()
		}
		if reason != told || err == nil {
			told = reason
			a.tell(w.Pod, told)
		}
		pending, waits := errors.AsType[*PendingError](err)
		if !waits {
			return n, err
		}
		if err := t.enter(ctx, StageWaitNetwork); err != nil {
			return Network{}, fmt.Errorf("%w: %w", pending, err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Network{}, fmt.Errorf("%w: %w", pending, context.Cause(ctx))
		}
	}
}

// tell says of a pod what is not the last thing that was said.
func (a *Agent) tell(p Pod, message string) {
	a.mu.Lock()
	news := a.told[p.UID] != message
	if a.told[p.UID] = message; message == "" {
		delete(a.told, p.UID)
	}
	a.mu.Unlock()
	if news && a.config.Tell != nil {
		a.config.Tell(p, message)
	}
}
