package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

func (m Machine) privilege() Check {
	c := Check{Name: "privilege", State: OK, Found: "root"}
	if os.Geteuid() != 0 {
		c.State, c.Found, c.Do = Warn, "not root: some checks see less", "run as root"
	}
	return c
}

func (m Machine) kernelVersion() Check {
	c := Check{Name: "kernel", State: OK}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		c.State, c.Found = Warn, err.Error()
		return c
	}
	c.Found = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	return c
}

// datapath is the one that would be chosen, and why.
func (m Machine) datapath(p Plan) Check {
	c := Check{Name: "datapath", State: OK}
	found, why, err := m.Kernel.DetectDatapath()
	if err != nil {
		c.State, c.Found, c.Do = Fail, err.Error(), "run as root, on the node or in a privileged pod of its network"
		return c
	}
	switch chosen := p.Datapath; {
	case chosen == intent.SystemDatapath && found != intent.SystemDatapath:
		c.State, c.Found = Fail, "the configuration asks for the kernel's, but "+why
		c.Do = "modprobe openvswitch, now and at boot; or leave spec.datapath out"
	case chosen != "":
		c.Found = string(chosen) + ": the configuration says so"
	case found == intent.UserspaceDatapath:
		c.State, c.Found, c.Do = Warn, string(found)+": "+why, "modprobe openvswitch, now and at boot, for a faster one"
	default:
		c.Found = string(found) + ": " + why
	}
	return c
}

// nic asks the agent's own code which NIC it would take, and whether it would.
func (m Machine) nic(p Plan) (host.Gateway, Check) {
	c := Check{Name: "nic", State: OK}
	o := host.Options{Interface: p.Interface, Bridge: p.Bridge, Force: p.Takeover, RunDir: m.path("run"), BridgeNIC: m.BridgeNIC}
	if o.Bridge == "" {
		o.Bridge = "br-ex"
	}
	if m.NodeIP.IsValid() {
		o.NodeIPs = []netip.Addr{m.NodeIP}
	}
	g, err := m.Kernel.Discover(o)
	var refused *host.Refusal
	switch {
	case errors.As(err, &refused):
		c.State, c.Found = Fail, fmt.Sprintf("%s: %s", refused.NIC, refused.Reason)
		c.Do = refused.Hint
		if refused.File != "" {
			c.Do = fmt.Sprintf("write %s:\n%s%s", refused.File, refused.Text, refused.Hint)
		}
	case err != nil:
		c.State, c.Found = Fail, err.Error()
		c.Do = "give the NIC that the cluster reaches this node by, with its address: spec.gateway.interface"
	case g.Resumed:
		c.Found = fmt.Sprintf("%s, in bridge %s already, by an earlier run", g.NIC, g.Bridge)
	case g.Foreign != "":
		c.Found = fmt.Sprintf("%s, in bridge %s of others, which is used as it is", g.NIC, g.Bridge)
	default:
		c.Found = fmt.Sprintf("%s with %s", g.NIC, prefixes(g.Addresses))
		if len(g.NextHops()) == 0 {
			c.State, c.Do = Warn, "give it a default route, or pods reach nothing outside: spec.gateway.nextHops"
			c.Found += " and no default route"
		}
	}
	if err != nil {
		g.NIC = ""
	}
	return g, c
}

func prefixes(list []netip.Prefix) string {
	var out []string
	for _, p := range list {
		out = append(out, p.String())
	}
	return strings.Join(out, ", ")
}

// minMTU is the least that IPv6 needs, and more than anybody should give IPv4.
const minMTU = 1280

func mtu(g host.Gateway, p Plan) Check {
	var encap []netip.Addr
	if a, ok := g.PrimaryAddress(); ok {
		encap = append(encap, a.Addr())
	}
	pods := p.MTU
	if pods == 0 {
		pods = g.PodMTU(encap)
	}
	c := Check{Name: "mtu", State: OK, Found: fmt.Sprintf("NIC %s has %d, pods get %d", g.NIC, g.MTU, pods)}
	if problems := g.CheckMTU("", pods, encap); len(problems) > 0 {
		c.State, c.Found, c.Do = Fail, fmt.Sprintf("NIC %s has %d, pods are to get %d", g.NIC, g.MTU, pods), problems[0].Message
	} else if pods < minMTU {
		c.State, c.Do = Warn, fmt.Sprintf("raise the NIC's MTU to %d or more: IPv6 needs %d in pods", minMTU+host.GeneveOverhead(encap), minMTU)
	}
	return c
}

func (m Machine) apiServer(ctx context.Context, p Plan) Check {
	c := Check{Name: "api-server", State: OK}
	switch {
	case p.APIServer == "":
		c.State, c.Found = Warn, "its address is not known here"
		c.Do = "give the Cluster file with --config: it must name an address that works without the cluster network"
	case p.APIServerInside:
		c.State, c.Found = Fail, p.APIServer+" is an address of Services, which works only once the network does"
		c.Do = "name the API server by a node's address in spec.apiServer"
	case m.Dial == nil:
		c.Found = p.APIServer + ", not tried"
	default:
		c.Found = p.APIServer + " answers"
		if err := m.Dial(ctx, p.APIServer); err != nil {
			c.State, c.Found, c.Do = Fail, err.Error(), "the address in spec.apiServer must answer from every node"
		}
	}
	return c
}

// clock asks the kernel whether anything keeps its time: certificates of a node
// whose clock is off are refused.
func clock() Check {
	c := Check{Name: "clock", State: OK, Found: "kept by a time service"}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Check{Name: "clock", State: Warn, Found: "adjtimex: " + err.Error()}
	}
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		c.State, c.Found = Warn, "nothing synchronises it"
		c.Do = "run chrony or systemd-timesyncd: certificates are valid from and until a time"
	}
	return c
}
