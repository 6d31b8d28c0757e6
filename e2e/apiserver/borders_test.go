package apiserver

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
)

func newReader(text string) *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }

// prepare makes tenants who may do all that rights can give: what is refused after
// that, a policy has refused.
func (c *cluster) prepare(t *testing.T) {
	t.Helper()
	c.must(t, admin, `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tenants}
rules:
  - {apiGroups: ["", k8s.cni.cncf.io, k8s.ovn.org, portolan.io], resources: ["*"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: tenants}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tenants}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: tenants}]
---
apiVersion: v1
kind: Namespace
metadata: {name: wired, labels: {wire: "yes"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
`)
}

func definition(key, config string) string {
	namespace, name, _ := strings.Cut(key, "/")
	return fmt.Sprintf(`apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {namespace: %s, name: %s}
spec: {config: '{"cniVersion":"1.0.0","type":"portolan","netAttachDefName":"%s",%s}'}
`, namespace, name, key, config)
}

func pod(namespace, name, annotation, text string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: %s, annotations: {%s: '%s'}}
spec: {containers: [{name: c, image: x}]}
`, namespace, name, annotation, text)
}

const networks = "k8s.v1.cni.cncf.io/networks"

// testBorders has each forbidden attempt refused by name.
func testBorders(t *testing.T, c *cluster) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"role primary", func(t *testing.T, c *cluster) {
			c.soon(t, tenant, definition("plain/p", `"name":"p","topology":"layer2","role":"primary"`), "role primary is not supported yet")
		}},
		{"a Network of a tenant's own", func(t *testing.T, c *cluster) {
			c.soon(t, tenant, "apiVersion: portolan.io/v1alpha1\nkind: Network\nmetadata: {name: mine}\nspec: {id: 7, topology: layer2}\n",
				"Network mine is portolan-manager's")
		}},
		{"a physical network", testPhysicalBorders},
		{"a network's namespaces", testNetworkBorders},
		{"namespaceIsolation", testIsolation},
		{"blocks", testBlocks},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, c) })
	}
}

func testPhysicalBorders(t *testing.T, c *cluster) {
	const localnet = `"name":"lan","topology":"localnet","physicalNetworkName":"wire","vlanID":`
	c.refused(t, admin, "apiVersion: portolan.io/v1alpha1\nkind: PhysicalNetwork\nmetadata: {name: bad}\nspec: {nic: eth1, vlans: [ten]}\n", "spec.vlans[0]")
	c.must(t, admin, `apiVersion: portolan.io/v1alpha1
kind: PhysicalNetwork
metadata: {name: wire}
spec: {nic: eth1, namespaceSelector: {matchLabels: {wire: "yes"}}, vlans: ["100-199", "300"]}
`)
	c.soon(t, tenant, definition("plain/lan", localnet+"100"), "namespace plain is not among those that may use PhysicalNetwork wire")
	c.refused(t, tenant, definition("plain/lan", `"name": "wire", "topology" : "localnet", "vlanID": 100`), "namespace plain is not among those that may use PhysicalNetwork wire")
	for _, vlan := range []string{"200", "99", "30", "3000"} {
		c.refused(t, tenant, definition("wired/lan", localnet+vlan), "vlanID "+vlan+" is not among what PhysicalNetwork wire allows: 100-199, 300 (0 is untagged)")
	}
	c.refused(t, tenant, definition("wired/lan", `"name":"lan","topology":"localnet","physicalNetworkName":"wire"`), "vlanID 0 is not among")
	c.must(t, tenant, definition("wired/lan", localnet+"150"))
	c.refused(t, tenant, definition("wired/lan", localnet+"250"), "vlanID 250 is not among")
	c.must(t, tenant, definition("wired/three", localnet+"300"))
	c.must(t, tenant, definition("plain/other", `"name":"other","topology":"localnet","physicalNetworkName":"other"`))
}

func testNetworkBorders(t *testing.T, c *cluster) {
	c.must(t, manager, "apiVersion: portolan.io/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: {id: 7, topology: layer2, definitions: [wired/blue]}\n")
	c.refused(t, tenant, `{"apiVersion":"portolan.io/v1alpha1","kind":"Network","metadata":{"name":"blue"},"spec":{"id":8}}`, "Network blue is portolan-manager's")
	c.refused(t, tenant, `{"apiVersion":"portolan.io/v1alpha1","kind":"Network","metadata":{"name":"blue"},"spec":{"definitions":["plain/blue"]}}`, "Network blue is portolan-manager's")
	c.must(t, admin, `{"apiVersion":"portolan.io/v1alpha1","kind":"Network","metadata":{"name":"blue"},"spec":{"namespaceSelector":{"matchExpressions":[{"key":"wire","operator":"In","values":["yes"]}]}}}`)
	c.must(t, manager, `{"apiVersion":"portolan.io/v1alpha1","kind":"Network","metadata":{"name":"blue","labels":{"portolan.io/limited":""}}}`) // as it does, see testNetworks
	words := "namespace plain is not among those that network blue's spec.namespaceSelector chooses"
	c.soon(t, tenant, definition("plain/mine", `"name":"blue","topology":"layer2"`), words)
	c.refused(t, tenant, definition("plain/blue", `"topology":"layer2"`), words) // the definition's name is the network's
	c.must(t, tenant, definition("wired/blue", `"name":"blue","topology":"layer2"`))
	c.must(t, tenant, definition("plain/red", `"name":"red","topology":"layer2"`))
}

func testIsolation(t *testing.T, c *cluster) {
	c.must(t, tenant, pod("plain", "before", networks, "wired/blue"))
	c.must(t, manager, "apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: portolan, name: portolan-isolation}\ndata: {sharedNamespaces: 'kube-system,common'}\n")
	words := "a pod of namespace plain may not name definitions of others: namespaceIsolation is on, and shared are [kube-system, common]; found "
	c.soon(t, tenant, pod("plain", "web", networks, "wired/blue"), words+"wired/blue")
	for _, text := range []string{
		"red, wired/blue@net9", `[{"name":"red"},{"name":"blue", "namespace" : "wired"}]`, ` [{"namespace":"w\u0069red","name":"blue"}]`,
	} {
		c.refused(t, tenant, pod("plain", "web", networks, text), words)
	}
	c.refused(t, tenant, pod("plain", "web", "v1.multus-cni.io/default-network", "wired/blue"), words)
	for i, text := range []string{"red", "plain/red@net1", "common/blue, red", `[{"name":"red","namespace":"plain"},{"name":"x","namespace":"common"}]`} {
		c.must(t, tenant, pod("plain", fmt.Sprintf("allowed%d", i), networks, text))
	}
	// A pod that was there before is not held up, unless it names others anew.
	c.must(t, tenant, `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"plain","name":"before","labels":{"a":"b"}}}`)
	c.refused(t, tenant, `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"plain","name":"before","annotations":{"`+networks+`":"wired/green"}}}`, words)
	c.kubectl(t, "-n", "portolan", "delete", "configmap", "portolan-isolation")
	c.until(t, "the end of isolation", func() error { return c.write(tenant, pod("plain", "after", networks, "wired/blue")) })
}

func testBlocks(t *testing.T, c *cluster) {
	block := func(node, entries string) string {
		return fmt.Sprintf(`{"apiVersion":"portolan.io/v1alpha1","kind":"AddressBlock","metadata":{"name":"blue.0"},"spec":{"network":"blue","slot":0,"node":%q,"entries":[%s]}}`, node, entries)
	}
	mine := `{"offset":3,"addresses":["10.1.0.3/24"],"pod":"plain/a","uid":"u","attachment":"plain/blue"}`
	c.soon(t, tenant, block("n1", ""), "AddressBlocks are written by nodes' agents and by portolan-manager only")
	c.refused(t, agent("n1"), block("n2", ""), "the agent of node n1 may not take or give block blue.0, which is for another node")
	c.must(t, agent("n1"), block("n1", mine))
	c.refused(t, agent("n2"), block("n1", ""), "may not change entries of block blue.0 that are of pods on other nodes")
	c.refused(t, agent("n2"), block("n2", mine), "may not take or give block blue.0, which is of node n1")
	c.must(t, agent("n2"), block("n1", mine+`,{"offset":4,"addresses":["10.1.0.4/24"],"pod":"plain/b","uid":"v","attachment":"plain/blue","node":"n2"}`))
	c.refused(t, agent("n1"), block("n1", mine), "that are of pods on other nodes")
}
