package networks_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/cni/cnitest"
	"github.com/portolan-cni/portolan/pkg/cni/wire"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// server is an API server's AddressBlocks.
type server struct {
	mu     sync.Mutex // guards blocks
	blocks map[string]*intent.Block
}

func (s *server) key(network string, slot int) string { return fmt.Sprintf("%s.%d", network, slot) }

func (s *server) Make(_ context.Context, b *intent.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.key(b.Network, b.Slot)
	if s.blocks[k] != nil {
		return kube.ErrBlockTaken
	}
	c := *b
	s.blocks[k] = &c
	return nil
}

func (s *server) Change(_ context.Context, network string, slot int, change func(*intent.Block) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blocks[s.key(network, slot)]
	if b == nil {
		return kube.ErrBlockGone
	}
	c := *b
	c.Entries = slices.Clone(b.Entries)
	if err := change(&c); err != nil {
		return err
	}
	s.blocks[s.key(network, slot)] = &c
	return nil
}

func (s *server) Remove(_ context.Context, network string, slot int, gone func(*intent.Block) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.blocks[s.key(network, slot)]; b != nil && gone(b) {
		delete(s.blocks, s.key(network, slot))
	}
	return nil
}

// machine is a node's agent on fakes.
type machine struct {
	*cni.Agent
	networks  *networks.Networks
	pods      *cni.PodStore
	ports     *cnitest.Ports
	links     *cnitest.Links
	publisher *cnitest.Publisher
	journal   *cnitest.Journal
	plugins   *cnitest.Plugins
	told      []string
	status    []cni.Attachment
}

func newServer() *server { return &server{blocks: map[string]*intent.Block{}} }

func newMachine(t *testing.T, s *server, node string, change func(*networks.Config)) *machine {
	t.Helper()
	m := &machine{pods: cni.NewPodStore(), ports: &cnitest.Ports{}, links: &cnitest.Links{}, publisher: &cnitest.Publisher{}, journal: &cnitest.Journal{}, plugins: &cnitest.Plugins{}}
	m.start(t, s, node, change)
	return m
}

func (m *machine) start(t *testing.T, s *server, node string, change func(*networks.Config)) {
	t.Helper()
	cfg := networks.Config{Node: node, Blocks: s, MTU: 1400, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	m.networks = networks.New(cfg)
	m.networks.Put(&intent.Node{Name: node, ID: 7})
	m.networks.Put(&intent.Namespace{Name: "shop", Labels: map[string]string{"team": "shop"}})
	m.networks.Put(&intent.Namespace{Name: "other"})
	s.mu.Lock()
	for _, b := range s.blocks {
		m.networks.Put(b)
	}
	s.mu.Unlock()
	pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	m.Agent, err = cni.New(cni.Config{
		Pods: m.pods, Ports: m.ports, Links: m.links, Publisher: m.publisher, Pool: pool, Networks: m.networks, Journal: m.journal, Plugins: m.plugins,
		MTU: 1400, Timeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
		Status:  func(_ cni.Pod, all []cni.Attachment) { m.status = all },
		Cluster: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
		Tell:    func(_ cni.Pod, message string) { m.told = append(m.told, message) },
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) recover(t *testing.T) {
	t.Helper()
	if err := m.Recover(t.Context(), m.pods.List(), nil); err != nil {
		t.Fatal(err)
	}
}

func definition(namespace, name string) *intent.Definition {
	return &intent.Definition{Namespace: namespace, Name: name, Config: fmt.Sprintf(
		`{"cniVersion":"1.0.0","type":"portolan","name":"%s","netAttachDefName":"%s/%s","topology":"layer2"}`, strings.TrimSuffix(name, "-net"), namespace, name)}
}

// accept makes a network known, and definitions that agree with it.
func (m *machine) accept(n *intent.Network) {
	m.networks.Put(n)
	for _, key := range n.Definitions {
		space, name, _ := strings.Cut(key, "/")
		var subnets []string
		for _, s := range n.Subnets {
			text := s.Prefix.String()
			if s.HostPrefix > 0 {
				text += fmt.Sprint("/", s.HostPrefix)
			}
			subnets = append(subnets, text)
		}
		config := fmt.Sprintf(`{"cniVersion":"1.0.0","type":"portolan","name":%q,"netAttachDefName":%q,"topology":%q`, n.Name, key, n.Topology)
		if subnets != nil {
			config += fmt.Sprintf(`,"subnets":%q`, strings.Join(subnets, ","))
		}
		if n.Topology == intent.Localnet {
			config += fmt.Sprintf(`,"vlanID":%d,"physicalNetworkName":%q`, n.VLAN, n.PhysicalNetwork)
		}
		m.networks.Put(&intent.Definition{Namespace: space, Name: name, Config: config + "}"})
	}
}

func layer3(name, subnet string, host int, definitions ...string) *intent.Network {
	return &intent.Network{Name: name, ID: 3, Topology: intent.Layer3, Definitions: definitions,
		Subnets: []intent.NetworkSubnet{{Prefix: netip.MustParsePrefix(subnet), HostPrefix: host}}}
}

func pod(name, selection string) cni.Pod {
	return cni.Pod{Namespace: "shop", Name: name, UID: "uid-" + name, Selection: selection}
}

// secondary is the call that Multus makes for a definition.
func secondary(command string, p cni.Pod, ifName, network, definition string) *wire.Call {
	return &wire.Call{
		Command: command, ContainerID: "sb-" + p.Name, Netns: "/run/netns/" + p.Name, IfName: ifName,
		Args: fmt.Sprintf("K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s", p.Namespace, p.Name, p.UID),
		Config: fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":%q,"type":"portolan","topology":"layer3","netAttachDefName":%q}`,
			network, definition),
	}
}

func primary(command string, p cni.Pod) *wire.Call {
	c := secondary(command, p, "eth0", "", "")
	c.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni"}`)
	return c
}

func (m *machine) must(t *testing.T, c *wire.Call) string {
	t.Helper()
	reply := m.Handle(t.Context(), c)
	if reply.Error != nil {
		t.Fatalf("%s %s: %v", c.Command, c.IfName, reply.Error)
	}
	return string(reply.Result)
}

func (m *machine) refused(t *testing.T, c *wire.Call, words ...string) {
	t.Helper()
	reply := m.Handle(t.Context(), c)
	if reply.Error == nil {
		t.Fatalf("%s %s succeeded", c.Command, c.IfName)
	}
	for _, w := range words {
		if !strings.Contains(reply.Error.Error(), w) {
			t.Errorf("%q does not say %q", reply.Error, w)
		}
	}
}

// interfaces lists what a pod has: key, interface, address.
func (m *machine) interfaces(p cni.Pod) string {
	var out []string
	for _, a := range m.publisher.All(p.UID) {
		out = append(out, fmt.Sprintf("%s %s %v", a.Key, a.IfName, a.Addresses))
	}
	return strings.Join(out, ", ")
}

func (m *machine) portNames() string {
	list, _ := m.ports.List(context.Background())
	var out []string
	for _, p := range list {
		out = append(out, p.LogicalPort()+"@"+p.IfName)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestMultusDelegates has Multus attach a pod to the default network and twice to one
// layer3 network, by one definition; each DEL is of one interface.
func TestMultusDelegates(t *testing.T) {
	s := newServer()
	m := newMachine(t, s, "one", nil)
	m.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue-net"))
	m.recover(t)
	web := pod("web", `[{"name":"blue-net"},{"name":"blue-net","interface":"up"}]`)
	m.pods.Set(web)
	if err := m.Prepare(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	if got, want := m.interfaces(web), "default eth0 [10.244.1.3/24], shop/blue-net net1 [10.1.0.3/24], shop/blue-net/1 up [10.1.0.4/24]"; got != want {
		t.Errorf("prepared %s, want %s", got, want)
	}
	m.must(t, primary(wire.Add, web))
	up := m.must(t, secondary(wire.Add, web, "up", "blue", "shop/blue-net"))
	if !strings.Contains(up, "10.1.0.4/24") || !strings.Contains(up, `"dst":"10.1.0.0/16","gw":"10.1.0.1"`) || strings.Contains(up, "0.0.0.0/0") {
		t.Errorf("the result is %s", up)
	}
	m.must(t, secondary(wire.Add, web, "net1", "blue", "shop/blue-net"))
	if got, want := m.portNames(), "shop.blue.net.1_shop_web@up, shop.blue.net_shop_web@net1, shop_web@eth0"; got != want {
		t.Errorf("ports %s, want %s", got, want)
	}
	m.must(t, secondary(wire.Check, web, "net1", "blue", "shop/blue-net"))
	m.must(t, secondary(wire.Del, web, "net1", "blue", "shop/blue-net"))
	m.must(t, secondary(wire.Del, web, "net1", "blue", "shop/blue-net"))
	if got, want := m.portNames(), "shop.blue.net.1_shop_web@up, shop_web@eth0"; got != want {
		t.Errorf("ports %s, want %s", got, want)
	}
	m.must(t, primary(wire.Check, web))
	m.refused(t, secondary(wire.Check, web, "net1", "blue", "shop/blue-net"), "no port belongs")
	m.refused(t, secondary(wire.Add, web, "net1", "red", "shop/blue-net"), `of network "blue"`, `of network "red"`)

	// Another node's subnet, and the same after a restart.
	other := newMachine(t, s, "two", nil)
	other.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue-net"))
	other.recover(t)
	db := pod("db", "blue-net")
	other.pods.Set(db)
	if got := other.must(t, secondary(wire.Add, db, "net1", "blue", "shop/blue-net")); !strings.Contains(got, "10.1.1.3/24") {
		t.Errorf("the other node gives %s", got)
	}
	m.start(t, s, "one", nil)
	m.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue-net"))
	m.recover(t)
	if got, want := m.interfaces(web), "default eth0 [10.244.1.3/24], shop/blue-net/1 up [10.1.0.4/24], shop/blue-net net1 [10.1.0.3/24]"; sortedWords(got) != sortedWords(want) {
		t.Errorf("after the restart %s, want %s", got, want)
	}
	m.must(t, secondary(wire.Del, web, "up", "blue", "shop/blue-net"))
	m.must(t, primary(wire.Del, web))
	if got := m.portNames(); got != "" {
		t.Errorf("left %s", got)
	}
	m.pods.Delete("shop", "web", web.UID)
	if err := m.Forget(t.Context(), web.UID); err != nil {
		t.Fatal(err)
	}
	if got := m.interfaces(web); got != "" {
		t.Errorf("left %s", got)
	}
}

func sortedWords(s string) string {
	w := strings.Split(s, ", ")
	slices.Sort(w)
	return strings.Join(w, ", ")
}

// TestDefinitionComes has an ADD wait for its definition with a reason, then proceed.
func TestDefinitionComes(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	m.recover(t)
	web := pod("web", "blue-net")
	m.pods.Set(web)
	done := make(chan *wire.Reply)
	go func() { done <- m.Handle(t.Context(), secondary(wire.Add, web, "net1", "blue", "shop/blue-net")) }()
	m.accept(layer3("blue", "10.1.0.0/16", 24, "shop/blue-net"))
	if r := <-done; r.Error != nil {
		t.Error(r.Error)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r := m.Handle(ctx, secondary(wire.Add, web, "net2", "x", "shop/none")); r.Error == nil || !strings.Contains(r.Error.Error(), "shop/none, which does not exist") {
		t.Errorf("%+v", r.Error)
	}
	if !slices.ContainsFunc(m.told, func(s string) bool {
		return s == "waiting for NetworkAttachmentDefinition shop/none, which does not exist: create it, or correct the pod's annotation"
	}) {
		t.Errorf("told %q", m.told)
	}
}

// TestForbidden has each border refuse by name.
func TestForbidden(t *testing.T) {
	m := newMachine(t, newServer(), "one", func(c *networks.Config) { c.Isolated, c.Shared = true, []string{"shared"} })
	m.networks.Put(&intent.Namespace{Name: "shared", Labels: map[string]string{"team": "shop"}})
	only := intent.Labels{{Key: "team", Op: intent.In, Values: []string{"shop"}}}
	for _, d := range []string{"shop/a", "other/a", "shared/a", "shop/wire", "shared/wire", "shop/none"} {
		space, name, _ := strings.Cut(d, "/")
		m.networks.Put(definition(space, name))
	}
	blue := layer3("blue", "10.1.0.0/16", 24, "shop/a", "other/a", "shared/a")
	blue.Namespaces = only
	m.accept(blue)
	m.accept(&intent.Network{Name: "wire", Topology: intent.Localnet, PhysicalNetwork: "phys", VLAN: 5, Definitions: []string{"shop/wire", "shared/wire"}})
	m.recover(t)
	ask := func(namespace, key string) error {
		_, err := m.networks.Attach(cni.Wish{Pod: cni.Pod{Namespace: namespace, Name: "p", UID: "u"}, Key: key})
		return err
	}
	phys := func(p intent.PhysicalNetwork) {
		p.Name = "phys"
		m.networks.Put(&p)
	}
	for _, c := range []struct {
		name, namespace, key string
		phys                 *intent.PhysicalNetwork
		want                 string
	}{
		{"its own", "shop", "shop/a", nil, ""},
		{"a shared one", "shop", "shared/a", nil, ""},
		{"another namespace's", "shop", "other/a", nil, "pod shop/p may not name NetworkAttachmentDefinition other/a"},
		{"a pod's namespace that the network does not admit", "other", "shared/a", nil, "network blue does not admit namespace other: its namespaceSelector is {team=shop}"},
		{"a definition's namespace that the network does not admit", "other", "other/a", nil, "network blue does not admit namespace other"},
		{"no network", "shop", "shop/none", nil, "is of no accepted network"},
		{"no physical network", "shop", "shop/wire", nil, "PhysicalNetwork phys of network wire does not exist"},
		{"a physical network of other namespaces", "shop", "shop/wire", &intent.PhysicalNetwork{Namespaces: intent.Labels{{Key: "x", Op: intent.Exists}}}, "does not admit definitions of namespace shop"},
		{"a physical network of other nodes", "shop", "shop/wire", &intent.PhysicalNetwork{Nodes: intent.Labels{{Key: "rack", Op: intent.Exists}}}, "is not on node one"},
		{"a VLAN that is not admitted", "shop", "shop/wire", &intent.PhysicalNetwork{VLANs: [][2]int{{10, 20}}}, "does not admit VLAN 5 of network wire"},
		{"one that is", "shop", "shop/wire", &intent.PhysicalNetwork{VLANs: [][2]int{{1, 20}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.phys != nil {
				phys(*c.phys)
			}
			err := ask(c.namespace, c.key)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// native is the call of our own conflist.
func native(command string, p cni.Pod) *wire.Call {
	c := primary(command, p)
	c.Config = []byte(`{"cniVersion":"1.0.0","name":"portolan","type":"portolan-cni","multiNetwork":"native"}`)
	return c
}

// TestNative attaches everything that a pod names in one call, takes it all away in one,
// and leaves nothing of a call that fails in the middle.
func TestNative(t *testing.T) {
	s := newServer()
	m := newMachine(t, s, "one", nil)
	config := func(name, text string) {
		d := definition("shop", name)
		d.Config = text
		m.networks.Put(d)
	}
	config("blue", `{"cniVersion":"1.0.0","name":"blue","type":"portolan","topology":"layer3","subnets":"10.1.0.0/16/24","netAttachDefName":"shop/blue"}`)
	config("flat", `{"cniVersion":"1.0.0","name":"flat","type":"ovn-k8s-cni-overlay","topology":"layer2","subnets":"10.2.0.0/24","netAttachDefName":"shop/flat"}`)
	config("bridge", `{"cniVersion":"1.0.0","name":"b","type":"bridge"}`)
	config("chain", `{"cniVersion":"1.0.0","name":"flat","plugins":[{"type":"tuning"},{"type":"portolan","topology":"layer2","subnets":"10.2.0.0/24","netAttachDefName":"shop/chain"}]}`)
	m.networks.Put(layer3("blue", "10.1.0.0/16", 24, "shop/blue"))
	flat := layer2("flat", "10.2.0.0/24")
	flat.Definitions = append(flat.Definitions, "shop/chain")
	m.networks.Put(flat)
	m.recover(t)
	web := pod("web", `[{"name":"flat","ips":["10.2.0.9"]},{"name":"blue","interface":"up"},{"name":"flat","default-route":["10.2.0.254"]}]`)
	m.pods.Set(web)
	m.links.FailAt(cni.StageConfigure)
	m.refused(t, native(wire.Add, web), "failed as asked")
	if got := m.portNames(); got != "" || len(m.links.At()) != 0 {
		t.Errorf("left %s, %v", got, m.links.At())
	}
	m.links.FailAt("")
	result := m.must(t, native(wire.Add, web))
	if again := m.must(t, native(wire.Add, web)); again != result {
		t.Errorf("the second ADD says %s, the first %s", again, result)
	}
	if !strings.Contains(result, "10.244.1.3/24") || strings.Contains(result, `"0.0.0.0/0"`) || !strings.Contains(result, `{"dst":"10.244.0.0/16","gw":"10.244.1.1"}`) {
		t.Errorf("the result is %s", result)
	}
	var got []string
	for _, a := range m.status {
		got = append(got, fmt.Sprintf("%s %s %v %v %d", a.Key, a.IfName, a.Addresses, a.Gateways, a.TunnelKey))
	}
	want := []string{"default eth0 [10.244.1.3/24] [] 0", "shop/flat net1 [10.2.0.9/24] [] 10", "shop/blue up [10.1.0.3/24] [] 0", "shop/flat/1 net3 [10.2.0.1/24] [10.2.0.254] 2"}
	if !slices.Equal(got, want) {
		t.Errorf("status %q, want %q", got, want)
	}
	m.must(t, native(wire.Check, web))
	m.start(t, s, "one", nil) // killed, and another process takes it up
	config("blue", "")
	config("flat", "")
	m.networks.Put(layer3("blue", "10.1.0.0/16", 24, "shop/blue"))
	m.networks.Put(flat)
	m.recover(t)
	m.must(t, native(wire.Check, web))
	m.must(t, native(wire.Del, web))
	m.must(t, native(wire.Del, web))
	if got := m.portNames(); got != "" || len(m.links.At()) != 0 {
		t.Errorf("left %s, %v", got, m.links.At())
	}
}

// TestNativeRefuses says of what is not attached that it is not, before anything is.
func TestNativeRefuses(t *testing.T) {
	m := newMachine(t, newServer(), "one", nil)
	for name, text := range map[string]string{
		"device": `{"cniVersion":"1.0.0","name":"d","type":"sriov"}`,
		"mine":   `{"cniVersion":"1.0.0","name":"default","type":"portolan"}`,
		"flat":   `{"cniVersion":"1.0.0","name":"flat","type":"portolan","topology":"layer2","subnets":"10.2.0.0/24","netAttachDefName":"shop/flat"}`,
		"chain":  `{"cniVersion":"1.0.0","name":"flat","plugins":[{"type":"tuning"},{"type":"portolan","topology":"layer2","subnets":"10.2.0.0/24","netAttachDefName":"shop/chain"}]}`,
	} {
		d := definition("shop", name)
		d.Config = text
		if name == "device" {
			d.Resource = "example.org/nic"
		}
		m.networks.Put(d)
	}
	flat := layer2("flat", "10.2.0.0/24")
	flat.Definitions = append(flat.Definitions, "shop/chain")
	m.networks.Put(flat)
	m.recover(t)
	for selection, want := range map[string]string{
		"device":                               "it needs a device of resource example.org/nic, and this node gives no devices",
		"mine":                                 "definition shop/mine is of the default network",
		"flat@a,flat@a":                        "give it another name: entry 0 has that one",
		"chain":                                "plugin \"tuning\" is before Portolan's, which makes the interface: put Portolan's first",
		"flat@":                                "interface",
		"flat@eth0":                            "eth0",
		`[{"name":"flat","ips":["10.9.0.1"]}]`: "ask for an address of 10.2.0.0/24",
		`[{"name":"flat","ipam-claim-reference":"mine"}]`: "ipam-claim-reference",
		`[{"name":"flat","mac":"zz"}]`:                    "mac",
	} {
		p := pod("p", selection)
		m.pods.Set(p)
		m.refused(t, native(wire.Add, p), want)
		if got := m.portNames(); got != "" {
			t.Errorf("%s: left %s", selection, got)
		}
	}
}
