// Package tour shows somebody new what a cluster with Portolan does. It asks a
// lab that is up and changes only what it makes itself: the namespace demo and
// the PhysicalNetwork wire, which it leaves to look at, and a static pod and a bare
// bridge, which it removes.
//
//	Run ── parts, in order ─┬─ guide.show   a command as typed, and what it prints
//	                        └─ guide.claim  a sentence, decided by package packets
//
// A claim about packets is never read off the text of a tool: it is measured again,
// by sockets in the places it is about. One that does not hold is an error of Run,
// and the tour goes on; a part without which the rest has no meaning ends it.
package tour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/plan"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// Config is where the tour takes place and where it is written.
type Config struct {
	Root   string // the checkout, with bin/lab and e2e/demo in it
	Out    io.Writer
	Colour bool
}

const (
	namespace = "demo"
	port      = 18081 // of the tour's own servers, in every place
	webPort   = 8080  // of the demo's pods
	patience  = 6 * time.Second
)

// part is one title of the tour.
type part struct {
	name, why string
	run       func(*guide, context.Context) error
	vital     bool // the parts that follow need it
}

// Run takes the whole tour. Its error says how many claims do not hold.
func Run(ctx context.Context, c Config) error {
	begin := time.Now()
	root, err := filepath.Abs(c.Root)
	if err != nil {
		return err
	}
	g := &guide{printer: printer{out: c.Out, colour: c.Colour}, root: root,
		client: packets.Place{Name: "client", Path: wire.Path(wire.Namespace("client")), Addr: netip.MustParseAddr("172.18.0.100")}}
	defer g.close()
	if err := g.layout(ctx); err != nil {
		return err
	}
	all := parts()
	if g.global() {
		all = inGlobal(all)
	}
	for _, p := range all {
		g.title(p.name, p.why)
		err := p.run(g, ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", ctx.Err())
		}
		if err != nil {
			g.gap()
			g.claim(equal(p.name, "shown to its end", "", err))
		}
		if err != nil && p.vital {
			break
		}
	}
	g.end(time.Since(begin))
	return g.tally.err()
}

// The parts that differ between the layouts of databases.
const (
	held    = "What OVN and Open vSwitch hold"
	between = "Packets between pods"
)

func parts() []part {
	return []part{
		{"The cluster", `Each machine is a set of namespaces with its own kubelet and containerd; one of them has the API
			server too. Portolan is their only network: no other plugin, and no kube-proxy.`, (*guide).cluster, true},
		{"Pods", `Four pods of one web server; kubelet asks each of them over HTTP whether it is ready and alive,
			so a pod that is Ready has had packets from its node through the management port ovn-k8s-mp0.`, (*guide).pods, true},
		{held, `Each node is a zone with databases of its own. Portolan writes what is meant
			(northbound), OVN's northd makes flows of it (southbound), and Open vSwitch's userspace datapath moves packets.`, (*guide).databases, false},
		{between, `Every router takes one off a packet's time to live. On one node there is a switch
			between two pods: 64 is left. Between nodes there is a router in each zone: 62, through a Geneve tunnel.`, (*guide).pings, false},
		{"What Portolan says of itself", `portolan asks the agent of each node: here through the API server's exec, on a node through
			a socket. What it says of packets is compared with packets.`, (*guide).sight, false},
		{"Who is seen", `A server sees the address from which it is asked: the outside sees the pod's node, pods see
			pods as they are. Each mark stands for 64 KiB sent over TCP and back, and compared.`, (*guide).sources, false},
		{"What kubelet does", `kubectl exec and logs go from the API server through the pod's kubelet, and all the while it has
			gone on probing: a pod that it could not reach would have been restarted.`, (*guide).kubelet, false},
		{"A static pod", `A file in a directory of the node, started by kubelet without the API server: it gets an
			address and a port like any other pod, and loses both when the file goes.`, (*guide).static, false},
		{"Many networks", `A user writes a NetworkAttachmentDefinition, a pod names it in its annotation and gets an interface, on any
			node. No other plugin is needed. Here a switch over all nodes (layer2), a routed network (layer3), and a VLAN of the
			second wire, whose bridge Portolan makes of eth1 (localnet).`, (*guide).networks, false},
		{"Devices", `A DevicePool offers functions of NICs by a resource name; a pod requests one, a definition names the resource, and
			the interface is that function. On this machine the pool is of kind soft: veth pairs that play function and
			representor, under the same manifests.`, (*guide).devices, false},
		{"A fault", `ovn-controller, which programs the node's flows, is killed while a thousand packets a second go
			through them: it finds its flows again, and nothing is lost. Beside it a bare bridge in the same Open vSwitch.`, (*guide).fault, false},
		{"Throughput", `One TCP stream on each path, as a ratio to what this machine's userspace datapath does without any
			network plugin: a bare Open vSwitch bridge with one NORMAL flow, between two namespaces with the pods' MTU, measured in
			turns with each path. Rates depend on the machine; ratios say what Portolan's routers and tunnels cost.
			(The node's own end of a path is a tap, the bridge's ends are veths: a ratio may be above 1.)`,
			(*guide).throughput, false},
	}
}

// guide is a tour under way.
type guide struct {
	printer
	root   string
	client packets.Place
	plan   plan.Plan // of the lab
	nodes  []machine
	all    []pod
	since  time.Time // the pods are Ready
	// Two pods of one node, and one of another: what most parts talk about.
	east, east2, west pod

	servers []*packets.Server
}

// show prints a command of the lab as one types it, runs it and prints what it says.
func (g *guide) show(ctx context.Context, args ...string) (string, error) {
	g.command("bin/lab " + typed(args))
	out, err := g.lab(ctx, args...)
	g.output(out)
	return out, err
}

// on is show for a program on a node.
func (g *guide) on(ctx context.Context, node string, argv ...string) (string, error) {
	return g.show(ctx, append([]string{"exec", node, "--"}, argv...)...)
}

// lab runs a command of the lab without showing it.
func (g *guide) lab(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return proc.Cmd{Argv: append([]string{filepath.Join(g.root, "bin/lab")}, args...), Dir: g.root}.Output(ctx)
}

// typed is how a shell must be given the arguments.
func typed(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; a == "" || strings.ContainsAny(a, " '\"|&;<>()$*?[]{}") {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

// serve answers in a place until the tour ends.
func (g *guide) serve(p packets.Place) error {
	s, err := packets.Serve(p, port)
	if err == nil {
		g.servers = append(g.servers, s)
	}
	return err
}

func (g *guide) close() {
	for _, s := range g.servers {
		s.Close()
	}
}

// machine finds a node by name.
func (g *guide) machine(name string) (machine, error) {
	for _, m := range g.nodes {
		if m.Name == name {
			return m, nil
		}
	}
	return machine{}, fmt.Errorf("there is no node %s in the lab", name)
}

// end says what it all came to, and where to go on.
func (g *guide) end(took time.Duration) {
	g.gap()
	verdict := fmt.Sprintf("%d claims, all hold", g.tally.held)
	kind := green
	if err := g.tally.err(); err != nil {
		verdict, kind = err.Error(), red
	}
	fmt.Fprintf(g.out, "%s  (%.0f s)\n", g.paint(kind, verdict), took.Seconds())
	for _, c := range g.tally.failed {
		fmt.Fprintf(g.out, "  %s %s\n", g.mark(c), c)
	}
	g.note("The cluster stays up with the pods of namespace demo in it. Look around:")
	zones := [2]string{"bin/lab nbctl --node ovn-worker2 show", "another zone"}
	if g.global() {
		zones = [2]string{"bin/lab nbctl show", "the whole zone"}
	}
	hints := [][2]string{
		{"bin/lab kubectl -n demo exec east -- ping " + g.west.Addr.String(), "from pod to pod"},
		{"bin/lab capture ovn-worker -i eth0 udp port 6081", "the tunnel, on the wire"},
		zones,
		{"bin/lab portolan pod demo/multi", "all of a pod's interfaces"},
		{"bin/lab exec ovn-worker", "a shell on a node"},
		{"make down", "end it"},
	}
	for _, h := range hints {
		fmt.Fprintf(g.out, "  %s  %s\n", pad(h[0], 56), g.paint(dim, h[1]))
	}
}

// eventually asks until a condition holds or time is up.
func eventually(ctx context.Context, limit time.Duration, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := condition()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, fmt.Errorf("not within %s", limit))
		case <-tick.C:
		}
	}
}
