package kube

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

const (
	cluster = `apiVersion: portolan.io/v1alpha1
kind: Cluster
metadata: {name: cluster}
spec:
  node: node1
  clusterSubnets: [10.244.0.0/16/24]
  serviceSubnets: [10.96.0.0/16]
`
	node = `apiVersion: v1
kind: Node
metadata:
  name: node1
  labels: {rack: a}
  annotations:
    k8s.ovn.org/node-id: "2"
    k8s.ovn.org/node-subnets: '{"default":["10.244.1.0/24"]}'
    k8s.ovn.org/node-chassis-id: c1
    k8s.ovn.org/node-mgmt-port-mac-addresses: '{"default":"0a:58:0a:f4:01:02"}'
status:
  addresses: [{type: Hostname, address: node1}, {type: InternalIP, address: 172.18.0.2}]
`
	pod = `apiVersion: v1
kind: Pod
metadata:
  name: web-0
  uid: u1
  labels: {app: web}
  annotations:
    k8s.ovn.org/pod-networks: '{"default":{"ip_addresses":["10.244.1.5/24"],"mac_address":"0a:58:0a:f4:01:05","gateway_ips":["10.244.1.1"]}}'
spec: {nodeName: node1}
`
)

// decoded renders a Decode for comparison: keys of objects, then problems.
func decoded(objects []intent.Object, problems []rows.Problem) string {
	var b strings.Builder
	for _, o := range objects {
		b.WriteString(o.Key().String() + "\n")
	}
	for _, p := range problems {
		b.WriteString(strings.Join([]string{string(p.Severity), p.Object, p.Field, p.Message}, "|") + "\n")
	}
	return b.String()
}

func TestDecodeObjects(t *testing.T) {
	objects, problems := Decode([]byte(cluster + "---\n# nothing here\n---\n" + node + "---\n" + pod +
		"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {team: x}}\n"))
	if len(problems) != 0 {
		t.Fatalf("problems: %+v", problems)
	}
	want := []intent.Object{
		&intent.Cluster{
			Zone: "node1", PodSubnets: prefixes("10.244.0.0/16"), ServiceNets: prefixes("10.96.0.0/16"),
			JoinSubnets: prefixes("100.64.0.0/16"), TransitNets: prefixes("100.88.0.0/16"), Masquerade: prefixes("169.254.169.0/29"),
			MTU: DefaultMTU,
		},
		&intent.Node{
			Name: "node1", Zone: "node1", ID: 2, Subnets: prefixes("10.244.1.0/24"), Chassis: "c1", EncapIPs: addrs("172.18.0.2"),
			MgmtMAC: "0a:58:0a:f4:01:02", Labels: map[string]string{"rack": "a"},
		},
		&intent.Pod{
			Namespace: "default", Name: "web-0", UID: "u1", Node: "node1", Labels: map[string]string{"app": "web"},
			Attachments: []intent.Attachment{{
				Network: "default", MAC: "0a:58:0a:f4:01:05", Addresses: prefixes("10.244.1.5/24"), Gateways: addrs("10.244.1.1"),
			}},
		},
		&intent.Namespace{Name: "default", Labels: map[string]string{"team": "x"}},
	}
	if d := cmp.Diff(want, objects, netipText...); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestDecodeCases(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"a pod on the host's network has no intent", strings.Replace(pod, "spec: {", "spec: {hostNetwork: true, ", 1), ""},
		{"a pod without a node has no intent", strings.Replace(pod, "nodeName: node1", "", 1), ""},
		{"a completed pod has no intent", pod + "status: {phase: Failed}\n", ""},
		{"a list is its items", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}},{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"b"}}]}`,
			"Namespace/a\nNamespace/b\n"},
		{"another kind is left out aloud", "apiVersion: apps/v1\nkind: Deployment\n", "warning|document 1||apps/v1/Deployment is not read here and is left out\n"},
		{"an object without a name", "apiVersion: v1\nkind: Node\n", "error|document 1||v1/Node without metadata.name\n"},
		{"no kind", "a: b\n", "error|document 1||the object has no apiVersion and kind\n"},
		{"a network", "apiVersion: portolan.io/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: {id: 1, topology: layer2, subnets: [10.9.0.0/16]}\n", "Network/blue\n"},
		{"a network without topology", "apiVersion: portolan.io/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: {}\n",
			`error|Network/blue|spec.topology|topology "" is none of "layer3", "layer2" and "localnet"` + "\n"},
		{"a bad annotation spares the rest", strings.Replace(node, `"2"`, `"two"`, 1),
			"Node/node1\nerror|Node/node1|metadata.annotations[k8s.ovn.org/node-id]|node id \"two\" is not a number from 2 to 5000; " +
				"it is ignored: remove the annotation and its writer sets it anew, or correct it\n"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, decoded(Decode([]byte(c.in)))); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
	if _, problems := Decode([]byte(strings.Replace(cluster, "serviceSubnets", "serviceSubnet", 1))); len(problems) != 1 || !strings.Contains(problems[0].Message, "serviceSubnet") {
		t.Errorf("a misspelt field of ours: %+v", problems)
	}
}

func TestGlobalZoneHoldsEveryNode(t *testing.T) {
	objects, _ := Decode([]byte(node + "---\n" + strings.Replace(cluster, "node: node1", "zone: global", 1)))
	if n := objects[0].(*intent.Node); n.Zone != "global" {
		t.Errorf("node is in zone %q", n.Zone)
	}
	if c := objects[1].(*intent.Cluster); c.Zone != "global" || !c.GlobalZone {
		t.Errorf("cluster renders zone %q", c.Zone)
	}
}

func TestParseClusterRefuses(t *testing.T) {
	cases := []struct{ change, to, field, message string }{
		{"10.96.0.0/16", "10.244.128.0/24", "spec.serviceSubnets", "overlaps 10.244.0.0/16"},
		{"10.244.0.0/16/24", "10.244.0.0/16/8", "spec.clusterSubnets", "host prefix /8"},
		{"10.244.0.0/16/24", "10.244.0.0/16/x", "spec.clusterSubnets", "not the length"},
		{"[10.244.0.0/16/24]", "[]", "spec.clusterSubnets", "no cluster subnet"},
		{"node: node1", "zone: rack", "spec.zone", `neither "node" nor "global"`},
		{"node: node1", "mtu: 100", "spec.mtu", "outside 576"},
		{"node: node1", "gateway: {vlan: 4095}", "spec.gateway.vlan", "4094"},
		{"node: node1", "gateway: {externalPortRange: 9-2}", "spec.gateway.externalPortRange", "FIRST-LAST"},
		{"node: node1", "datapath: kernel", "spec.datapath", "netdev"},
		{"node: node1", "multiNetwork: both", "spec.multiNetwork", "multus"},
	}
	for _, c := range cases {
		_, problems := Decode([]byte(strings.Replace(cluster, c.change, c.to, 1)))
		if len(problems) != 1 || problems[0].Field != c.field || !strings.Contains(problems[0].Message, c.message) {
			t.Errorf("%s: %+v", c.to, problems)
		}
	}
}

func TestAgentAnnotationsAreReadBack(t *testing.T) {
	in := &intent.Node{
		Name: "node1", Zone: "node1", Chassis: "c1", EncapIPs: addrs("172.18.0.2"), MgmtMAC: "0a:58:0a:f4:01:02",
		Gateway: intent.Gateway{
			Bridge: "br-ex", Interface: "eth0", MAC: "02:42:ac:12:00:02", Addresses: prefixes("172.18.0.2/24"), NextHops: addrs("172.18.0.1"),
		},
	}
	k := &corev1.Node{}
	k.Name, k.Annotations = "node1", AgentAnnotations(in, 0)
	out, problems := ParseNode(k, ZonePerNode)
	if len(problems) != 0 || !in.Equal(out) {
		t.Errorf("wrote %+v, read %+v, %+v", in, out, problems)
	}
	delete(k.Annotations, AnnotationEncapIPs)
	if out, _ = ParseNode(k, ZonePerNode); len(out.EncapIPs) != 1 || out.EncapIPs[0].String() != "172.18.0.2" {
		t.Errorf("without its own annotation the tunnel endpoint is %v", out.EncapIPs)
	}
}
