package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	mgr "github.com/portolan-cni/portolan/cmd/portolan-manager/networks"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// testNetworks runs portolan-manager's keeper of networks with its own rights, and reads
// what kubectl shows.
func testNetworks(t *testing.T, c *cluster) {
	k := c.keeper(t)
	c.must(t, tenant, definition("wired/shared", `"name":"shared","topology":"layer2","subnets":"10.7.0.0/28","allowPersistentIPs":true`)+"---\n"+
		definition("wired/routed", `"name":"routed","topology":"layer3","subnets":"10.8.0.0/16"`)+"---\n"+
		definition("wired/over", `"name":"over","topology":"layer2","subnets":"10.244.7.0/24"`))
	shows := func(what string, want ...string) {
		t.Helper()
		c.until(t, strings.Join(want, " "), func() error {
			out := c.kubectl(t, "get", what, "-A", "--no-headers")
			for line := range strings.Lines(out) {
				if got := strings.Join(strings.Fields(line), " "); strings.HasPrefix(got, strings.Join(want, " ")) {
					return nil
				}
			}
			return &missing{out}
		})
	}
	shows("networks", "shared", "True", "layer2", `["10.7.0.0/28"]`, "0", "0")
	shows("networks", "over", "False", "layer2", "0", "0")
	for _, pod := range []string{"a", "b", "d"} {
		node := map[string]string{"a": "n1", "b": "n1", "d": "n2"}[pod]
		k.Put(&intent.Pod{Namespace: "wired", Name: pod, UID: pod, Node: node, Attachments: []intent.Attachment{
			{Network: "wired/shared", Addresses: []netip.Prefix{netip.MustParsePrefix("10.7.0.5/28")}},
			{Network: "wired/shared/1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.7.0.6/28")}},
		}})
	}
	shows("networks", "shared", "True", "layer2", `["10.7.0.0/28"]`, "3", "2")
	c.until(t, "addresses counted", func() error {
		out := c.kubectl(t, "get", "network", "shared", "-o", "jsonpath={.status.addressesUsed} {.status.addressesFree}")
		if out != "6 8" {
			return &missing{out}
		}
		return nil
	})
	t.Log("\n" + c.kubectl(t, "get", "networks"))

	c.must(t, tenant, "apiVersion: k8s.cni.cncf.io/v1alpha1\nkind: IPAMClaim\nmetadata: {namespace: wired, name: vm}\nspec: {network: shared, interface: net1}\n")
	shows("ipamclaims", "wired", "vm", "shared", `["10.7.0.1/28"]`, "True")
	c.must(t, agent("n1"), `{"apiVersion":"portolan.io/v1alpha1","kind":"AddressBlock","metadata":{"name":"shared.0"},"spec":{"network":"shared","slot":0,"entries":[
		{"offset":1,"addresses":["10.7.0.1/28"],"claim":"wired/vm","pod":"wired/a","uid":"a","attachment":"wired/shared","node":"n1"}]}}`)
	shows("ipamclaims", "wired", "vm", "shared", `["10.7.0.1/28"]`, "a", "True")
	c.refused(t, agent("n2"), `{"apiVersion":"portolan.io/v1alpha1","kind":"AddressBlock","metadata":{"name":"shared.0"},"spec":{"network":"shared","slot":0,"entries":[
		{"offset":1,"addresses":["10.7.0.1/28"],"claim":"wired/vm","pod":"wired/d","uid":"d","attachment":"wired/shared","node":"n2"}]}}`, "that are of pods on other nodes")
	t.Log("\n" + c.kubectl(t, "get", "ipamclaims", "-A"))
	t.Log("\n" + c.kubectl(t, "get", "addressblocks"))
	hundreds(t, c)
}

// hundreds creates 300 definitions at once, and has each become a network with an id.
func hundreds(t *testing.T, c *cluster) {
	const n = 300
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			key := fmt.Sprintf("wired/many%d", i)
			if err := c.write(tenant, definition(key, fmt.Sprintf(`"name":"many%d","topology":"layer2","subnets":"11.%d.0.0/24"`, i, i%250))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c.until(t, "all networks ready", func() error {
		out := c.kubectl(t, "get", "networks", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.id} {.status.conditions[0].status}{"\n"}{end}`)
		ids := map[string]string{}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if !strings.HasPrefix(f[0], "many") || len(f) != 3 || f[2] != "True" {
				continue
			}
			if other := ids[f[1]]; other != "" {
				t.Fatalf("%s and %s have id %s", other, f[0], f[1])
			}
			ids[f[1]] = f[0]
		}
		if len(ids) != n {
			return fmt.Errorf("%d of %d", len(ids), n)
		}
		return nil
	})
	t.Logf("300 definitions were networks %s after the first was written", time.Since(begin).Round(100*time.Millisecond))
}

type missing struct{ shown string }

func (m *missing) Error() string { return "shown is\n" + m.shown }

// keeper runs portolan-manager's part for networks as portolan-manager.
func (c *cluster) keeper(t *testing.T) *mgr.Keeper {
	t.Helper()
	plan, problems := kube.ParseCluster(&v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{
		ClusterSubnets: []string{"10.244.0.0/16/24"}, ServiceSubnets: []string{"10.96.0.0/16"}, MTU: 1400,
	}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	k := mgr.New(mgr.Config{
		Client: c.as(manager), Plan: plan, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Timeout: 5 * time.Second,
		Recall: func(context.Context) uint64 { return 0 }, Keep: func(context.Context, uint64) error { return nil }, Found: func([]mgr.Found) {},
	})
	for _, n := range []string{"n1", "n2"} {
		k.Put(&intent.Node{Name: n})
	}
	for _, s := range []kube.Source{kube.Pods, kube.Namespaces, kube.Nodes} {
		k.Synced(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}
