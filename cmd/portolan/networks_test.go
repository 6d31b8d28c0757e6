package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/inspect"
	"github.com/portolan-cni/portolan/pkg/reach"
)

// worldYAML is testdata/networks.yaml as node1's zone has it.
func worldYAML(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/networks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return clusterOf("node1") + "---\n" + string(text)
}

func TestNetworksOfANode(t *testing.T) {
	socket, _ := agent(t, worldYAML(t))
	out, err := said(t, "networks", "--socket", socket)
	for _, line := range []string{
		"NAME    TOPOLOGY           SUBNETS         USED  FREE  PODS  RENDERED ON  ROWS  READY\n",
		"blue    layer2             10.9.0.0/16     -     -     3     node1,node2  4     -\n",
		"green   layer3             10.1.0.0/16/24  -     -     3     node1,node2  ",
		"lan     localnet vlan 100  192.168.7.0/24  -     -     3     node1,node2  3     -\n",
		"unused  layer2             10.11.0.0/16    -     -     0     -            0     -\n",
	} {
		if err != nil || !strings.Contains(out, line) {
			t.Errorf("%v, no %q in\n%s", err, line, out)
		}
	}
	out, err = said(t, "networks", "--socket", socket, "demo/lan")
	for _, line := range []string{
		"network     lan, id 3, localnet\n", "wire        physical network wire, VLAN 100\n", "claimed by  demo/lan\n",
		"SLOT  NODE   SUBNETS  ENTRIES\n0     node1  -        2\n",
		"demo/far  node2  demo/lan  192.168.7.69/24  0a:58:c0:a8:07:45  66\n",
	} {
		if err != nil || !strings.Contains(out, line) {
			t.Errorf("%v, no %q in\n%s", err, line, out)
		}
	}
	out, err = said(t, "networks", "--socket", socket, "unused")
	if err != nil || !strings.Contains(out, "rendered    nowhere: no pod uses it, so it has no rows\n") {
		t.Errorf("%v, found\n%s", err, out)
	}
	out, err = said(t, "networks", "--socket", socket, "blue", "-o", "json")
	var list []networkReport
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || len(list[0].Ports) != 3 || list[0].ID != 2 {
		t.Errorf("%v, found\n%s", err, out)
	}
	if out, err := said(t, "networks", "--socket", socket, "nobody"); err == nil || !strings.Contains(err.Error(), "there is no network nobody, but blue, green, lan, unused") {
		t.Errorf("%v, found\n%s", err, out)
	}
	if out, _ := said(t, "status", "--socket", socket); !strings.Contains(out, "up         3         0") {
		t.Errorf("status says\n%s", out)
	}
}

// TestNetworkOfObjectsAndAgents joins what the API server and two agents say.
func TestNetworkOfObjectsAndAgents(t *testing.T) {
	o := &v1alpha1.Network{ObjectMeta: metav1.ObjectMeta{Name: "lan"}}
	o.Spec = v1alpha1.NetworkSpec{ID: 3, Topology: "localnet", Subnets: []string{"192.168.7.0/24"}, PhysicalNetwork: "wire", Definitions: []string{"demo/lan"}}
	o.Status = v1alpha1.NetworkStatus{Pods: 2, AddressesUsed: 2, AddressesFree: 250,
		Claims:     []v1alpha1.NetworkClaim{{Definition: "demo/lan", Accepted: true}, {Definition: "x/lan", Message: "vlanID is 5 and 0"}},
		Conditions: []metav1.Condition{{Type: "Ready", Status: "True", Reason: "Conflict", Message: "x/lan: vlanID is 5 and 0"}}}
	n := reported(o)
	n.Wire = wireOf([]v1alpha1.PhysicalNetwork{{ObjectMeta: metav1.ObjectMeta{Name: "wire"}, Status: v1alpha1.PhysicalNetworkStatus{
		Ready: "1/2", Nodes: []v1alpha1.PhysicalNetworkNode{{Node: "b", Message: "NIC eth1 has an address"}}}}}, "wire")
	n.join(inspect.Network{Name: "lan", Rows: 3, Nodes: []string{"a"}, Ports: []inspect.NetworkPort{{Pod: "demo/one", Node: "a", Attachment: "demo/lan"}}}, reach.Agent{Node: "a"})
	n.join(inspect.Network{Name: "lan", Rows: 3, Pending: true, Ports: []inspect.NetworkPort{{Pod: "demo/two", Node: "b", Attachment: "demo/lan"}},
		Problems: []inspect.Problem{{Object: "Network/lan", Field: "spec.vlanID", Severity: "error", Message: "in use"}}}, reach.Agent{Node: "b"})
	n.finish()
	var b strings.Builder
	writeNetworks(&b, []networkReport{*n})
	want := `NAME  TOPOLOGY  SUBNETS         USED  FREE  PODS  RENDERED ON  ROWS       READY
lan   localnet  192.168.7.0/24  2     250   2     a,b          6 pending  True
lan: Conflict: x/lan: vlanID is 5 and 0
lan: definition x/lan is not accepted: vlanID is 5 and 0
lan: physical network wire: b: NIC eth1 has an address
lan: error spec.vlanID: in use
`
	if b.String() != want {
		t.Errorf("found\n%swanted\n%s", b.String(), want)
	}
}

func TestPlanOfADefinition(t *testing.T) {
	socket, _ := agent(t, worldYAML(t))
	file := t.TempDir() + "/red.yaml"
	if err := os.WriteFile(file, []byte(`apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: red, namespace: demo}
spec: {config: '{"cniVersion":"1.0.0","type":"ovn-k8s-cni-overlay","name":"red","netAttachDefName":"demo/red","topology":"layer2","subnets":"10.12.0.0/16"}'}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := said(t, "plan", "--socket", socket, "-f", file)
	for _, line := range []string{
		"added    Definition/demo/red\nadded    Network/red\n", "note     network red would be made: layer2, 10.12.0.0/16; id 5 is assumed",
		"note     no pod of this zone uses network red, so it costs no rows", "0 rows and 0 shared elements differ: 0 operations in 0 transactions; cost: none\n",
	} {
		if err != nil || !strings.Contains(out, line) {
			t.Errorf("%v, no %q in\n%s", err, line, out)
		}
	}
}

func TestExplainNetworksByTheClustersNames(t *testing.T) {
	socket, _ := agent(t, worldYAML(t))
	for asked, unit := range map[string]string{
		"Network/blue": "unit     network/blue", "NetworkAttachmentDefinition/demo/blue": "unit     network/blue", "AddressBlock/blue.1": "unit     block/1/blue",
	} {
		out, err := said(t, "explain", "--socket", socket, asked)
		if err != nil || !strings.Contains(out, unit) {
			t.Errorf("%s: %v, no %q in\n%s", asked, err, unit, out)
		}
	}
}
