package host

import (
	"net/netip"
	"slices"
)

// Protocol marks our routes and rules in the kernel (rtm_protocol, FRA_PROTOCOL);
// numbers from 5 up are for user space, and this one is in nobody's list.
const Protocol = 85

// Config is all that Set looks after. The zero Config declares nothing, so
// setting it removes everything that an earlier Set made.
type Config struct {
	Links   []Link
	Routes  []Route
	Rules   []Rule
	Sysctls []Sysctl
	Hidden  []Hidden
	// HideAttachments hides the devices of intent.AttachmentGroup, as Hidden does NICs.
	HideAttachments bool
	// RefuseAdvertisements drops router advertisements that come from the devices of
	// intent.AttachmentGroup, where something in the kernel forwards for them.
	RefuseAdvertisements bool
}

// plus is two declarations as one.
func (c Config) plus(d Config) Config {
	c.Links = slices.Concat(c.Links, d.Links)
	c.Sysctls = slices.Concat(c.Sysctls, d.Sysctls)
	c.Hidden = slices.Concat(c.Hidden, d.Hidden)
	c.Routes = slices.Concat(c.Routes, d.Routes)
	c.Rules = slices.Concat(c.Rules, d.Rules)
	c.HideAttachments = c.HideAttachments || d.HideAttachments
	c.RefuseAdvertisements = c.RefuseAdvertisements || d.RefuseAdvertisements
	return c
}

// Hidden is a NIC whose packets the kernel's own stack must not see, because
// vswitchd reads them too (userspace datapath): without this both answer. It is
// hidden while Bridge is there to take them; it stays hidden when that goes.
type Hidden struct {
	NIC    string
	Bridge string // "": it is hidden always, for the node has nothing on it
}

// Link is a network device that somebody else makes; it is brought up. While it
// is missing, what is declared on it waits.
type Link struct {
	Name string
	MAC  string // lower case with colons; "": as it is
	MTU  int    // in bytes; 0: as it is
	// Addresses that it must have. An address is on one declared link only: from
	// any other it is taken away, once this one has it.
	Addresses []netip.Prefix
	// TxChecksumOff turns off transmit checksum offload, which a virtual device
	// leaves undone and the userspace datapath does not do for it.
	TxChecksumOff bool
	// GiveBack takes a link down again that was down, when it is not declared any more.
	GiveBack bool
}

// Route is a unicast route with one next hop.
type Route struct {
	Dst     netip.Prefix
	Link    string
	Gateway netip.Addr // zero: on the link
	Source  netip.Addr // preferred source; zero: the kernel's choice
	Table   int        // 0: main
	Metric  int        // 0: the kernel's default
	OnLink  bool       // the gateway is on the link though no address says so
	MTU     int        // of the path, in bytes; 0: the link's
}

// Rule sends packets to a routing table.
type Rule struct {
	Priority int
	From, To netip.Prefix // zero: any; at least one gives the family, else IPv4
	Mark     uint32       // 0: any
	Table    int
}

// Sysctl is one kernel parameter, by its path under /proc/sys (not dots: an
// interface's name may have them). One whose file is missing is left.
type Sysctl struct {
	Path  string
	Value string
}

// Report tells what a Set found and did.
type Report struct {
	Changes int      // writes to the kernel; 0: it was as declared
	Missing []string // declared links that do not exist, sorted
}

// link returns a declared link.
func (c Config) link(name string) (Link, bool) {
	for _, l := range c.Links {
		if l.Name == name {
			return l, true
		}
	}
	return Link{}, false
}
