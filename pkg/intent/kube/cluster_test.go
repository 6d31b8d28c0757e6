package kube

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestClusterFileSaysWhatIsWrong has each mistake of a Cluster file, and the whole
// message that its user reads.
func TestClusterFileSaysWhatIsWrong(t *testing.T) {
	head := "apiVersion: portolan.io/v1alpha1\nkind: Cluster\nmetadata: {name: c}\nspec:\n"
	plan := "  clusterSubnets: [10.244.0.0/16/24]\n  serviceSubnets: [10.96.0.0/16]\n"
	for _, c := range []struct{ name, text, want string }{
		{"subnets overlap each other", "  clusterSubnets: [10.244.0.0/16/24, 10.244.128.0/17/24]\n", "spec.clusterSubnets: cluster subnets 10.244.0.0/16 and 10.244.128.0/17 overlap"},
		{"services in pods", "  clusterSubnets: [10.96.0.0/12/24]\n  serviceSubnets: [10.96.0.0/16]\n", "spec.serviceSubnets: 10.96.0.0/16 overlaps 10.96.0.0/12 of spec.clusterSubnets: choose another"},
		{"join in pods", plan + "  joinSubnets: [10.244.9.0/24]\n", "spec.joinSubnets: 10.244.9.0/24 overlaps 10.244.0.0/16 of spec.clusterSubnets: choose another"},
		{"pods in the default join", "  clusterSubnets: [100.64.0.0/12/24]\n", "spec.joinSubnets: 100.64.0.0/16 overlaps 100.64.0.0/12 of spec.clusterSubnets: choose another"},
		{"transit in join", plan + "  transitSubnets: [100.64.3.0/24]\n", "spec.transitSubnets: 100.64.3.0/24 overlaps 100.64.0.0/16 of spec.joinSubnets: choose another"},
		{"masquerade in services", plan + "  masqueradeSubnets: [10.96.3.0/29]\n", "spec.masqueradeSubnets: 10.96.3.0/29 overlaps 10.96.0.0/16 of spec.serviceSubnets: choose another"},
		{"bad LENGTH", "  clusterSubnets: [10.244.0.0/16/x]\n", `spec.clusterSubnets: cluster subnet "10.244.0.0/16/x": "x" is not the length of a node's subnet`},
		{"LENGTH shorter than the subnet", "  clusterSubnets: [10.244.0.0/16/8]\n", "spec.clusterSubnets: cluster subnet 10.244.0.0/16: host prefix /8"},
		{"no CIDR", "  clusterSubnets: [ten]\n", `spec.clusterSubnets: cluster subnet "ten" is not an address with a prefix length`},
		{"host bits", plan + "  joinSubnets: [100.64.0.1/16]\n", "spec.joinSubnets: 100.64.0.1/16 has host bits set: its network is 100.64.0.0/16"},
		{"a misspelt field", plan + "  gatway: {bridge: br-ex}\n", `unknown field "gatway"`},
		{"a misspelt field of gateway", plan + "  gateway: {brige: br-ex}\n", `unknown field "brige": did you mean spec.gateway.bridge?`},
		{"a field in another's place", plan + "  takeover: force\n", `unknown field "takeover": did you mean spec.gateway.takeover?`},
		{"a field of no name", plan + "  frobnicate: 1\n", `unknown field "frobnicate": the fields are spec.apiServer, `},
		{"a wrong type", plan + "  mtu: large\n", "cannot unmarshal string into Go struct field ClusterSpec.spec.mtu of type int"},
		{"a wrong word", plan + "  zone: rack\n", `spec.zone: zone "rack" is neither "node" nor "global"`},
	} {
		file := filepath.Join(t.TempDir(), "cluster.yaml")
		if err := os.WriteFile(file, []byte(head+c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		spec, err := ReadCluster(file)
		var got []string
		if err != nil {
			got = append(got, err.Error())
		} else {
			_, problems := ParseCluster(spec)
			for _, p := range problems {
				got = append(got, p.Field+": "+p.Message)
			}
		}
		if all := strings.Join(got, "\n"); !strings.Contains(all, c.want) || len(got) > 2 {
			t.Errorf("%s:\n%s\nwant %s", c.name, all, c.want)
		}
	}
}

func TestANodesNameOnAnotherMachine(t *testing.T) {
	here := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("172.18.0.4")}
	theirs := []netip.Addr{netip.MustParseAddr("172.18.0.2")}
	if err := CheckIdentity("worker", theirs, here); err == nil || !strings.Contains(err.Error(), "node worker has address 172.18.0.2, which no link of this machine has") || !strings.Contains(err.Error(), "--node-name") {
		t.Error(err)
	}
	if err := CheckIdentity("worker", here[1:], here); err != nil {
		t.Error(err)
	}
	if err := CheckIdentity("worker", nil, here); err != nil { // kubelet has not said yet
		t.Error(err)
	}
}

// TestOffload has the modes, what they imply, and what is refused.
func TestOffload(t *testing.T) {
	for _, test := range []struct {
		spec    v1alpha1.OffloadSpec
		want    intent.Offload
		problem string // field
	}{
		{v1alpha1.OffloadSpec{Mode: "hardware"}, intent.Offload{Mode: intent.OffloadHardware, RouteMTU: true}, ""},
		{v1alpha1.OffloadSpec{Mode: "hardware-only", PathMTU: "router"}, intent.Offload{Mode: intent.OffloadHardwareOnly}, ""},
		{v1alpha1.OffloadSpec{Mode: "software"}, intent.Offload{Mode: intent.OffloadSoftware}, ""},
		{v1alpha1.OffloadSpec{Mode: "off", PathMTU: "route", InvalidConnections: "deliver"}, intent.Offload{Mode: intent.OffloadOff, RouteMTU: true, DeliverInvalid: true}, ""},
		{v1alpha1.OffloadSpec{Mode: "on"}, intent.Offload{}, "spec.offload.mode"},
		{v1alpha1.OffloadSpec{}, intent.Offload{}, "spec.offload.mode"},
		{v1alpha1.OffloadSpec{Mode: "off", PathMTU: "mss"}, intent.Offload{Mode: intent.OffloadOff}, "spec.offload.pathMTU"},
		{v1alpha1.OffloadSpec{Mode: "off", InvalidConnections: "drop"}, intent.Offload{Mode: intent.OffloadOff}, "spec.offload.invalidConnections"},
		{v1alpha1.OffloadSpec{Mode: "off", ObserveSeconds: -1}, intent.Offload{Mode: intent.OffloadOff}, "spec.offload.observeSeconds"},
		{v1alpha1.OffloadSpec{Mode: "off", NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"-": "-"}}}, intent.Offload{Mode: intent.OffloadOff, Nodes: noObject()}, "spec.offload.nodeSelector"},
	} {
		c, problems := ParseCluster(&v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{ClusterSubnets: []string{"10.244.0.0/16/24"}, Offload: &test.spec}})
		field := ""
		for _, p := range problems {
			field += p.Field
		}
		if field != test.problem || c.Offload.Mode != test.want.Mode || c.Offload.RouteMTU != test.want.RouteMTU ||
			c.Offload.DeliverInvalid != test.want.DeliverInvalid || c.Offload.Nodes.String() != test.want.Nodes.String() {
			t.Errorf("%+v: found %+v and a problem with %q, wanted %+v and %q", test.spec, c.Offload, field, test.want, test.problem)
		}
	}
}

// TestManagementPort has what the management port can be, and what is refused.
func TestManagementPort(t *testing.T) {
	for _, test := range []struct {
		spec           v1alpha1.ManagementPortSpec
		want           intent.ManagementDevice
		field, message string // of the problem
	}{
		{v1alpha1.ManagementPortSpec{Device: "soft-mp"}, intent.ManagementDevice{Device: "soft-mp"}, "", ""},
		{v1alpha1.ManagementPortSpec{ResourceName: "portolan.io/mp"}, intent.ManagementDevice{Resource: "portolan.io/mp"}, "", ""},
		{v1alpha1.ManagementPortSpec{}, intent.ManagementDevice{}, "spec.managementPort", "neither device nor resourceName"},
		{v1alpha1.ManagementPortSpec{Device: "soft-mp", ResourceName: "portolan.io/mp"}, intent.ManagementDevice{}, "spec.managementPort", `"soft-mp" and resourceName "portolan.io/mp" are both given`},
		{v1alpha1.ManagementPortSpec{ResourceName: "mp"}, intent.ManagementDevice{Resource: "mp"}, "spec.managementPort.resourceName", `"mp" is not a domain and a name`},
	} {
		c, problems := ParseCluster(&v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{ClusterSubnets: []string{"10.244.0.0/16/24"}, ManagementPort: &test.spec}})
		field, message := "", ""
		for _, p := range problems {
			field, message = field+p.Field, message+p.Message
		}
		if field != test.field || !strings.Contains(message, test.message) || (message == "") != (test.message == "") || !reflect.DeepEqual(c.Management, test.want) {
			t.Errorf("%+v: found %+v and %q: %q, wanted %+v and %q", test.spec, c.Management, field, message, test.want, test.field)
		}
	}
	a, b := intent.Cluster{Management: intent.ManagementDevice{Resource: "portolan.io/mp"}}, intent.Cluster{}
	if a.Equal(&b) {
		t.Error("plans with and without a resource of the management port are the same")
	}
}
