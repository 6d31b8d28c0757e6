package tour

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

const (
	// apiPort is where the API server listens on its node.
	apiPort = 6443
	// paragraph is how many bytes each claim about a source sends and gets back.
	paragraph = 64 << 10
)

// pings shows the time to live of replies, and where the requests travel.
func (g *guide) pings(ctx context.Context) error {
	far, why := g.across()
	for _, to := range []struct {
		pod  pod
		what string
		ttl  int
	}{
		{g.east2, "east → east2, one switch", 64},
		{g.west, "east → west, " + why, far},
	} {
		if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", "east", "--", "ping", "-c", "3", "-i", "0.2", to.pod.Addr.String()); err != nil {
			return err
		}
		g.gap()
		e, err := packets.Ping(g.east.Place, to.pod.Addr, 56, false, patience)
		g.claim(echoed(to.what, e, to.pod.Addr, to.ttl, err))
	}
	if err := g.tunnel(); err != nil {
		return err
	}
	g.note("Every pair of pods, what is left of 64:")
	g.podsToPods("ttl", func(from, to pod) claim {
		ttl := far
		if from.node == to.node {
			ttl = 64
		}
		e, err := packets.Ping(from.Place, to.Addr, 56, false, patience)
		return equal(from.Name+" → "+to.Name, ttl, e.TTL, err)
	})
	return nil
}

// podsToPods makes a claim for each pair of pods.
func (g *guide) podsToPods(corner string, ask func(from, to pod) claim) {
	pairs := grid{corner: corner}
	for _, from := range g.all {
		pairs.columns = append(pairs.columns, "→ "+from.Name)
		r := row{name: from.Name}
		for _, to := range g.all {
			if from.Name == to.Name {
				r.cells = append(r.cells, claim{})
				continue
			}
			r.cells = append(r.cells, ask(from, to))
		}
		pairs.rows = append(pairs.rows, r)
	}
	g.grid(pairs)
}

// tunnel pings across nodes and looks for the requests on the far node's wire.
func (g *guide) tunnel() error {
	from, err := g.machine(g.east.node)
	if err != nil {
		return err
	}
	to, err := g.machine(g.west.node)
	if err != nil {
		return err
	}
	s, err := packets.Sniff(to.Place, "eth0", func(frame []byte) bool {
		outer, ok := ipv4Of(frame)
		if !ok || outer.src != from.Addr || outer.dst != to.Addr {
			return false
		}
		inner, ok := outer.inner()
		return ok && inner.echoRequest() && inner.src == g.east.Addr && inner.dst == g.west.Addr
	})
	if err != nil {
		return err
	}
	for range 3 {
		if _, err = packets.Ping(g.east.Place, g.west.Addr, 56, false, patience); err != nil {
			break
		}
	}
	g.claim(equal(fmt.Sprintf("on %s's wire, in Geneve from %s to %s", to.Name, from.Addr, to.Addr),
		"3 of 3 requests", fmt.Sprintf("%d of 3 requests", len(s.Close())), err))
	return nil
}

// sources shows whom servers see, for every kind of path and on every node.
func (g *guide) sources(ctx context.Context) error {
	places := []packets.Place{g.client}
	for _, m := range g.nodes {
		places = append(places, m.Place)
	}
	for _, p := range g.all {
		places = append(places, p.Place)
	}
	for _, p := range places {
		if err := g.serve(p); err != nil {
			return err
		}
	}
	g.note("Pod to pod, every pair: pods see each other as they are.")
	g.podsToPods("source seen by", func(from, to pod) claim { return g.asks(from.Place, to.Place, from.Addr) })
	if err := g.outside(ctx); err != nil {
		return err
	}
	if err := g.nodesToPods(ctx); err != nil {
		return err
	}
	return g.apiServer(ctx)
}

// outside shows both directions between the cluster and a host that is not in it.
func (g *guide) outside(ctx context.Context) error {
	url, stop, err := greet(g.client)
	if err != nil {
		return err
	}
	defer stop()
	g.note("Pod to outside. The client is a host beside the nodes; its server says who asks.")
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", "east", "--", "curl", "-sS", "-m", "5", url); err != nil {
		return err
	}
	out := grid{corner: "source seen by", columns: []string{"client"}}
	for _, p := range g.all {
		m, err := g.machine(p.node)
		if err != nil {
			return err
		}
		out.rows = append(out.rows, row{p.Name + " on " + p.node + " →", []claim{g.asks(p.Place, g.client, m.Addr)}})
	}
	g.grid(out)
	g.note("Outside to node: kubelet and API server listen there, and keep being reached.")
	if _, err := g.show(ctx, "exec", "client", "--", "curl", "-sS", "-k", "-m", "5", fmt.Sprintf("https://%s:%d/readyz", g.api(), apiPort)); err != nil {
		return err
	}
	in := grid{corner: "source seen by"}
	var cells []claim
	for _, m := range g.nodes {
		in.columns = append(in.columns, m.Name)
		cells = append(cells, g.asks(g.client, m.Place, g.client.Addr))
	}
	in.rows = []row{{"client →", cells}}
	g.grid(in)
	return nil
}

// nodesToPods shows every pair of a node and a pod, in both directions.
func (g *guide) nodesToPods(ctx context.Context) error {
	g.note("Node to pod, every pair: pods see the node's management address.")
	if _, err := g.show(ctx, "exec", "ovn-worker2", "--", "curl", "-sS", "-m", "5", fmt.Sprintf("http://%s:%d/clientip", g.east.Addr, webPort)); err != nil {
		return err
	}
	to := grid{corner: "source seen by"}
	for _, p := range g.all {
		to.columns = append(to.columns, p.Name)
	}
	for _, m := range g.nodes {
		r := row{name: m.Name + " →"}
		for _, p := range g.all {
			r.cells = append(r.cells, g.asks(m.Place, p.Place, m.mgmt))
		}
		to.rows = append(to.rows, r)
	}
	g.grid(to)
	g.note("Pod to node, every pair: its own node sees the pod, the others see the pod's node.")
	from := grid{corner: "source seen by"}
	for _, m := range g.nodes {
		from.columns = append(from.columns, m.Name)
	}
	for _, p := range g.all {
		r := row{name: p.Name + " →"}
		own, err := g.machine(p.node)
		if err != nil {
			return err
		}
		for _, m := range g.nodes {
			source := own.Addr
			if m.Name == p.node {
				source = p.Addr
			}
			r.cells = append(r.cells, g.asks(p.Place, m.Place, source))
		}
		from.rows = append(from.rows, r)
	}
	g.grid(from)
	return nil
}

// asks sends over TCP and claims which source the asked sees.
func (g *guide) asks(from, to packets.Place, source netip.Addr) claim {
	a, err := packets.TCP(from, netip.AddrPortFrom(to.Addr, port), paragraph, patience)
	return equal(from.Name+" → "+to.Name, source, a.Source, err)
}

// api is the address of the API server's node.
func (g *guide) api() netip.Addr {
	for _, m := range g.nodes {
		if m.Name == "ovn-control-plane" {
			return m.Addr
		}
	}
	return netip.Addr{}
}

// apiServer shows that programs in pods can talk to Kubernetes.
func (g *guide) apiServer(ctx context.Context) error {
	g.note("Pod to API server, by TLS.")
	to := netip.AddrPortFrom(g.api(), apiPort).String()
	if _, err := g.show(ctx, "kubectl", "-n", namespace, "exec", "west", "--", "curl", "-sS", "-k", "-m", "5", "https://"+to+"/version"); err != nil {
		return err
	}
	g.gap()
	for _, p := range g.all {
		name, err := certificate(p.Place, to)
		g.claim(equal(p.Name+" → "+to+", the certificate shown", "kube-apiserver", name, err))
	}
	return nil
}

// certificate is the name in the certificate that a server shows.
func certificate(from packets.Place, to string) (string, error) {
	var conn net.Conn
	err := from.Do(func() error {
		var err error
		conn, err = net.DialTimeout("tcp", to, patience)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	// The name is all that is asked for, and no secret is sent.
	t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := t.Handshake(); err != nil {
		return "", err
	}
	return t.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

// greet serves a sentence about who asks, over HTTP on any free port of a place.
func greet(p packets.Place) (url string, stop func(), err error) {
	var l net.Listener
	err = p.Do(func() error {
		var err error
		l, err = net.Listen("tcp", netip.AddrPortFrom(p.Addr, 0).String())
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("serve on %s: %w", p.Name, err)
	}
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "this is %s; you are %s\n", p.Name, r.RemoteAddr)
	})}
	go func() { _ = s.Serve(l) }() // ends with Close
	return "http://" + l.Addr().String(), func() { _ = s.Close() }, nil
}
