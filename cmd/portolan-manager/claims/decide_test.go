package claims

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

func testWorld(t testing.TB) *World {
	t.Helper()
	plan, problems := kube.ParseCluster(&v1alpha1.Cluster{Spec: v1alpha1.ClusterSpec{
		ClusterSubnets: []string{"10.244.0.0/16/24"}, ServiceSubnets: []string{"10.96.0.0/16"}, MTU: 1400,
	}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return &World{Plan: plan, Definitions: map[string]*Definition{}, Networks: map[string]*v1alpha1.Network{}}
}

// define adds a definition of an age in seconds.
func (w *World) define(key, text string, age int) {
	namespace, name, _ := strings.Cut(key, "/")
	if !strings.Contains(text, "netAttachDefName") {
		text = strings.Replace(text, `"name"`, fmt.Sprintf(`"netAttachDefName":%q,"name"`, key), 1)
	}
	d := &Definition{Namespace: namespace, Name: name, UID: key, Created: time.Unix(1e9-int64(age), 0)}
	if d.Parse(text) {
		w.Definitions[key] = d
	}
}

// TestBadDefinitions is the table of what may be wrong with a definition alone.
func TestBadDefinitions(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"type":"portolan"`, "is no JSON object (EOF); write {…}"},
		{`{"type":"portolan","name":"x","topology":"layer4"}`, `topology is "layer4"; did you mean layer`},
		{`{"type":"portolan","name":"x","topology":"layer2","subnet":"10.1.0.0/16"}`, `field "subnet" is not known; did you mean subnets?`},
		{`{"type":"portolan","name":"default","topology":"layer2"}`, `"default" is the cluster's default network`},
		{`{"type":"portolan","name":"x","topology":"layer2","role":"primary"}`, "Portolan has no primary networks yet"},
		{`{"type":"portolan","name":"x","topology":"layer2","netAttachDefName":"b/net"}`, `write "a/net", the definition's own namespace/name`},
		{`{"type":"portolan","name":"x","topology":"layer3"}`, "subnets"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"10.244.8.0/24"}`, "10.244.8.0/24 overlaps 10.244.0.0/16, the cluster's default network"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"10.96.8.0/24"}`, "the cluster's service network"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"100.64.8.0/24"}`, "the cluster's join network"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"100.88.8.0/24"}`, "the cluster's transit network"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"10.1.0.0"}`, "subnets is"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"10.1.0.0/16,10.2.0.0/16"}`, "subnets"},
		{`{"type":"portolan","name":"x","topology":"layer2","vlanID":5}`, "vlanID is 5"},
		{`{"type":"portolan","name":"x","topology":"localnet","vlanID":4095}`, "vlanID is 4095; write a VLAN, 1 to 4094"},
		{`{"type":"portolan","name":"x","topology":"localnet"}`, "there is no PhysicalNetwork x"},
		{`{"type":"portolan","name":"x","topology":"layer2","physicalNetworkName":"wire"}`, "physicalNetworkName is"},
		{`{"type":"portolan","name":"x","topology":"layer2","mtu":9000}`, "9000 is more than the 1400 bytes"},
		{`{"type":"portolan","name":"x","topology":"layer2","mtu":100}`, "mtu is 100"},
		{`{"type":"portolan","name":"x","topology":"layer2","subnets":"10.1.0.0/16","excludeSubnets":"10.2.0.0/24"}`, "excludeSubnets is"},
		{`{"type":"portolan","name":"x","topology":"layer2","allowPersistentIPs":true}`, "allowPersistentIPs is true"},
	} {
		w := testWorld(t)
		w.define("a/net", c.text, 0)
		d := Decide(w)
		if got := d.Findings["a/net"]; !strings.Contains(got.Message, c.want) {
			t.Errorf("%s: found %+v, want %q", c.text, got, c.want)
		}
		for _, n := range d.Networks {
			if len(n.Spec.Definitions) > 0 || n.Status.Conditions[0].Status != "False" || len(n.Spec.Subnets) > 0 {
				t.Errorf("%s: made %+v", c.text, n)
			}
		}
	}
}

func TestOldestClaimIsAccepted(t *testing.T) {
	w := testWorld(t)
	w.define("a/young", `{"type":"portolan","name":"x","topology":"layer2"}`, 1)
	w.define("a/old", `{"type":"ovn-k8s-cni-overlay","name":"x","topology":"layer3","subnets":"10.1.0.0/16"}`, 9)
	w.define("a/same", `{"type":"ovn-k8s-cni-overlay","name":"x","topology":"layer3","subnets":"10.1.0.0/16/24"}`, 2)
	w.define("a/other", `{"type":"bridge","name":"y"}`, 2)
	d := Decide(w)
	if len(d.Networks) != 1 || d.Networks[0].Spec.Topology != "layer3" {
		t.Fatalf("%+v", d)
	}
	if got := strings.Join(d.Networks[0].Spec.Definitions, " "); got != "a/old a/same" {
		t.Errorf("accepted %s", got)
	}
	if free := d.Networks[0].Status.AddressesFree; free != 256*252 {
		t.Errorf("%d addresses free", free)
	}
}

func TestNetworksBesideOthers(t *testing.T) {
	w := testWorld(t)
	w.Networks["a-b"] = &v1alpha1.Network{Spec: v1alpha1.NetworkSpec{
		Name: "a-b", ID: 1, Topology: "layer2", Subnets: []string{"10.1.0.0/16"}, Definitions: []string{"a/net"},
	}}
	w.define("a/net", `{"type":"portolan","name":"a-b","topology":"layer2","subnets":"10.1.0.0/16"}`, 9)
	w.define("a/dots", `{"type":"portolan","name":"a.b","topology":"layer2"}`, 1)
	w.define("a/overlap", `{"type":"portolan","name":"c","topology":"layer2","subnets":"10.1.4.0/24"}`, 1)
	d := Decide(w)
	if got := d.Findings["a/dots"].Message; !strings.Contains(got, `"a-b" are one name in OVN`) {
		t.Errorf("dots: %q", got)
	}
	if got, ok := d.Findings["a/overlap"]; ok {
		t.Errorf("overlap with a network that nobody uses: %+v", got)
	}
	w.Uses = map[string]map[string]Use{"a/net": {"a/pod": {Node: "n1", Addressed: 1}}}
	if got := Decide(w).Findings["a/overlap"].Message; !strings.Contains(got, "10.1.4.0/24 overlaps 10.1.0.0/16 of network a-b, which is in use") {
		t.Errorf("overlap: %q", got)
	}
	w.define("a/net", `{"type":"portolan","name":"moved","topology":"layer2"}`, 9)
	if got := Decide(w).Findings["a/net"].Message; !strings.Contains(got, "1 pods are attached to network a-b by this definition") {
		t.Errorf("moved: %q", got)
	}
}

// TestPartsOfSubnetsThatAreNotAcceptedAreNotEither edits a network in use to other subnets, and what
// is excluded with them: of what is accepted as much must stay excluded as before.
func TestPartsOfSubnetsThatAreNotAcceptedAreNotEither(t *testing.T) {
	const head = `{"type":"portolan","name":"x","topology":"layer2",`
	accepted := v1alpha1.NetworkSpec{
		Name: "x", ID: 1, Topology: "layer2", Subnets: []string{"10.1.0.0/24"}, ExcludeSubnets: []string{"10.1.0.0/28"},
		ReservedSubnets: []string{"10.1.0.16/28"}, PersistentIPs: true, Definitions: []string{"a/net"},
	}
	for _, c := range []struct{ config, exclude, reserved, message string }{
		{
			head + `"subnets":"10.2.0.0/24","excludeSubnets":"10.2.0.0/28","allowPersistentIPs":true}`, "10.1.0.0/28", "10.1.0.16/28",
			"subnets is 10.2.0.0/24, accepted is 10.1.0.0/24; excludeSubnets is 10.2.0.0/28, accepted is 10.1.0.0/28; reservedSubnets is not given, accepted is 10.1.0.16/28",
		},
		{head + `"subnets":"10.1.0.0/24","excludeSubnets":"10.1.0.32/28","mtu":1200,"allowPersistentIPs":true}`, "10.1.0.32/28", "", "mtu is 1200, accepted is not given"},
		{
			`{"type":"portolan","name":"x","topology":"layer3","subnets":"10.1.0.0/24/28"}`, "10.1.0.0/28", "10.1.0.16/28",
			"topology is layer3, accepted is layer2; subnets is 10.1.0.0/24/28, accepted is 10.1.0.0/24; excludeSubnets is not given, accepted is 10.1.0.0/28",
		},
	} {
		w := testWorld(t)
		w.Networks["x"] = &v1alpha1.Network{Spec: accepted}
		w.Uses = map[string]map[string]Use{"a/net": {"a/pod": {Node: "n1", Addressed: 1}}}
		w.define("a/net", c.config, 9)
		d := Decide(w)
		s := d.Networks[0].Spec
		if strings.Join(s.Subnets, " ") != "10.1.0.0/24" || strings.Join(s.ExcludeSubnets, " ") != c.exclude || strings.Join(s.ReservedSubnets, " ") != c.reserved || !s.PersistentIPs {
			t.Errorf("%s: accepted is %+v", c.config, s)
		}
		if got := d.Findings["a/net"].Message; !strings.HasPrefix(got, c.message) {
			t.Errorf("%s: says %q, want %q", c.config, got, c.message)
		}
	}
}
