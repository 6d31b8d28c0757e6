package tour

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// multi is a pod of the demo with its interfaces.
type multi struct {
	pod
	interfaces []netStatus // as network-status lists them, the default network's first
}

// netStatus is one entry of k8s.v1.cni.cncf.io/network-status.
type netStatus struct {
	Name      string       `json:"name"`
	Interface string       `json:"interface"`
	IPs       []netip.Addr `json:"ips"`
	MAC       string       `json:"mac"`
}

// on is the pod's entry of a definition of namespace demo.
func (m multi) on(definition string) (netStatus, error) {
	i := slices.IndexFunc(m.interfaces, func(s netStatus) bool { return s.Name == namespace+"/"+definition && len(s.IPs) > 0 })
	if i < 0 {
		return netStatus{}, fmt.Errorf("pod %s has no address on %s in its network-status", m.Name, definition)
	}
	return m.interfaces[i], nil
}

const annotationStatus = `jsonpath={.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}`

// networks gives pods several networks, and sends packets on each.
func (g *guide) networks(ctx context.Context) error {
	if _, err := g.show(ctx, "kubectl", "apply", "-f", "e2e/demo/networks.yaml"); err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod", "-l", "app=multi", "--timeout=90s"); err != nil {
		g.diagnose(ctx, "multi", "multi2", "apart")
		return err
	}
	a, err := g.attached(ctx, "multi")
	if err != nil {
		return err
	}
	b, err := g.attached(ctx, "multi2")
	if err != nil {
		return err
	}
	for _, part := range []func() error{
		func() error { return g.listed(ctx, a) },
		func() error { return g.onEach(ctx, a, b) },
		func() error { return g.isolated(ctx, a, b) },
		func() error { return g.followed(ctx, a, b) },
		func() error { return g.awaited(ctx) },
		func() error { return g.alive(ctx, b) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// diagnose prints what Portolan knows of pods that do not start.
func (g *guide) diagnose(ctx context.Context, names ...string) {
	for _, name := range names {
		_, _ = g.show(ctx, "portolan", "pod", namespace+"/"+name) // its exit status says that something is wrong
	}
}

// attached reads a pod with what its network-status says.
func (g *guide) attached(ctx context.Context, name string) (multi, error) {
	list, err := g.labelled(ctx, "multi")
	if err != nil {
		return multi{}, err
	}
	p, err := byName(list, name)
	if err != nil {
		return multi{}, err
	}
	return attachedOf(p)
}

// labelled lists the demo's pods of an app.
func (g *guide) labelled(ctx context.Context, app string) ([]pod, error) {
	text, err := g.lab(ctx, "kubectl", "-n", namespace, "get", "pods", "-l", "app="+app, "-o", "json")
	if err != nil {
		return nil, err
	}
	return parsePods(text)
}

// attachedOf finds a pod, and reads what its network-status says.
func attachedOf(p pod) (multi, error) {
	if err := p.locate(); err != nil {
		return multi{}, err
	}
	m := multi{pod: p}
	return m, parseStatus(p.networks, &m.interfaces)
}

func parseStatus(text string, into *[]netStatus) error {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("network-status is %q: %w", text, err)
	}
	return nil
}

// listed shows the networks, and all of one pod.
func (g *guide) listed(ctx context.Context, a multi) error {
	if _, err := g.show(ctx, "kubectl", "get", "networks,physicalnetworks"); err != nil {
		return err
	}
	text, err := g.show(ctx, "portolan", "networks")
	if err != nil {
		return err
	}
	g.gap()
	for name, topology := range map[string]string{"demo-blue": "layer2", "demo-green": "layer3", "demo-lan": "localnet vlan 100", "demo-red": "layer2"} {
		g.claim(holds("portolan networks: "+name, "is "+topology, lineOf(text, append([]string{name}, strings.Fields(topology)...)...)))
	}
	g.note("What the pod was given, as the multi-network specification has it; then all that Portolan knows of it, with the age of each stage.")
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "get", "pod", a.Name, "-o", annotationStatus); err != nil {
		return err
	}
	text, err = g.show(ctx, "portolan", "pod", namespace+"/"+a.Name)
	g.gap()
	var has []string
	for _, s := range a.interfaces {
		has = append(has, s.Interface)
	}
	g.claim(equal("network-status of "+a.Name+", its interfaces", "eth0 net1 net2 net3", strings.Join(has, " "), nil))
	g.claim(claim{what: "portolan pod " + namespace + "/" + a.Name, want: "nothing keeps it from talking", got: lastWords(text), err: err})
	return nil
}

// lastWords is the beginning of the last line of a report.
func lastWords(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	first, _, _ := strings.Cut(lines[len(lines)-1], ",")
	return first
}

// onEach pings on every network from one node to another, and to the wire.
func (g *guide) onEach(ctx context.Context, a, b multi) error {
	g.note("On each network, from node to node: one switch over all nodes leaves 64 of the time to live, a routed network what the default one leaves, a wire 64.")
	far, _ := g.across()
	to, err := b.on("blue")
	if err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", a.Name, "--", "ping", "-c", "3", "-i", "0.2", to.IPs[0].String()); err != nil {
		return err
	}
	g.gap()
	for _, n := range []struct {
		name, what string
		ttl        int
	}{{"blue", "layer2", 64}, {"green", "layer3", far}, {"lan", "localnet, VLAN 100 of the wire", 64}} {
		to, err := b.on(n.name)
		if err != nil {
			return err
		}
		e, err := packets.Ping(a.Place, to.IPs[0], 56, false, patience)
		g.claim(echoed(fmt.Sprintf("%s → %s on %s (%s)", a.Name, b.Name, n.name, n.what), e, to.IPs[0], n.ttl, err))
	}
	for _, w := range g.plan.Wire {
		ip := w.Addrs[0].Addr()
		e, err := packets.Ping(a.Place, ip, 56, false, patience)
		if w.VLAN != 0 {
			g.claim(echoed(fmt.Sprintf("%s → host %s in VLAN %d, on lan", a.Name, w.Name, w.VLAN), e, ip, 64, err))
			continue
		}
		g.claim(equal(fmt.Sprintf("%s → host %s, which is on the wire without a VLAN", a.Name, w.Name), packets.ErrNoEcho, failed(err), nil))
	}
	return nil
}

// failed is an error that is wanted.
func failed(err error) string {
	if err == nil {
		return "an answer"
	}
	return err.Error()
}

// isolated sends to an interface of a network from inside of it and from another: what
// comes is counted where it would have to come.
func (g *guide) isolated(ctx context.Context, a, b multi) error {
	g.note("Networks are apart: the same frames to the interface of multi on blue, from a pod on blue and from one on red.")
	apart, err := g.attached(ctx, "apart")
	if err != nil {
		return err
	}
	to, err := a.on("blue")
	if err != nil {
		return err
	}
	for _, from := range []struct {
		multi
		network, want string
	}{{b, "blue", "3 of 3"}, {apart, "red", "0 of 3"}} {
		s, err := from.on(from.network)
		if err != nil {
			return err
		}
		n, err := frames(ctx, from.Place, s, a.Place, to)
		g.claim(equal(fmt.Sprintf("%s on %s → %s on blue, frames received", from.Name, from.network, a.Name), from.want, fmt.Sprintf("%d of 3", n), err))
	}
	return nil
}

// frames sends three from an interface to another, with the sender's own addresses, and
// counts those that come.
func frames(ctx context.Context, from packets.Place, out netStatus, to packets.Place, in netStatus) (int, error) {
	src, err := net.ParseMAC(out.MAC)
	if err != nil {
		return 0, err
	}
	dst, err := net.ParseMAC(in.MAC)
	if err != nil {
		return 0, err
	}
	s, err := packets.Sniff(to, in.Interface, func(frame []byte) bool {
		p, ok := ipv4Of(frame)
		return ok && p.protocol == udp && p.src == out.IPs[0] && p.dst == in.IPs[0]
	})
	if err != nil {
		return 0, err
	}
	frame := packets.Frame{Src: src, Dst: dst}.UDP(netip.AddrPortFrom(out.IPs[0], port), netip.AddrPortFrom(in.IPs[0], port), []byte("apart?"))
	err = packets.Send(from, out.Interface, frame, 3)
	// What has not come by then was dropped: packets of the same path take milliseconds.
	_ = eventually(ctx, time.Second, func() (bool, error) { return s.Count() >= 3, nil })
	return len(s.Close()), err
}

// followed traces packets on the networks, one of which no packet can be on.
func (g *guide) followed(ctx context.Context, a, b multi) error {
	g.note("A packet from zone to zone, on a network of one's choice.")
	there := []string{"portolan", "ovn", "trace", namespace + "/" + a.Name, namespace + "/" + b.Name, fmt.Sprint(webPort), "--network"}
	if _, err := g.show(ctx, append(there, "green")...); err != nil {
		return err
	}
	far, _ := g.across()
	g.gap()
	for _, n := range []struct {
		name string
		ttl  int
	}{{"blue", 64}, {"green", far}, {"lan", 64}} {
		v, err := g.verdict(ctx, append(slices.Clone(there), n.name))
		g.claim(equal(fmt.Sprintf("ovn trace, %s → %s on %s", a.Name, b.Name, n.name), fmt.Sprintf("delivered of Pod/demo/%s, ttl %d", b.Name, n.ttl),
			fmt.Sprintf("%s of %s, ttl %d", v.Verdict.Outcome, strings.Join(v.Objects, " "), v.TTL), err))
	}
	text, err := g.show(ctx, "portolan", "ovn", "trace", namespace+"/"+a.Name, namespace+"/apart", fmt.Sprint(webPort), "--network", "blue")
	g.gap()
	g.claim(holds("ovn trace to a pod that is not on the network", "is refused", err != nil && strings.Contains(text+err.Error(), "no interface on network")))
	return nil
}

// awaited starts a pod before its network is there.
func (g *guide) awaited(ctx context.Context) error {
	g.note("Why does my pod not start? It names a network that nobody has defined: it waits, and one command says for what.")
	if _, err := g.show(ctx, "kubectl", "apply", "-f", "e2e/demo/late.yaml"); err != nil {
		return err
	}
	says := ""
	err := eventually(ctx, 30*time.Second, func() (bool, error) {
		says, _ = g.lab(ctx, "portolan", "pod", namespace+"/early") // its exit status says that something is wrong
		return strings.Contains(says, "waiting for NetworkAttachmentDefinition demo/late"), nil
	})
	g.diagnose(ctx, "early")
	g.gap()
	g.claim(claim{what: "portolan pod demo/early", want: "waits for NetworkAttachmentDefinition demo/late", got: "waits for NetworkAttachmentDefinition demo/late", err: err})
	g.note("What a definition would change that no pod names; then the one that the pod waits for is applied, and it starts.")
	plan := []string{"portolan", "plan", "-f", "e2e/demo/spare.yaml"}
	if !g.global() {
		plan = append(plan, "--node", "ovn-worker2")
	}
	text, err := g.show(ctx, plan...)
	if err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "apply", "-f", "e2e/demo/late-network.yaml"); err != nil {
		return err
	}
	_, err = g.show(ctx, "kubectl", "-n", namespace, "wait", "--for=condition=Ready", "pod/early", "--timeout=90s")
	g.gap()
	g.claim(holds("portolan plan of a definition", "says that an unused network costs no rows", strings.Contains(text, "costs no rows") && strings.Contains(text, "0 rows and 0 shared elements differ")))
	g.claim(claim{what: "pod early, with the definition", want: "Ready", got: "Ready", err: err})
	return nil
}

// alive gives a running pod one more interface, and takes it away.
func (g *guide) alive(ctx context.Context, b multi) error {
	g.note("A running pod gets an interface by its annotation, and loses it again.")
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "annotate", "--overwrite", "pod", "apart", "k8s.v1.cni.cncf.io/networks=red,blue"); err != nil {
		return err
	}
	var apart multi
	err := eventually(ctx, 30*time.Second, func() (bool, error) {
		var err error
		if apart, err = g.attached(ctx, "apart"); err != nil {
			return false, err
		}
		_, err = apart.on("blue")
		return err == nil, err
	})
	g.gap()
	to, bad := b.on("blue")
	if bad != nil {
		return bad
	}
	g.claim(claim{what: "network-status of apart", want: "has blue", got: "has blue", err: err})
	if err != nil {
		g.diagnose(ctx, "apart")
		return nil
	}
	e, err := packets.Ping(apart.Place, to.IPs[0], 56, false, patience)
	g.claim(echoed("apart → "+b.Name+" on blue", e, to.IPs[0], 64, err))
	had, err := apart.on("blue")
	if err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "annotate", "--overwrite", "pod", "apart", "k8s.v1.cni.cncf.io/networks=red"); err != nil {
		return err
	}
	err = eventually(ctx, 30*time.Second, func() (bool, error) {
		gone := apart.Do(func() error { _, err := net.InterfaceByName(had.Interface); return err })
		return gone != nil, nil
	})
	g.gap()
	g.claim(claim{what: "interface " + had.Interface + " of apart", want: "is gone", got: "is gone", err: err})
	return nil
}
