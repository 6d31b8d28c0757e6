package host

import (
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// gatewayFile holds what the NIC had before it was taken over.
const gatewayFile = "gateway.json"

// Gateway is how the node reaches the world: the NIC, and the bridge that takes
// its place.
type Gateway struct {
	NIC    string `json:"nic"`
	Bridge string `json:"bridge"`
	// Foreign is the datapath of a bridge that had the addresses before us: it and
	// its NIC are used and not changed, and br-int must have the same datapath. ""
	// means that the bridge is, or will be, ours.
	Foreign   intent.Datapath `json:"-"`
	Resumed   bool            `json:"-"`       // taken over by an earlier run
	Virtual   bool            `json:"virtual"` // the NIC is a veth: nothing finishes its checksums
	MAC       string          `json:"mac"`     // lower case with colons
	MTU       int             `json:"mtu"`     // of the NIC, in bytes
	Addresses []netip.Prefix  `json:"addresses"`
	Routes    []NICRoute      `json:"routes"`
}

// NICRoute is a route through the NIC with the protocol number it had.
type NICRoute struct {
	Route
	Protocol int `json:"protocol"`
}

// NextHops are the default gateways, the best of each family.
func (g Gateway) NextHops() []netip.Addr {
	var hops []netip.Addr
	for _, want4 := range []bool{true, false} {
		best, found := Route{}, false
		for _, r := range g.Routes {
			if r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == want4 && r.Gateway.IsValid() && (!found || r.Metric < best.Metric) {
				best, found = r.Route, true
			}
		}
		if found {
			hops = append(hops, best.Gateway)
		}
	}
	return hops
}

// PrimaryAddress is the address for the node's tunnels: the one that nodeIPs
// names, else the first.
func (g Gateway) PrimaryAddress(nodeIPs ...netip.Addr) (netip.Prefix, bool) {
	for _, ip := range nodeIPs {
		for _, a := range g.Addresses {
			if a.Addr() == ip {
				return a, true
			}
		}
	}
	if len(g.Addresses) == 0 {
		return netip.Prefix{}, false
	}
	return g.Addresses[0], true
}

// SaveGateway records what the NIC has, durably. It must be called before the
// bridge is written to OVSDB and before the first Set that moves anything.
func (k *Kernel) SaveGateway(g Gateway) error {
	if g.Foreign != "" {
		return nil
	}
	return writeJSON(filepath.Join(k.record.dir, gatewayFile), g)
}

// loadGateway returns what SaveGateway recorded.
func (k *Kernel) loadGateway() (g Gateway, found bool, err error) {
	found, err = readJSON(filepath.Join(k.record.dir, gatewayFile), &g)
	return g, found, err
}

// Management is the node's own port in the pod network.
type Management struct {
	Subnets    []netip.Prefix // the node's, one per family: .1 is the router, .2 is the host
	PodSubnets []netip.Prefix // the cluster's
	MTU        int            // of pods, in bytes

	// Representor of the device that is the port; "": it is Open vSwitch's own, which gives it
	// its MAC.
	Representor string
	MAC         string // that the device gets
	Virtual     bool   // as in ManagementDevice
}

// Managed are the node's subnets as an earlier run set the management port up for
// them; none on a new node. Until the API server has said which they are, what is
// there stays: taken away and given back, it would cost the node's own packets.
func (k *Kernel) Managed() ([]netip.Prefix, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.record.load(); err != nil {
		return nil, err
	}
	var subnets []netip.Prefix
	for _, a := range k.record.now.Addresses {
		if a.Link == intent.ManagementPort {
			subnets = append(subnets, a.Prefix.Masked())
		}
	}
	return subnets, nil
}

// Declare is the host's desired state: the gateway bridge in the NIC's place,
// and the management port once the node has a subnet.
func Declare(g Gateway, m Management, dp intent.Datapath) Config {
	c := Config{HideAttachments: dp == intent.UserspaceDatapath, RefuseAdvertisements: dp == intent.SystemDatapath}
	if g.Foreign == "" {
		c.addGateway(g, dp)
	}
	if len(m.Subnets) > 0 {
		c.addManagement(m, dp == intent.UserspaceDatapath)
	}
	return c
}

func (c *Config) addGateway(g Gateway, dp intent.Datapath) {
	userspace := dp == intent.UserspaceDatapath
	c.Links = append(c.Links,
		Link{Name: g.NIC, TxChecksumOff: userspace && g.Virtual},
		Link{Name: g.Bridge, MAC: g.MAC, Addresses: g.Addresses})
	for _, r := range g.Routes {
		r.Link = g.Bridge
		c.Routes = append(c.Routes, r.Route)
	}
	c.Sysctls = append(c.Sysctls, linkSysctls(g.Bridge)...)
	if userspace {
		c.Hidden = append(c.Hidden, Hidden{g.NIC, g.Bridge})
	}
}

func (c *Config) addManagement(m Management, userspace bool) {
	mp := Link{Name: intent.ManagementPort, MTU: m.MTU}
	for _, s := range m.Subnets {
		router := s.Masked().Addr().Next()
		own := router.Next()
		mp.Addresses = append(mp.Addresses, netip.PrefixFrom(own, s.Bits()))
		for _, p := range m.PodSubnets {
			if p.Addr().Is4() == s.Addr().Is4() {
				c.Routes = append(c.Routes, Route{Dst: p, Link: mp.Name, Gateway: router, Source: own})
			}
		}
	}
	links, hidden := m.ports(mp, userspace)
	c.Links, c.Hidden = append(c.Links, links...), append(c.Hidden, hidden...)
	c.Sysctls = append(c.Sysctls, linkSysctls(mp.Name)...)
	// A pod's packet to its own node comes in here though the route back to other
	// nodes' pods may lead elsewhere: strict reverse path filtering would drop it.
	c.Sysctls = append(c.Sysctls, Sysctl{"net/ipv4/conf/" + mp.Name + "/rp_filter", "2"})
}

// linkSysctls let the host forward on a link and close it to router
// advertisements, which OVN's ACLs cannot drop (decision 31). Its addresses are this
// host's, so they are usable at once, the link-local one too: no duplicate address
// detection (decision 24).
func linkSysctls(link string) []Sysctl {
	return []Sysctl{
		{"net/ipv4/conf/" + link + "/forwarding", "1"},
		{"net/ipv6/conf/" + link + "/accept_ra", "0"},
		{"net/ipv6/conf/" + link + "/autoconf", "0"},
		{"net/ipv6/conf/" + link + "/accept_dad", "0"},
	}
}

// has reports whether the gateway has an address.
func (g Gateway) has(a netip.Addr) bool {
	return slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}
