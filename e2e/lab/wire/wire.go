// Package wire makes the cables of a lab: network namespaces, two bridges in a
// namespace of their own, and the NICs of the nodes and of the client. The
// root namespace gets no address, no route and no device.
//
//	netns portolan-lan           br0 (gateway .1, routes nowhere)   br1 ──trunk── OVS
//	                              │n3-0      │n2-0     │client        │n3-1  │wire   │wire100 (tag 100)
//	netns portolan-<node>        eth0       eth0        │            eth1    │       │
//	netns portolan-client                              eth0                  │       │
//	netns portolan-wire, portolan-wire100                                   eth0    eth0
//
// br1 passes tagged frames as they are. The kernel has no VLAN devices, so who is in a
// VLAN is an access port of an Open vSwitch (package trunk).
package wire

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/site"
)

// Prefix begins the name of every network namespace of the lab.
func Prefix() string { return site.Base() + "-" }

// LAN is the namespace of the bridges; the lab's own calls to the API server
// leave from it.
func LAN() string { return Prefix() + "lan" }

// MTU of every NIC and bridge, in bytes.
const MTU = plan.MTU

// Namespace is the network namespace of a node or of "client".
func Namespace(host string) string { return Prefix() + host }

// Path is where a namespace is found.
func Path(namespace string) string { return filepath.Join("/run/netns", namespace) }

// Up makes the bridges and the client.
func Up(ctx context.Context, p plan.Plan) error {
	if err := addNamespace(ctx, LAN()); err != nil {
		return err
	}
	var b batch
	for _, bridge := range []string{"br0", "br1"} {
		b.add("link add %s type bridge", bridge)
		b.add("link set %s mtu %d up", bridge, MTU)
	}
	for _, g := range p.Gateways {
		b.addr("br0", g.String(), g.Addr().Is6())
	}
	if err := b.run(ctx, LAN()); err != nil {
		return err
	}
	if err := attach(ctx, nic{port: "client", bridge: "br0", host: p.Client.Name, name: "eth0", mac: p.Client.MAC}, p.Client.Addrs, p.Gateways); err != nil {
		return err
	}
	for _, w := range p.Wire {
		n := nic{port: w.Name, host: w.Name, name: "eth0", mac: w.MAC}
		if w.VLAN == 0 {
			n.bridge = "br1"
		}
		if err := attach(ctx, n, w.Addrs, nil); err != nil {
			return err
		}
	}
	return trunk(ctx)
}

// TrunkPort is the end of a cable to br1 that an Open vSwitch takes.
const TrunkPort = "trunk"

// trunk makes it. Neither the ends of its cables nor those of VLANs' hosts are the
// namespace's own: IPv6 is off there, so that it says nothing on the wire.
func trunk(ctx context.Context) error {
	var b batch
	b.add("link add %s mtu %d type veth peer name br1-%s mtu %d", TrunkPort, MTU, TrunkPort, MTU)
	b.add("link set br1-%s master br1 up", TrunkPort)
	if err := b.run(ctx, LAN()); err != nil {
		return err
	}
	for _, end := range []string{TrunkPort, "br1-" + TrunkPort} {
		if err := inside(ctx, LAN(), "ethtool", "-K", end, "tx", "off"); err != nil {
			return err
		}
	}
	return inside(ctx, LAN(), "sysctl", "-qwe", "net.ipv6.conf."+TrunkPort+".disable_ipv6=1")
}

// AttachNode makes a node's namespace anew, with its two NICs: what a node has
// when its kernel has started.
func AttachNode(ctx context.Context, p plan.Plan, n plan.Node) error {
	if err := DetachNode(ctx, n); err != nil {
		return err
	}
	if err := attach(ctx, nic{port: port(n, 0), bridge: "br0", host: n.Name, name: "eth0", mac: n.MAC}, n.Addrs, p.Gateways); err != nil {
		return err
	}
	ns := Namespace(n.Name)
	if err := plug(ctx, nic{port: port(n, 1), bridge: "br1", host: n.Name, name: "eth1", mac: n.LANMAC}); err != nil {
		return err
	}
	var b batch
	b.add("link set eth1 up")
	return b.run(ctx, ns)
}

// DetachNode removes a node's namespace and cables. The ports are deleted first:
// a namespace goes away in the background, and its veths with it.
func DetachNode(ctx context.Context, n plan.Node) error {
	for i := range 2 {
		if exists(ctx, LAN(), port(n, i)) {
			if err := proc.Run(ctx, "ip", "-n", LAN(), "link", "del", port(n, i)); err != nil {
				return err
			}
		}
	}
	return deleteNamespace(ctx, Namespace(n.Name))
}

// RoutePods adds static routes to the pods of other nodes: what the stand-in
// CNI has in place of tunnels.
func RoutePods(ctx context.Context, p plan.Plan, n plan.Node) error {
	var b batch
	for _, other := range p.Machines {
		for i, c := range other.PodCIDRs {
			if other.Name != n.Name {
				b.add("route replace %s via %s", c, other.IPs()[i])
			}
		}
	}
	return b.run(ctx, Namespace(n.Name))
}

// Down removes every namespace of the lab, whatever made it.
func Down(ctx context.Context) error {
	names, err := Namespaces()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, deleteNamespace(ctx, name))
	}
	return errors.Join(errs...)
}

// Namespaces lists the lab's network namespaces that exist.
func Namespaces() ([]string, error) {
	paths, err := filepath.Glob(Path(Prefix() + "*"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range paths {
		out = append(out, filepath.Base(p))
	}
	return out, nil
}

// nic is one cable from a bridge to a host; without a bridge it ends loose, and
// without IPv6.
type nic struct{ port, bridge, host, name, mac string }

// attach gives a host eth0 with addresses and the default routes, if any.
func attach(ctx context.Context, c nic, addrs, gateways []netip.Prefix) error {
	ns := Namespace(c.host)
	if err := addNamespace(ctx, ns); err != nil {
		return err
	}
	if err := plug(ctx, c); err != nil {
		return err
	}
	var b batch
	for _, a := range addrs {
		b.addr(c.name, a.String(), a.Addr().Is6())
	}
	b.add("link set %s up", c.name)
	for _, g := range gateways {
		b.add("route add default via %s", g.Addr())
	}
	return b.run(ctx, ns)
}

// plug makes the veth. Transmit offload is off at both ends, so that checksums
// are real on the wire: a userspace Open vSwitch reads packets as they are.
func plug(ctx context.Context, c nic) error {
	var b batch
	ns := Namespace(c.host)
	b.add("link add %s mtu %d type veth peer name %s address %s mtu %d netns %s", c.port, MTU, c.name, c.mac, MTU, ns)
	if c.bridge != "" {
		b.add("link set %s master %s up", c.port, c.bridge)
	}
	if err := b.run(ctx, LAN()); err != nil {
		return err
	}
	if err := inside(ctx, LAN(), "ethtool", "-K", c.port, "tx", "off"); err != nil {
		return err
	}
	if c.bridge == "" {
		if err := inside(ctx, LAN(), "sysctl", "-qwe", "net.ipv6.conf."+c.port+".disable_ipv6=1"); err != nil {
			return err
		}
	}
	return inside(ctx, ns, "ethtool", "-K", c.name, "tx", "off")
}

func port(n plan.Node, i int) string {
	return fmt.Sprintf("n%d-%d", n.Number, i)
}

func inside(ctx context.Context, ns string, argv ...string) error {
	return proc.Run(ctx, append([]string{"nsenter", "--net=" + Path(ns)}, argv...)...)
}

func exists(ctx context.Context, ns, link string) bool {
	return proc.Run(ctx, "ip", "-n", ns, "link", "show", link) == nil
}

func addNamespace(ctx context.Context, ns string) error {
	if err := proc.Run(ctx, "ip", "netns", "add", ns); err != nil {
		return err
	}
	// Nodes accept router advertisements, as a kernel does that nobody has told
	// otherwise: it is for the network under test to see to that.
	var sysctls []string
	switch ns {
	case Namespace("client"), Namespace("wire"), Namespace("wire100"):
		sysctls = []string{"net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0"}
	case LAN(): // its bridges must not pass frames through the machine's iptables
		sysctls = []string{"net.ipv6.conf.all.accept_ra=0", "net.ipv6.conf.default.accept_ra=0",
			"net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0", "net.bridge.bridge-nf-call-arptables=0"}
	}
	if len(sysctls) > 0 {
		if err := inside(ctx, ns, append([]string{"sysctl", "-qwe"}, sysctls...)...); err != nil {
			return err
		}
	}
	return proc.Run(ctx, "ip", "-n", ns, "link", "set", "lo", "up")
}

func deleteNamespace(ctx context.Context, ns string) error {
	if _, err := os.Stat(Path(ns)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return proc.Run(ctx, "ip", "netns", "del", ns)
}

// batch is a list of ip commands for one call of ip: a call each would cost
// more than the work.
type batch struct{ lines []string }

func (b *batch) add(format string, args ...any) {
	b.lines = append(b.lines, fmt.Sprintf(format, args...))
}

// addr adds an address; IPv6 without duplicate detection, which takes a second.
func (b *batch) addr(link, addr string, v6 bool) {
	if v6 {
		addr += " nodad"
	}
	dev := "addr add " + addr + " dev " + link
	if !v6 {
		dev = "addr add " + addr + " broadcast + dev " + link
	}
	b.lines = append(b.lines, dev)
}

func (b *batch) run(ctx context.Context, ns string) error {
	if len(b.lines) == 0 {
		return nil
	}
	text := strings.Join(b.lines, "\n") + "\n"
	_, err := proc.Cmd{Argv: []string{"ip", "-n", ns, "-batch", "-"}, Stdin: strings.NewReader(text)}.Output(ctx)
	if err != nil {
		return fmt.Errorf("network of %s: %w\n%s", ns, err, text)
	}
	return nil
}
