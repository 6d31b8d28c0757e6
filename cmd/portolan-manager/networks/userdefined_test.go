package networks

import (
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	v1 "github.com/portolan-cni/portolan/pkg/api/k8sovn/v1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// apply creates a user-defined network from YAML.
func (l *lab) apply(text string) {
	l.t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		l.t.Fatal(err)
	}
	r := l.s.Resource(userDefinedResource(u.GetKind()))
	var err error
	if u.GetNamespace() == "" {
		_, err = r.Create(l.t.Context(), u, metav1.CreateOptions{})
	} else {
		_, err = r.Namespace(u.GetNamespace()).Create(l.t.Context(), u, metav1.CreateOptions{})
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// text is a definition's; "" if there is none.
func (l *lab) text(key string) string {
	namespace, name, _ := cutKey(key)
	u, err := l.s.Resource(Definitions()).Namespace(namespace).Get(l.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	text, _, _ := unstructured.NestedString(u.Object, "spec", "config")
	return text
}

// condition tells whether an object's condition is such, and its message has a part.
func (l *lab) condition(kind, key, condition string, status metav1.ConditionStatus, part string) func() bool {
	return func() bool {
		l.k.mu.Lock()
		defer l.k.mu.Unlock()
		u := l.k.userDefined[kind+"/"+key]
		if u == nil {
			return false
		}
		for _, c := range u.status.Conditions {
			if c.Type == condition && c.Status == status && strings.Contains(c.Message, part) {
				return true
			}
		}
		return false
	}
}

func TestUserDefinedNetwork(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.apply(`{apiVersion: k8s.ovn.org/v1, kind: UserDefinedNetwork, metadata: {namespace: a, name: blue},
spec: {topology: Layer2, layer2: {role: Secondary, subnets: [10.1.0.0/16, "fd01::/64"], mtu: 1300, ipam: {lifecycle: Persistent}}}}`)
	l.wait("the network", func() bool { n := l.network("a_blue"); return n != nil && n.Spec.PersistentIPs && n.Spec.MTU == 1300 })
	l.wait("both conditions", func() bool {
		return l.condition(v1.KindUDN, "a/blue", v1.ConditionCreated, "True", "")() && l.condition(v1.KindUDN, "a/blue", v1.ConditionReady, "True", "")()
	})
	want := l.text("a/blue")
	l.define("a/blue", strings.Replace(want, "1300", "1200", 1))
	l.wait("an edit to be set back", func() bool { return l.text("a/blue") == want })
	var got rendered
	if err := json.Unmarshal([]byte(want), &got); err != nil || got.Subnets != "10.1.0.0/16,fd01::/64" || got.Role != "secondary" {
		t.Errorf("%s, %v", want, err)
	}
	if err := l.s.Resource(userDefinedResource(v1.KindUDN)).Namespace("a").Delete(t.Context(), "blue", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	l.wait("its end", func() bool { return l.text("a/blue") == "" && l.network("a_blue") == nil })
}

func TestUserDefinedNetworkIsRefused(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.apply(`{apiVersion: k8s.ovn.org/v1, kind: UserDefinedNetwork, metadata: {namespace: a, name: main},
spec: {topology: Layer3, layer3: {role: Primary, subnets: [{cidr: 10.1.0.0/16}]}}}`)
	l.wait("a primary one", l.condition(v1.KindUDN, "a/main", v1.ConditionCreated, "False", "role Primary is not supported yet"))
	l.define("a/mine", config("mine", layer2))
	l.wait("a definition by hand", l.ready("mine", 1, "a/mine"))
	l.apply(`{apiVersion: k8s.ovn.org/v1, kind: UserDefinedNetwork, metadata: {namespace: a, name: mine},
spec: {topology: Layer3, layer3: {role: Secondary, subnets: [{cidr: 10.2.0.0/16, hostSubnet: 26}]}}}`)
	l.wait("what is in the way", l.condition(v1.KindUDN, "a/mine", v1.ConditionCreated, "False", "NetworkAttachmentDefinition a/mine is there"))
	if l.text("a/main") != "" || !strings.Contains(l.text("a/mine"), "layer2") {
		t.Errorf("definitions %q and %q", l.text("a/main"), l.text("a/mine"))
	}
	l.define("a/mine", "")
	l.wait("the way to be free", l.condition(v1.KindUDN, "a/mine", v1.ConditionReady, "True", ""))
	if n := l.network("a_mine"); n.Spec.Subnets[0] != "10.2.0.0/16/26" {
		t.Errorf("%+v", n.Spec)
	}
}

func TestClusterUserDefinedNetworkFollowsNamespaces(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.k.Put(&intent.Namespace{Name: "a", Labels: map[string]string{"team": "x"}})
	l.k.Put(&intent.Namespace{Name: "b"})
	l.apply(`{apiVersion: k8s.ovn.org/v1, kind: ClusterUserDefinedNetwork, metadata: {name: shared},
spec: {namespaceSelector: {matchLabels: {team: x}}, network: {topology: Localnet, localnet: {role: Secondary, physicalNetworkName: wire,
ipam: {mode: Disabled}, vlan: {mode: Access, access: {id: 100}}}}}}`)
	l.wait("that the wire is missing", l.condition(v1.KindCUDN, "shared", v1.ConditionReady, "False", "there is no PhysicalNetwork wire"))
	if !l.condition(v1.KindCUDN, "shared", v1.ConditionCreated, "True", "namespaces: a")() || l.text("b/shared") != "" {
		t.Error("not created where it should be")
	}
	l.k.Put(&intent.Namespace{Name: "b", Labels: map[string]string{"team": "x"}})
	l.wait("the second namespace", l.condition(v1.KindCUDN, "shared", v1.ConditionCreated, "True", "namespaces: a, b"))
	l.k.Put(&intent.Namespace{Name: "a"})
	l.wait("the first one's end", func() bool { return l.text("a/shared") == "" && strings.Contains(l.text("b/shared"), `"vlanID":100`) })
}
