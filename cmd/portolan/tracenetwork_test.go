package main

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
	"github.com/portolan-cni/portolan/pkg/trace"
	walker "github.com/portolan-cni/portolan/pkg/trace/walk"
)

var onReal = flag.Bool("real", false, "also trace packets in real databases with a northd")

// clusterOf is a Cluster that renders a node's zone, or with "global" all nodes.
func clusterOf(zone string) string {
	text := "apiVersion: portolan.io/v1alpha1\nkind: Cluster\nmetadata: {name: cluster}\nspec: {mtu: 1400, clusterSubnets: [10.244.0.0/16/24], serviceSubnets: [10.96.0.0/16], "
	if zone == "global" {
		return text + "zone: global}\n"
	}
	return text + "node: " + zone + "}\n"
}

// world is a zone of testdata/networks.yaml in databases.
func world(t *testing.T, zone string, dbs []script.Database) *script.Shell {
	t.Helper()
	text, err := os.ReadFile("testdata/networks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sh := script.New(script.Config{Kinds: compile.Kinds(), Door: kube.Decode, Databases: dbs})
	objects, err := sh.Read([]byte(clusterOf(zone) + "---\n" + string(text)))
	if err != nil || len(sh.Problems()) > 0 {
		t.Fatal(err, sh.Problems())
	}
	for _, o := range objects {
		sh.Put(o)
	}
	if err := sh.Settle(); err != nil {
		t.Fatal(err)
	}
	return sh
}

// media are the networks of the world.
func media() map[string]medium {
	return map[string]medium{
		"green": {"green", intent.Layer3, []string{"demo/green"}},
		"blue":  {"blue", intent.Layer2, []string{"demo/blue"}},
		"lan":   {"lan", intent.Localnet, []string{"demo/lan"}},
	}
}

// endOf is an end in the world: a pod of namespace demo, or an address.
func endOf(t *testing.T, sh *script.Shell, m medium, name string) end {
	t.Helper()
	if strings.ContainsAny(name, ".:") {
		e, err := m.find(t.Context(), nil, name)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	o, ok := sh.Engine().Object(intent.Key{Kind: intent.KindPod, Name: "demo/" + name})
	if !ok {
		t.Fatalf("no pod %s", name)
	}
	e, err := m.end(o.(*intent.Pod))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEndsOnANetwork(t *testing.T) {
	sh := world(t, "node1", scripttest.Simulate(rows.OVS, rows.NB, rows.SB))
	flags := tracing{sourcePort: 40000}
	for _, c := range []struct{ network, from, to, want string }{
		{"green", "web", "db", "green_node1 demo.green_demo_web 0a:58:0a:01:02:06 tcp 10.1.2.5:40000 → 10.1.2.6:80"},
		{"green", "web", "far", "green_node1 demo.green_demo_web 0a:58:0a:01:02:01 tcp 10.1.2.5:40000 → 10.1.3.5:80"},
		{"green", "far", "8.8.8.8", "green_node2 demo.green_demo_far 0a:58:0a:01:03:01 tcp 10.1.3.5:40000 → 8.8.8.8:80"},
		{"blue", "web", "far", "blue_ovn_layer2_switch demo.blue_demo_web 0a:58:0a:09:00:45 tcp 10.9.0.5:40000 → 10.9.0.69:80"},
		{"lan", "web", "192.168.7.100", "lan_ovn_localnet_switch demo.lan_demo_web 0a:58:c0:a8:07:64 tcp 192.168.7.5:40000 → 192.168.7.100:80"},
	} {
		m := media()[c.network]
		p, err := flags.packet(endOf(t, sh, m, c.from), endOf(t, sh, m, c.to), 80)
		if got := strings.Join([]string{p.Datapath, p.Inport, p.EthDst, p.String()}, " "); err != nil || got != c.want {
			t.Errorf("%s, %s to %s: %v\n%s\nwanted\n%s", c.network, c.from, c.to, err, got, c.want)
		}
	}
	o, _ := sh.Engine().Object(intent.Key{Kind: intent.KindPod, Name: "demo/lone"})
	if _, err := media()["blue"].end(o.(*intent.Pod)); err == nil || !strings.Contains(err.Error(), "no interface on network blue, but on default") {
		t.Errorf("a pod that is not on it: %v", err)
	}
	if _, err := media()["blue"].find(t.Context(), nil, "node/node1"); err == nil || !strings.Contains(err.Error(), "only pods") {
		t.Errorf("a node: %v", err)
	}
}

// walked is a packet on a network, and what becomes of it where each node is a zone.
type walked struct {
	network, from, to string
	flags             tracing
	zones, object     string
	outcome           trace.Outcome
	ttl               int // 0: of no interest
}

func walks() []walked {
	plain := tracing{sourcePort: 40000}
	return []walked{
		{"green", "web", "db", plain, "node1", "Pod/demo/db", trace.Delivered, 64},
		{"green", "web", "far", plain, "node1 node2", "Pod/demo/far", trace.Delivered, 62},
		{"green", "far", "web", plain, "node2 node1", "Pod/demo/web", trace.Delivered, 62},
		{"green", "web", "10.9.0.6", plain, "node1", "", trace.Dropped, 0},
		{"blue", "web", "db", plain, "node1", "Pod/demo/db", trace.Delivered, 64},
		{"blue", "web", "far", plain, "node1 node2", "Pod/demo/far", trace.Delivered, 64},
		{"blue", "far", "web", plain, "node2 node1", "Pod/demo/web", trace.Delivered, 64},
		{"blue", "web", "10.9.0.99", plain, "node1", "", trace.Dropped, 0},
		{"blue", "web", "far", tracing{udp: true, sourcePort: 67}, "node1", "Network/blue", trace.Dropped, 0},
		{"blue", "web", "far", tracing{sourcePort: 1, sourceAddress: "10.9.0.9"}, "node1", "Pod/demo/web", trace.Dropped, 0},
		{"lan", "web", "db", plain, "node1", "Pod/demo/db", trace.Delivered, 64},
		{"lan", "web", "far", plain, "node1 node2", "Pod/demo/far", trace.Delivered, 64},
		{"lan", "web", "192.168.7.100", plain, "node1", "Network/lan", trace.Delivered, 64},
	}
}

// zones are databases of the world, and who walks packets in them, by zone.
type zones struct {
	of      map[string]string // by node
	walkers map[string]*walker.Walker
	shells  map[string]*script.Shell
}

func startZones(t *testing.T, of map[string]string) zones {
	t.Helper()
	z := zones{of, map[string]*walker.Walker{}, map[string]*script.Shell{}}
	for _, zone := range of {
		if z.walkers[zone] != nil {
			continue
		}
		dbs, ovn := scripttest.Zone(t)
		z.shells[zone] = world(t, zone, dbs)
		ovn.Sync()
		z.walkers[zone] = &walker.Walker{
			Zone: zone, SB: ovn.SB.Endpoint, Engine: z.shells[zone].Engine(), Driver: inspect.Still{},
			Flows: walker.Dialed(ovsdb.Config{DB: rows.SB, Endpoint: ovn.SB.Endpoint, Zone: zone}), Command: ovsdbtest.CommandContext,
		}
	}
	return z
}

// follow walks a packet, and lists the zones that it came through.
func (z zones) follow(t *testing.T, w walked) (trace.Path, string) {
	t.Helper()
	m, sh := media()[w.network], z.shells[z.of["node1"]]
	a, b := endOf(t, sh, m, w.from), endOf(t, sh, m, w.to)
	p, err := w.flags.packet(a, b, 80)
	if err != nil {
		t.Fatal(err)
	}
	path, err := trace.Follow(t.Context(), startOf(a, b, p), func(ctx context.Context, node string, p trace.Packet) (trace.Zone, error) {
		return z.walkers[z.of[node]].Walk(ctx, p)
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, z := range path.Zones {
		names = append(names, z.Name)
	}
	return path, strings.Join(names, " ")
}

// TestTraceAcrossNetworksOnRealDatabases follows packets over each network in real
// databases of two zones, and of one that has both nodes.
func TestTraceAcrossNetworksOnRealDatabases(t *testing.T) {
	if !*onReal {
		t.Skip("real databases are a tier of their own: run with -real")
	}
	for name, of := range map[string]map[string]string{
		"zone a node": {"node1": "node1", "node2": "node2"}, "zone global": {"node1": "global", "node2": "global"},
	} {
		t.Run(name, func(t *testing.T) {
			z := startZones(t, of)
			for _, w := range walks() {
				path, names := z.follow(t, w)
				if of["node1"] == "global" {
					w.zones = "global"
					if w.ttl == 62 {
						w.ttl = 63
					}
				}
				if path.Verdict.Outcome != w.outcome || names != w.zones || w.ttl != 0 && path.TTL != w.ttl ||
					w.object != "" && !strings.HasPrefix(strings.Join(path.Objects, " "), w.object) {
					t.Errorf("%s, %s to %s: %s in %q by %v, ttl %d: %s", w.network, w.from, w.to, path.Verdict.Outcome, names, path.Objects, path.TTL, path.Verdict.Reason)
					for _, z := range path.Zones {
						t.Log(z.Text)
					}
				}
			}
		})
	}
}
