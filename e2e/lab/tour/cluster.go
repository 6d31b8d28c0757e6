package tour

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// staticFile is where ovn-worker's kubelet looks for static pods.
const staticFile = "/etc/kubernetes/manifests/static.yaml"

// cluster shows the nodes, and clears away what an earlier tour has left.
func (g *guide) cluster(ctx context.Context) error {
	if _, err := g.lab(ctx, "exec", "ovn-worker", "--", "rm", "-f", staticFile); err != nil {
		return err
	}
	if _, err := g.lab(ctx, "kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s"); err != nil {
		return err
	}
	if _, err := g.lab(ctx, "kubectl", "delete", "devicepool", "demo", "--ignore-not-found", "--timeout=60s"); err != nil {
		return err
	}
	if _, err := g.show(ctx, "kubectl", "get", "nodes,pods", "-A", "-o", "wide"); err != nil {
		return err
	}
	text, err := g.lab(ctx, "kubectl", "get", "nodes", "-o", "json")
	if err != nil {
		return err
	}
	if g.nodes, err = parseNodes(text); err != nil {
		return err
	}
	g.gap()
	for _, m := range g.nodes {
		g.claim(holds("node "+m.Name, "Ready", m.ready))
	}
	return g.onlyPlugin(ctx)
}

// onlyPlugin shows what containerd is told of networks, and that it is all.
func (g *guide) onlyPlugin(ctx context.Context) error {
	if _, err := g.show(ctx, "exec", "ovn-worker", "--", "head", "-v", "-n", "20", "/etc/cni/net.d/10-portolan.conflist"); err != nil {
		return err
	}
	g.gap()
	for _, m := range g.nodes {
		files, err := g.lab(ctx, "exec", m.Name, "--", "ls", "/etc/cni/net.d")
		g.claim(equal("the only network configuration on "+m.Name, "10-portolan.conflist", strings.Join(strings.Fields(files), ", "), err))
	}
	return nil
}

// pods makes the demo's pods and looks for the probes that reach them.
func (g *guide) pods(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "-f", "e2e/demo/pods.yaml"},
		{"-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s"},
		{"-n", namespace, "get", "pods", "-o", "wide"},
	} {
		if _, err := g.show(ctx, append([]string{"kubectl"}, args...)...); err != nil {
			return err
		}
	}
	g.since = time.Now()
	if err := g.findPods(ctx); err != nil {
		return err
	}
	g.gap()
	for _, p := range g.all {
		m, err := g.machine(p.node)
		if err != nil {
			return err
		}
		err = probed(ctx, p, m)
		g.claim(equal(fmt.Sprintf("pod %s on %s", p.Name, p.node), fmt.Sprintf("Ready, 0 restarts, kubelet's probes come from %s", m.mgmt),
			fmt.Sprintf("%s, %d restarts, kubelet's probes come from %s", readiness(p.ready), p.restarts, m.mgmt), err))
	}
	return nil
}

func readiness(ready bool) string {
	if ready {
		return "Ready"
	}
	return "not ready"
}

// probed waits for a connection that kubelet makes to the pod's web server.
func probed(ctx context.Context, p pod, m machine) error {
	s, err := packets.Sniff(p.Place, "eth0", func(frame []byte) bool {
		packet, ok := ipv4Of(frame)
		return ok && packet.asks(webPort) && packet.src == m.mgmt && packet.dst == p.Addr
	})
	if err != nil {
		return err
	}
	defer s.Close()
	return eventually(ctx, 5*time.Second, func() (bool, error) { return s.Count() > 0, nil })
}

// findPods learns the demo's pods, where they live, and which have parts to play.
func (g *guide) findPods(ctx context.Context) error {
	text, err := g.lab(ctx, "kubectl", "-n", namespace, "get", "pods", "-o", "json")
	if err != nil {
		return err
	}
	if g.all, err = parsePods(text); err != nil {
		return err
	}
	for i := range g.all {
		if err := g.all[i].locate(); err != nil {
			return err
		}
	}
	for name, to := range map[string]*pod{"east": &g.east, "east2": &g.east2, "west": &g.west} {
		if *to, err = byName(g.all, name); err != nil {
			return err
		}
	}
	return nil
}

// databases shows what lies under the pods of ovn-worker.
func (g *guide) databases(ctx context.Context) error {
	nb, err := g.show(ctx, "nbctl", "--node", "ovn-worker", "show")
	if err != nil {
		return err
	}
	sb, err := g.show(ctx, "sbctl", "--node", "ovn-worker", "show")
	if err != nil {
		return err
	}
	vswitch, err := g.show(ctx, "vsctl", "ovn-worker", "show")
	if err != nil {
		return err
	}
	g.gap()
	g.claim(holds("northbound: the port of east", "has "+g.east.Addr.String(), slices.Contains(strings.FieldsFunc(nb, func(r rune) bool { return r == ' ' || r == '"' }), g.east.Addr.String())))
	g.claim(holds("northbound: the port of west, which is in another zone", "is not here", !strings.Contains(nb, namespace+"_west")))
	g.claim(holds("southbound: the port of east", "is bound to ovn-worker's chassis", boundTo(sb, namespace+"_east") == "ovn-worker"))
	for _, m := range g.nodes {
		if m.Name != "ovn-worker" {
			g.claim(holds("Open vSwitch: a Geneve tunnel to "+m.Name, "ends at "+m.Addr.String(),
				strings.Contains(vswitch, fmt.Sprintf("remote_ip=%q", m.Addr))))
		}
	}
	return nil
}

// boundTo is the host of the chassis that has a port, in what ovn-sbctl show prints.
func boundTo(text, port string) string {
	host := ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "hostname: "); ok {
			host = strings.Trim(h, `"`)
		}
		if p, ok := strings.CutPrefix(line, "Port_Binding "); ok && strings.Trim(p, `"`) == port {
			return host
		}
	}
	return ""
}
