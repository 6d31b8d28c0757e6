// Package doctor answers: can this machine be a node, and what is to be changed
// first? It looks and changes nothing.
//
//	/proc, /etc, links, OVS's database ──> checks ──> []Check{OK | Warn | Fail, found, do}
//
// What the agent itself would refuse is asked of the agent's own code (package
// host), so doctor and agent cannot disagree; the rest are conditions that the
// agent does not see, or sees too late: ports that are taken, port ranges that
// overlap, another plugin's configuration.
package doctor

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// State is how bad a finding is.
type State string

// The states. Portolan does not work where something fails; where there is a
// warning it works, or may, at a cost that is named.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
)

// Check is one thing that was looked at.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // empty when there is nothing to do
}

// Plan is what the cluster's configuration asks of a node; the zero Plan is the
// defaults.
type Plan struct {
	APIServer         string // host:port; "": not known
	APIServerInside   bool   // it is an address of the Services' prefixes
	Interface, Bridge string // of the gateway; "": found; br-ex
	Takeover          bool
	Datapath          intent.Datapath // "": chosen
	MTU               int             // of pods; 0: the NIC's less Geneve
	ExternalPorts     [2]int          // of SNAT; zero: not limited
	NodePorts         [2]int          // of Services
	GlobalZone        bool
	Databases         bool // this node serves a global zone's databases
	IPv6              bool
}

// Machine is what is looked at.
type Machine struct {
	Root   string // the machine's file system: "/", or /proc/1/root from a pod in the host's process namespace
	Proc   string // "/proc"
	NodeIP netip.Addr
	Kernel Kernel
	// BridgeNIC is host.Options.BridgeNIC; nil: there is no OVS to ask.
	BridgeNIC func(bridge string) (string, intent.Datapath)
	// Links lists the machine's network devices by name.
	Links func() ([]string, error)
	// Dial tries to reach the API server; nil: it is not tried.
	Dial func(ctx context.Context, address string) error
	// InPod: what runs is a container of Portolan's image, which must have the tools.
	InPod bool
	// Version is what a program answers to --version.
	Version func(path string) (string, error)
	// Tool looks a program up; Chains lists nftables chains by name.
	Tool   func(name string) error
	Chains func(ctx context.Context) ([]string, error)
}

// Kernel is what the agent would find: *host.Kernel.
type Kernel interface {
	Discover(o host.Options) (host.Gateway, error)
	DetectDatapath() (intent.Datapath, string, error)
}

// Run looks at everything, in the order in which a person would act on it.
func Run(ctx context.Context, m Machine, p Plan) []Check {
	gateway, nic := m.nic(p)
	checks := []Check{m.privilege(), m.kernelVersion(), m.datapath(p), nic}
	if gateway.NIC != "" {
		checks = append(checks, mtu(gateway, p))
	}
	checks = append(checks, m.ports(p)...)
	checks = append(checks, m.portRanges(p), m.apiServer(ctx, p), m.runtime(), m.confDir())
	checks = append(checks, m.leftovers(ctx)...)
	checks = append(checks, m.tools(), m.sysctls(p), clock())
	return checks
}

// Failed reports whether any check failed.
func Failed(checks []Check) bool {
	for _, c := range checks {
		if c.State == Fail {
			return true
		}
	}
	return false
}

func (m Machine) path(name string) string { return filepath.Join(m.Root, name) }

// Links lists the network devices of this process's network namespace.
func Links() ([]string, error) {
	all, err := net.Interfaces()
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	return names, err
}
