// Package zone answers: where are the databases of a global zone, and how does a
// process prove to them who it is? Its input is the Cluster file and a directory
// with a certificate, its key and an authority; its output is what daemons, tools
// and our own connections are told. It opens nothing but those three files.
//
//	spec.databases ──> Databases ─┬─ Endpoint: clients     ssl:172.18.0.3:6641,ssl:…
//	                              ├─ Listen:   servers     pssl:6641:172.18.0.3
//	                              └─ Raft:     each other  ssl:172.18.0.3:6643
package zone

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// The ports are those of ovn-ctl, which tools and firewalls know.
const (
	nbPort, sbPort         = 6641, 6642
	nbRaftPort, sbRaftPort = 6643, 6644
)

// Databases says where the databases of a global zone are served.
type Databases struct {
	Servers  []netip.Addr // in the order of the Cluster file: the first founds a cluster
	Insecure bool         // plain TCP instead of TLS
}

// Parse reads the places from the plan. A plan whose zone is not "global" has none,
// and must not name any.
func Parse(spec v1alpha1.ClusterSpec) (Databases, error) {
	d := Databases{Insecure: spec.InsecureDatabases}
	if spec.Zone != "global" {
		if len(spec.Databases) > 0 {
			return d, fmt.Errorf(`spec.databases: %q are named, but spec.zone is not "global": each node has its own databases; remove one or the other`, spec.Databases)
		}
		return d, nil
	}
	for _, s := range spec.Databases {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return d, fmt.Errorf("spec.databases: %q is not an IP address: give the addresses of the nodes that serve the databases", s)
		}
		if slices.Contains(d.Servers, a) {
			return d, fmt.Errorf("spec.databases: %s is named twice", a)
		}
		d.Servers = append(d.Servers, a)
	}
	if n := len(d.Servers); n != 1 && n != 3 && n != 5 {
		return d, fmt.Errorf(`spec.databases: %d addresses; spec.zone "global" needs one, or three or five, of which a majority must be up`, n)
	}
	return d, nil
}

// Clustered reports whether OVSDB's raft keeps several servers alike.
func (d Databases) Clustered() bool { return len(d.Servers) > 1 }

// Endpoint is what clients of a database are told: every server, comma-separated.
func (d Databases) Endpoint(db rows.DB) string {
	var all []string
	for _, s := range d.Servers {
		all = append(all, d.scheme()+":"+netip.AddrPortFrom(s, port(db)).String())
	}
	return strings.Join(all, ",")
}

// Listen is the --remote of the server at an address.
func (d Databases) Listen(db rows.DB, self netip.Addr) string {
	return fmt.Sprintf("p%s:%d:%s", d.scheme(), port(db), bracketed(self))
}

// Raft is the address at which a server is known to the others.
func (d Databases) Raft(db rows.DB, server netip.Addr) string {
	p := uint16(nbRaftPort)
	if db == rows.SB {
		p = sbRaftPort
	}
	return d.scheme() + ":" + netip.AddrPortFrom(server, p).String()
}

// Others are the servers but one.
func (d Databases) Others(self netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(d.Servers), func(a netip.Addr) bool { return a == self })
}

// At is the Databases of one server alone, to be asked by itself.
func (d Databases) At(server netip.Addr) Databases {
	return Databases{Servers: []netip.Addr{server}, Insecure: d.Insecure}
}

func (d Databases) scheme() string {
	if d.Insecure {
		return "tcp"
	}
	return "ssl"
}

func port(db rows.DB) uint16 {
	if db == rows.SB {
		return sbPort
	}
	return nbPort
}

// bracketed is an address as OVS takes it after a port.
func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}
