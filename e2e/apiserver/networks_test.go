package apiserver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// testNetworks runs portolan-manager's keeper of networks with its own rights, and reads
// what kubectl shows.
func testNetworks(t *testing.T, c *cluster) {
	k, requests := c.keeper(t)
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

	c.must(t, admin, `{"apiVersion":"portolan.io/v1alpha1","kind":"Network","metadata":{"name":"shared"},"spec":{"namespaceSelector":{"matchLabels":{"wire":"yes"}}}}`)
	c.soon(t, tenant, definition("plain/shared", `"name":"shared","topology":"layer2","subnets":"10.7.0.0/28"`),
		"namespace plain is not among those that network shared's spec.namespaceSelector chooses")
	thousand(t, c, requests)
}

type missing struct{ shown string }

func (m *missing) Error() string { return "shown is\n" + m.shown }
