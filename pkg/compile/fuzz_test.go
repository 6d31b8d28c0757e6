package compile_test

import (
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/compile"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/script"
	"github.com/portolan-cni/portolan/pkg/script/scripttest"
)

const fuzzSeed = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: cluster}
spec:
  node: node1
  clusterSubnets: [10.244.0.0/16/24, "fd00:10:244::/48/64"]
---
apiVersion: v1
kind: Node
metadata:
  name: node1
  annotations:
    k8s.ovn.org/node-id: "2"
    k8s.ovn.org/node-subnets: '{"default":["10.244.1.0/24","fd00:10:244:1::/64"]}'
    k8s.ovn.org/node-chassis-id: c1
    k8s.ovn.org/node-encap-ips: '["172.18.0.2"]'
    k8s.ovn.org/l3-gateway-config: '{"default":{"mode":"shared","bridge-id":"br-ex","interface-id":"br-ex_node1","mac-address":"02:00:00:00:00:02","ip-addresses":["172.18.0.2/24"],"next-hops":["172.18.0.1"]}}'
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  uid: u
  annotations:
    k8s.ovn.org/pod-networks: '{"default":{"ip_addresses":["10.244.1.5/24"],"mac_address":"0a:58:0a:f4:01:05","gateway_ips":["10.244.1.1"]}}'
spec: {nodeName: node1}
`

// FuzzDecodeAndCompile gives any text to the door, and what comes through it to
// every unit and to a database: no panic, no row that the schema refuses, no
// operation that the database refuses, and all is gone when the intent is.
func FuzzDecodeAndCompile(f *testing.F) {
	f.Add(fuzzSeed)
	f.Add(strings.ReplaceAll(fuzzSeed, "10.244.1.0/24", "10.244.1.0/31"))
	f.Add(strings.ReplaceAll(fuzzSeed, "node1", "node/1"))
	f.Fuzz(func(t *testing.T, text string) {
		objects, _ := kube.Decode([]byte(text))
		sh := script.New(script.Config{Kinds: compile.Kinds(), Databases: scripttest.Simulate(rows.NB, rows.SB, rows.OVS)})
		for _, o := range objects {
			sh.Put(o)
		}
		if err := sh.Settle(); err != nil {
			t.Fatal(err)
		}
		if err := scripttest.Check(sh); err != nil {
			t.Fatal(err)
		}
		for k := range sh.Objects() {
			sh.Delete(k)
		}
		if err := sh.Settle(); err != nil {
			t.Fatal(err)
		}
		if err := scripttest.Empty(sh); err != nil {
			t.Fatal(err)
		}
	})
}
