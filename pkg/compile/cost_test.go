package compile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// costRig is a zone's driver on real databases, behind proxies that keep what it
// sends.
type costRig struct {
	t       *testing.T
	driver  *ovsdb.Driver
	proxies map[rows.DB]*ovsdbtest.Proxy
}

func startCost(t *testing.T) *costRig {
	t.Helper()
	r := &costRig{t: t, proxies: map[rows.DB]*ovsdbtest.Proxy{}}
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	var dbs []ovsdb.Database
	ovn := ovsdbtest.Start(t)
	ovn.Sync() // northd has made the singletons
	for db, server := range map[rows.DB]*ovsdbtest.Server{rows.NB: ovn.NB, rows.SB: ovn.SB} {
		r.proxies[db] = ovsdbtest.StartProxy(t, server.Endpoint)
		c, err := ovsdb.Dial(ctx, ovsdb.Config{DB: db, Endpoint: r.proxies[db].Endpoint, Zone: "global", Lock: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		dbs = append(dbs, c)
	}
	e := engine.New(engine.Config{Kinds: compile.Kinds(), Databases: []rows.DB{rows.NB, rows.SB}, Strict: true})
	r.driver = ovsdb.NewDriver(ovsdb.DriverConfig{Window: time.Minute}, e, dbs...) // ended by waiting
	done := make(chan struct{})
	go func() { defer close(done); _ = r.driver.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	sink := r.driver.Sink()
	sink.Put(&intent.Cluster{
		Zone: "global", GlobalZone: true, PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10")},
		JoinSubnets: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, TransitNets: []netip.Prefix{netip.MustParsePrefix("100.88.0.0/16")}, MTU: 1400,
	})
	for i := range 3 {
		sink.Put(benchNode(i))
	}
	sink.Synced()
	r.wait("node/node2")
	return r
}

func (r *costRig) wait(group string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	if err := r.driver.Wait(ctx, group, ovsdb.Committed); err != nil {
		report, _ := r.driver.Report(r.t.Context())
		r.t.Fatalf("%v: %+v", err, report)
	}
}

// cost does something and says which transactions it took.
func (r *costRig) cost(what string, do func(ovsdb.Sink), group string) string {
	r.t.Helper()
	for _, p := range r.proxies {
		p.Take()
	}
	do(r.driver.Sink())
	r.wait(group)
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", what)
	for _, db := range []rows.DB{rows.NB, rows.SB} {
		txns := transactions(r.t, r.proxies[db].Take())
		n := 0
		for _, t := range txns {
			n += len(t)
		}
		fmt.Fprintf(&b, "  %s: transactions %d, operations %d\n", db, len(txns), n)
		for _, t := range txns {
			for _, op := range t {
				fmt.Fprintf(&b, "    %s\n", op)
			}
		}
	}
	return b.String()
}

// wireOp is what the golden file shows of an operation.
type wireOp struct {
	Op        string
	Table     string
	Lock      string
	Mutations [][]json.RawMessage
}

func (o wireOp) String() string {
	words := []string{o.Op}
	for _, w := range []string{o.Table, o.Lock} {
		if w != "" {
			words = append(words, w)
		}
	}
	for _, m := range o.Mutations {
		words = append(words, strings.ReplaceAll(fmt.Sprintf("%s %s", m[0], m[1]), `"`, ""))
	}
	return strings.Join(words, " ")
}

// transactions reads the transact calls in a stream of JSON-RPC messages.
func transactions(t *testing.T, stream string) (out [][]wireOp) {
	t.Helper()
	for d := json.NewDecoder(strings.NewReader(stream)); d.More(); {
		var m struct {
			Method string
			Params []json.RawMessage
		}
		if err := d.Decode(&m); err != nil {
			t.Fatal(err)
		}
		if m.Method != "transact" {
			continue
		}
		var ops []wireOp
		for _, p := range m.Params[1:] {
			var o wireOp
			if err := json.Unmarshal(p, &o); err != nil {
				t.Fatal(err)
			}
			ops = append(ops, o)
		}
		if len(ops) == 1 && ops[0].Op == "select" {
			continue // reading hv_cfg once a second is no cost of a pod
		}
		out = append(out, ops)
	}
	return out
}

// TestPodCostOnRealDatabases holds what a pod writes to an exact figure: this is
// what a zone of thousands of pods, and its standby databases, pay for each.
func TestPodCostOnRealDatabases(t *testing.T) {
	if !*onReal {
		t.Skip("real databases are a tier of their own: run with -real")
	}
	r := startCost(t)
	key := func(i int) (intent.Key, string) { k := benchPod(i).Key(); return k, "pod/" + k.Name }
	var got strings.Builder
	_, first := key(0)
	got.WriteString(r.cost("a pod comes", func(s ovsdb.Sink) { s.Put(benchPod(0)) }, first))
	_, last := key(benchNodes * 10)
	got.WriteString(r.cost("ten more come at once, on three nodes", func(s ovsdb.Sink) {
		for i := range 10 {
			s.Put(benchPod(benchNodes*(i+1) + i%3))
		}
	}, last))
	k, group := key(0)
	got.WriteString(r.cost("a pod goes", func(s ovsdb.Sink) { s.Delete(k) }, group))
	got.WriteString(attachmentCosts(r))
	golden := filepath.Join("testdata", "pod-cost.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("a pod's cost has changed; if that is meant, run with -real -update (-want +got):\n%s", diff)
	}
}

// attachmentCosts says what networks add: one of each topology, to a pod that runs.
func attachmentCosts(r *costRig) string {
	var got strings.Builder
	plain := benchPod(0)
	group := "pod/" + plain.Key().Name
	r.cost("", func(s ovsdb.Sink) { s.Put(plain) }, group)
	subnet := func(s string) []intent.NetworkSubnet {
		return []intent.NetworkSubnet{{Prefix: netip.MustParsePrefix(s)}}
	}
	networks := []*intent.Network{
		{Name: "green", ID: 1, Topology: intent.Layer3, Subnets: subnet("10.1.0.0/16"), Definitions: []string{"a/green"}},
		{Name: "blue", ID: 2, Topology: intent.Layer2, Subnets: subnet("10.9.0.0/16"), Definitions: []string{"a/blue"}},
		{Name: "lan", ID: 3, Topology: intent.Localnet, Definitions: []string{"a/lan"}},
	}
	got.WriteString(r.cost("three networks that nobody uses come", func(s ovsdb.Sink) {
		s.Put(&intent.PhysicalNetwork{Name: "lan", NIC: "eth1"})
		s.Put(&intent.Block{Network: "green", Slot: 2, Node: plain.Node, Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24")}})
		for _, n := range networks {
			s.Put(n)
		}
	}, "network/lan"))
	pod := *plain
	for _, n := range networks {
		addresses := map[string]string{"green": "10.1.2.5/24", "blue": "10.9.0.5/16"}
		att := intent.Attachment{Network: n.Definitions[0], MAC: "0a:58:0a:01:02:05"}
		if a := addresses[n.Name]; a != "" {
			att.Addresses = []netip.Prefix{netip.MustParsePrefix(a)}
		}
		if n.Topology == intent.Layer2 {
			att.TunnelKey = 5
			r.driver.Sink().Put(&intent.Block{Network: n.Name, Node: plain.Node, Entries: []intent.BlockEntry{
				{Key: 5, Addresses: att.Addresses, MAC: att.MAC, Pod: pod.Key().Name, UID: pod.UID, Network: att.Network, Node: pod.Node},
			}})
		}
		first := pod
		first.Attachments = append(slices.Clone(pod.Attachments), att)
		slices.SortFunc(first.Attachments, func(a, b intent.Attachment) int { return strings.Compare(a.Network, b.Network) })
		got.WriteString(r.cost("the first pod of a "+string(n.Topology)+" network on a node", func(s ovsdb.Sink) {
			s.Put(&intent.Presence{Network: n.Name, Node: plain.Node})
			s.Put(&first)
		}, group))
		got.WriteString(r.cost("it is detached", func(s ovsdb.Sink) { p := pod; s.Put(&p) }, group))
		got.WriteString(r.cost("and attached", func(s ovsdb.Sink) { s.Put(&first) }, group))
		pod = first
	}
	return got.String() + wholePodCosts(r, pod)
}

// wholePodCosts says what a pod on all of these networks costs, where pods have them
// already: all of it is one transaction.
func wholePodCosts(r *costRig, has intent.Pod) string {
	other := *benchPod(benchNodes * 20)
	other.Attachments = slices.Clone(other.Attachments)
	for _, a := range has.Attachments {
		if a.Network == intent.DefaultNetwork {
			continue
		}
		a.MAC, a.Addresses = "0a:58:0a:01:02:06", slices.Clone(a.Addresses)
		for i, p := range a.Addresses {
			a.Addresses[i] = netip.PrefixFrom(p.Addr().Next(), p.Bits())
		}
		if a.TunnelKey != 0 {
			a.TunnelKey++
			r.driver.Sink().Put(&intent.Block{Network: "blue", Node: other.Node, Entries: []intent.BlockEntry{
				{Key: 5, Addresses: has.Attachments[0].Addresses, MAC: "0a:58:0a:01:02:05", Pod: has.Key().Name, UID: has.UID, Network: a.Network, Node: has.Node},
				{Key: a.TunnelKey, Addresses: a.Addresses, MAC: a.MAC, Pod: other.Key().Name, UID: other.UID, Network: a.Network, Node: other.Node},
			}})
		}
		other.Attachments = append(other.Attachments, a)
	}
	slices.SortFunc(other.Attachments, func(a, b intent.Attachment) int { return strings.Compare(a.Network, b.Network) })
	group := "pod/" + other.Key().Name
	return r.cost("a pod on the three of them and the default one comes", func(s ovsdb.Sink) { s.Put(&other) }, group) +
		r.cost("it goes", func(s ovsdb.Sink) { s.Delete(other.Key()) }, group)
}
