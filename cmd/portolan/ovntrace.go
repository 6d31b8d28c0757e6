package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/reach"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/trace"
)

// tracing are the flags of ovn trace.
type tracing struct {
	reach         reach.Options
	out           output
	udp, icmp     bool
	six           bool
	detailed      bool
	sourcePort    int
	sourceAddress string
	network       string
}

func ovnCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ovn", Short: "Ask OVN, in all zones at once"}
	cmd.AddCommand(traceCommand())
	return cmd
}

func traceCommand() *cobra.Command {
	var t tracing
	cmd := &cobra.Command{
		Use:   "trace FROM TO [PORT]",
		Short: "Follow a packet through the logical network of all zones",
		Long: `Trace follows one packet of a new connection through the logical network, from
zone to zone, and says where it ends: delivered, or dropped by which object.

FROM and TO are NAMESPACE/POD, node/NAME, or (TO only) an address, which may be
written external:ADDRESS. PORT is 80 where it is left out. The exit status is 0 if
the packet is delivered, 1 if it is dropped, 2 if it cannot be told.

With --network it is a packet on another network than the default one: of that network's
name, or of a definition's (NAME in FROM's namespace, or NAMESPACE/NAME). Both pods must be
on it. A localnet is followed over its physical network as far as OVN knows it: to the port where it
leaves, and from there into the zone of the pod that it is for.

The logical network is what OVN would do. Whether the daemons have done it is
what "portolan status" says.`,
		Example: "  portolan ovn trace demo/east demo/west 8080\n  portolan ovn trace demo/east external:8.8.8.8 53 --udp\n" +
			"  portolan ovn trace node/worker demo/west --icmp\n  portolan ovn trace demo/east demo/west 8080 --network blue",
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error { return t.run(cmd.Context(), cmd.OutOrStdout(), args) },
	}
	f := cmd.Flags()
	t.reach.AddFlags(f)
	t.out.addFlag(f)
	f.BoolVar(&t.udp, "udp", false, "a UDP datagram instead of a TCP segment")
	f.BoolVar(&t.icmp, "icmp", false, "an ICMP echo request instead of a TCP segment")
	f.BoolVarP(&t.six, "ipv6", "6", false, "by IPv6 where both ends have both families")
	f.BoolVar(&t.detailed, "detailed", false, "print every logical flow, as ovn-trace does")
	f.IntVar(&t.sourcePort, "source-port", 40000, "the sender's `port`")
	f.StringVar(&t.network, "network", "", "the `network` that the packet is on: its name or a definition's; default: the pods' default one")
	f.StringVar(&t.sourceAddress, "source-address", "", "another source `address` than the sender's own, to see whether it is let pass")
	cmd.MarkFlagsMutuallyExclusive("udp", "icmp")
	return cmd
}

func (t tracing) run(ctx context.Context, out io.Writer, args []string) error {
	r, err := reach.Open(t.reach)
	if err != nil {
		return unknown(err)
	}
	from, to, err := t.ends(ctx, r, args[0], args[1])
	if err != nil {
		return unknown(err)
	}
	port := 80
	if len(args) == 3 {
		if port, err = strconv.Atoi(args[2]); err != nil {
			return unknown(fmt.Errorf("port %q: wanted a number", args[2]))
		}
	}
	p, err := t.packet(from, to, port)
	if err != nil {
		return unknown(err)
	}
	path, err := trace.Follow(ctx, startOf(from, to, p), func(ctx context.Context, node string, p trace.Packet) (trace.Zone, error) {
		return walk(ctx, r, node, p)
	})
	if err != nil {
		return unknown(err)
	}
	path.From, path.To, path.Network = from.name, to.name, from.on.name
	if err := t.out.print(out, path, func(w io.Writer) { printPath(w, path, t.detailed) }); err != nil {
		return unknown(err)
	}
	if code := path.Verdict.ExitCode(); code != 0 {
		return exitCode(code)
	}
	return nil
}

// unknownError ends the program with 2: dropped, which is 1, would be a verdict.
type unknownError struct{ error }

func unknown(err error) error { return unknownError{err} }

// walk asks who has the databases of a node's zone to walk it: the zone's controller
// that writes, or where each node is a zone the node's agent.
func walk(ctx context.Context, r *reach.Reach, node string, p trace.Packet) (trace.Zone, error) {
	var z trace.Zone
	a, err := r.On(ctx, node)
	if writer, bad := writing(ctx, r); bad != nil {
		err = bad
	} else if len(writer) > 0 {
		a, err = writer[0], nil
	}
	if err != nil {
		return z, err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return z, err
	}
	body, err := inspect.NewClient(a.Transport).Get(ctx, trace.Endpoint, url.Values{"packet": {string(text)}})
	if err != nil {
		return z, err
	}
	defer body.Close()
	return z, json.NewDecoder(body).Decode(&z)
}

// end is one end of a traced packet.
type end struct {
	name      string
	node      string // "" outside the cluster
	port      string // logical port; "" for what has none in the logical network
	mac       string
	addresses []netip.Addr
	gateway   string // MAC of the switch's router port
	on        medium // the network; zero: the default one
}

// ends turns arguments into the ends of a packet.
func (t tracing) ends(ctx context.Context, r *reach.Reach, from, to string) (a, b end, err error) {
	find := func(arg string) (end, error) { return t.find(ctx, r, arg) }
	if t.network != "" {
		m, err := mediumOf(ctx, r, t.network, from)
		if err != nil {
			return a, b, err
		}
		find = func(arg string) (end, error) { return m.find(ctx, r, arg) }
	}
	if a, err = find(from); err != nil {
		return a, b, err
	}
	b, err = find(to)
	return a, b, err
}

// find turns an argument into an end.
func (t tracing) find(ctx context.Context, r *reach.Reach, arg string) (end, error) {
	if ip, err := netip.ParseAddr(strings.Trim(strings.TrimPrefix(arg, "external:"), "[]")); err == nil {
		return end{name: ip.String(), addresses: []netip.Addr{ip}}, nil
	}
	namespace, name, ok := strings.Cut(arg, "/")
	switch {
	case !ok || name == "":
		return end{}, fmt.Errorf("%q: wanted NAMESPACE/POD, node/NAME or an address", arg)
	case strings.EqualFold(namespace, "node"):
		return findNode(ctx, r, name)
	}
	pod, err := r.Pod(ctx, namespace, name)
	if err != nil {
		return end{}, err
	}
	att, ok := pod.Attachment(intent.DefaultNetwork)
	if !ok || len(att.Addresses) == 0 {
		return end{}, fmt.Errorf("pod %s has no address yet: portolan status --node %s says whether its node can give one", arg, pod.Node)
	}
	e := end{name: pod.Key().String(), node: pod.Node, port: rows.PodPort(namespace, name), mac: att.MAC}
	for _, a := range att.Addresses {
		e.addresses = append(e.addresses, a.Addr())
	}
	if len(att.Gateways) > 0 {
		e.gateway = rows.MAC(att.Gateways[0])
	}
	return e, nil
}

// findNode is a node as a sender, by its management port, or as a target, by its own
// address.
func findNode(ctx context.Context, r *reach.Reach, name string) (end, error) {
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return end{}, err
	}
	for _, n := range nodes {
		if n.Name != name {
			continue
		}
		if len(n.Subnets) == 0 {
			return end{}, fmt.Errorf("node %s has no subnet yet: portolan-manager's log says why", name)
		}
		e := end{name: n.Key().String(), node: name, port: rows.MgmtLSP(name), mac: n.MgmtMAC}
		for i, s := range n.Subnets {
			gateway, _ := rows.Nth(s, 1)
			if i == 0 {
				e.gateway = rows.MAC(gateway.Addr())
			}
			for _, a := range n.Gateway.Addresses {
				if a.Addr().Is4() == s.Addr().Is4() {
					e.addresses = append(e.addresses, a.Addr())
				}
			}
			mgmt, _ := rows.Nth(s, 2)
			if e.mac == "" {
				e.mac = rows.MAC(mgmt.Addr())
			}
			e.addresses = append(e.addresses, mgmt.Addr())
		}
		return e, nil
	}
	return end{}, fmt.Errorf("the cluster has no node %s", name)
}

// packet is what from sends to to.
func (t tracing) packet(from, to end, port int) (trace.Packet, error) {
	if from.port == "" {
		return trace.Packet{}, errors.New("a packet from outside the cluster enters by a node: trace from node/NAME")
	}
	p := trace.Packet{
		Datapath: from.node, Inport: from.port, EthSrc: from.mac, EthDst: from.gateway,
		Protocol: "tcp", SrcPort: t.sourcePort, DstPort: port, TTL: 64,
	}
	switch {
	case t.udp:
		p.Protocol = "udp"
	case t.icmp:
		p.Protocol, p.SrcPort, p.DstPort = "icmp", 0, 0
	}
	if from.on.name != "" {
		p.Datapath, p.EthDst = from.on.datapath(from.node), from.on.nextHop(from, to)
	}
	sources := from.addresses
	if from.port == rows.MgmtLSP(from.node) {
		sources = managed(sources)
	}
	var found bool
	if p.Src, p.Dst, found = pair(sources, to.addresses, t.six); !found {
		return p, fmt.Errorf("%s and %s have no address family in common", from.name, to.name)
	}
	if from.on.name == "" && from.node == to.node && to.port != "" && to.port != rows.MgmtLSP(to.node) {
		p.EthDst = to.mac // one switch
	}
	if t.sourceAddress != "" {
		var err error
		if p.Src, err = netip.ParseAddr(t.sourceAddress); err != nil {
			return p, fmt.Errorf("--source-address: %w", err)
		}
	}
	return p, p.Validate()
}

// managed are the last address of each family: those of the management port, by which
// a node sends to pods.
func managed(addresses []netip.Addr) []netip.Addr {
	var four, six netip.Addr
	for _, a := range addresses {
		if a.Is4() {
			four = a
		} else {
			six = a
		}
	}
	var out []netip.Addr
	for _, a := range []netip.Addr{four, six} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// pair chooses an address of each end, of one family: the sender's first that has a
// partner, or IPv6 if six.
func pair(from, to []netip.Addr, six bool) (src, dst netip.Addr, ok bool) {
	for _, a := range from {
		for _, b := range to {
			if a.Is4() != b.Is4() || ok && !(six && src.Is4() && a.Is6()) {
				continue
			}
			src, dst, ok = a, b, true
		}
	}
	return src, dst, ok
}
