package networks

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

func cutKey(key string) (string, string, bool) { return strings.Cut(key, "/") }
func contains(s, part string) bool             { return strings.Contains(s, part) }
func prefixes(s string) []netip.Prefix         { return []netip.Prefix{netip.MustParsePrefix(s)} }

// config is a definition's text.
func config(name, rest string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","type":"portolan","name":%q,%s}`, name, rest)
}

func (l *lab) ready(name string, id int, definitions ...string) func() bool {
	return func() bool {
		n := l.network(name)
		return n != nil && n.Spec.ID == id && slices.Equal(n.Spec.Definitions, definitions) && l.says(name, "True", "Accepted", "")()
	}
}

const layer2 = `"topology":"layer2","subnets":"10.1.0.0/16"`

func TestNetworkFollowsItsDefinitions(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.define("a/net", config("blue", layer2))
	l.wait("the network", l.ready("blue", 1, "a/net"))
	l.define("b/net", config("blue", layer2))
	l.wait("a second definition that agrees", l.ready("blue", 1, "a/net", "b/net"))
	l.define("c/net", config("blue", `"topology":"layer2","subnets":"10.2.0.0/16","mtu":1300`))
	l.wait("one that does not", l.says("blue", "True", "Conflict",
		"c/net: subnets is 10.2.0.0/16, accepted is 10.1.0.0/16; mtu is 1300, accepted is not given"))
	l.mu.Lock()
	if f := l.found["c/net"]; f.Reason != "Conflict" || f.UID == "" {
		t.Errorf("found %+v", l.found)
	}
	l.mu.Unlock()
	if n := l.network("blue"); !slices.Equal(n.Spec.Definitions, []string{"a/net", "b/net"}) || n.Status.Claims[2].Accepted {
		t.Errorf("%+v", n)
	}
	for _, key := range []string{"c/net", "b/net", "a/net"} {
		l.define(key, "")
	}
	l.wait("its end", func() bool { return l.network("blue") == nil })
	l.define("d/net", config("red", layer2))
	l.wait("another id, for the first one rests", l.ready("red", 2, "d/net"))
	if high != 2+ahead || l.leased.Load() != 1 {
		t.Errorf("the Lease says %d after %d writes", high, l.leased.Load())
	}
}

func TestEditInUseLeavesWhatIsAccepted(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.define("a/net", config("blue", layer2))
	l.wait("the network", l.ready("blue", 1, "a/net"))
	l.define("a/net", config("blue", `"topology":"layer2","subnets":"10.3.0.0/16"`))
	l.wait("an edit while unused", func() bool { return l.network("blue").Spec.Subnets[0] == "10.3.0.0/16" })
	l.attach("a/east", "n1", "a/net")
	l.wait("the pod", func() bool { return l.network("blue").Status.Pods == 1 && l.network("blue").Status.Nodes == 1 })
	l.define("a/net", config("blue", `"topology":"layer2","subnets":"10.3.0.0/16","excludeSubnets":"10.3.1.0/24","mtu":1200`))
	l.wait("a condition", l.says("blue", "True", "Conflict", "mtu is 1200, accepted is not given"))
	n := l.network("blue")
	if n.Spec.Topology != "layer2" || !slices.Equal(n.Spec.Definitions, []string{"a/net"}) || !slices.Equal(n.Spec.ExcludeSubnets, []string{"10.3.1.0/24"}) {
		t.Errorf("accepted is %+v", n.Spec)
	}
	l.define("a/net", "")
	l.wait("the network to stay", l.says("blue", "False", "Leaving", "1 pods are attached"))
	if n := l.network("blue"); !slices.Equal(n.Spec.Definitions, []string{"a/net"}) {
		t.Errorf("definitions %v", n.Spec.Definitions)
	}
	l.attach("a/east", "", "")
	l.wait("its end with the last pod", func() bool { return l.network("blue") == nil })
}

// TestEditBesideTheFirstLease edits a network that nobody uses at the moment in which a node
// leases a part of it: the lease that was not heard of yet decides.
func TestEditBesideTheFirstLease(t *testing.T) {
	var high uint64
	s := newServer()
	l := begin(t, s, &high)
	l.define("a/net", config("blue", layer2))
	l.wait("the network", l.ready("blue", 1, "a/net"))
	b := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": "AddressBlock", "metadata": map[string]any{"name": "blue.0", "uid": "b0", "resourceVersion": "1000000"},
		"spec": map[string]any{"network": "blue", "slot": int64(0), "node": "n1"},
	}}
	var once sync.Once
	s.PrependReactor("list", "addressblocks", func(ktesting.Action) (bool, runtime.Object, error) {
		once.Do(func() {
			if err := s.Tracker().Create(resource("addressblocks"), b, ""); err != nil {
				t.Error(err)
			}
		})
		return false, nil, nil
	})
	l.define("a/net", config("blue", `"topology":"layer2","subnets":"10.3.0.0/16"`))
	l.wait("a condition", l.says("blue", "True", "Conflict", "subnets is 10.3.0.0/16, accepted is 10.1.0.0/16; while the network is in use, what is accepted stays in force"))
	if n := l.network("blue"); n.Spec.Subnets[0] != "10.1.0.0/16" {
		t.Errorf("accepted is %+v", n.Spec)
	}
}

func TestAdministratorsSelectorStays(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.k.Put(&intent.Namespace{Name: "a", Labels: map[string]string{"team": "x"}})
	l.k.Put(&intent.Namespace{Name: "b"})
	l.define("a/net", config("blue", layer2))
	l.define("b/net", config("blue", layer2))
	l.wait("the network", l.ready("blue", 1, "a/net", "b/net"))
	write := func(body string) {
		if _, err := l.s.Resource(resource("networks")).Patch(t.Context(), "blue", types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	limited := func() bool { _, ok := l.network("blue").Labels[labelLimited]; return ok }
	if limited() {
		t.Error("a network without a selector has the label of those that have one")
	}
	write(`{"spec":{"namespaceSelector":{"matchLabels":{"team":"x"}}}}`)
	l.wait("the other namespace to be refused", l.says("blue", "True", "Forbidden", "b/net: namespace b is not among"))
	if n := l.network("blue"); n.Spec.NamespaceSelector == nil || !slices.Equal(n.Spec.Definitions, []string{"a/net"}) {
		t.Errorf("%+v", n.Spec)
	}
	l.wait("the label by which admission knows it", limited)
	write(`{"metadata":{"labels":{"portolan.io/limited":null,"mine":"x"}}}`)
	l.wait("the label to be set back", limited)
	write(`{"spec":{"namespaceSelector":null}}`)
	l.wait("both claims", l.says("blue", "True", "Accepted", ""))
	l.wait("no label", func() bool { return !limited() })
	if n := l.network("blue"); n.Labels["mine"] != "x" || !slices.Equal(n.Spec.Definitions, []string{"a/net", "b/net"}) {
		t.Errorf("labels %v, %+v", n.Labels, n.Spec)
	}
}

// TestWritesOfANetwork counts them: one makes it, one says its status, and the Lease is
// written once for many.
func TestWritesOfANetwork(t *testing.T) {
	const n = 40
	s := newServer()
	var high uint64
	before := &lab{t: t, s: s}
	for i := range n {
		before.define(fmt.Sprintf("a/net%d", i), config(fmt.Sprintf("net%d", i), fmt.Sprintf(`"topology":"layer2","subnets":"11.%d.0.0/16"`, i)))
	}
	l := begin(t, s, &high)
	all := func() bool {
		for i := range n {
			if !l.says(fmt.Sprintf("net%d", i), "True", "Accepted", "")() {
				return false
			}
		}
		return true
	}
	l.wait("all", all)
	l.define("a/last", config("last", layer2)) // what one round would write anew, the next has written
	l.wait("one more", l.says("last", "True", "Accepted", ""))
	if made, said := s.count("create networks"), s.count("patch networks"); made != n+1 || said != n+1 || l.leased.Load() != 1 {
		t.Errorf("%d networks took %d creations, %d patches and %d writes of the Lease", n+1, made, said, l.leased.Load())
	}
}

// TestThreeHundredAtOnce creates 300 networks, as many at once as the fake's watch has
// room for, while writes are refused, changes the leader in the middle, and looks for
// ids given twice.
func TestThreeHundredAtOnce(t *testing.T) {
	const n = 300
	s := newServer()
	refused := 0
	s.fail = func(what string) error {
		if !strings.Contains(what, " networks ") || strings.HasPrefix(what, "delete") {
			return nil
		}
		if refused++; refused%7 == 0 {
			return apierrors.NewConflict(schema.GroupResource{Resource: "networks"}, what, errors.New("refused by the test"))
		}
		return nil
	}
	var high uint64
	l := begin(t, s, &high)
	for i := range n {
		l.define(fmt.Sprintf("ns%d/net", i), config(fmt.Sprintf("net%d", i), fmt.Sprintf(`"topology":"layer3","subnets":"11.%d.0.0/16"`, i%250)))
		if i%40 == 39 {
			l.wait("a burst", l.says(fmt.Sprintf("net%d", i), "True", "Accepted", ""))
		}
		if i == n/2 {
			l.stop()
			l = begin(t, s, &high)
		}
	}
	l.wait("all", func() bool {
		for i := range n {
			if !l.says(fmt.Sprintf("net%d", i), "True", "Accepted", "")() {
				return false
			}
		}
		return true
	})
	ids := map[int]string{}
	for i := range n {
		net := l.network(fmt.Sprintf("net%d", i))
		if other := ids[net.Spec.ID]; other != "" || net.Spec.ID < 1 {
			t.Errorf("%s and %s have id %d", other, net.Name, net.Spec.ID)
		}
		ids[net.Spec.ID] = net.Name
	}
	l.stop()
	before := s.count("patch networks") + s.count("create networks")
	l = begin(t, s, &high)
	looked := 0
	l.wait("a round of another leader", func() bool { looked++; return looked > 1 })
	if now := s.count("patch networks") + s.count("create networks"); now != before {
		t.Errorf("a new leader wrote %d times", now-before)
	}
}

func TestPhysicalNetworkIsFolded(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	l.define("a/net", config("lan", `"topology":"localnet","vlanID":100,"physicalNetworkName":"wire"`))
	l.wait("what is missing", l.says("lan", "False", "PhysicalNetworkMissing", "there is no PhysicalNetwork wire"))
	if n := l.network("lan"); len(n.Spec.Definitions) != 0 {
		t.Errorf("pods may attach by %v", n.Spec.Definitions)
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": "PhysicalNetwork", "metadata": map[string]any{"name": "wire"},
		"spec": map[string]any{"nic": "eth1", "vlans": []any{"100-199"}, "nodeSelector": map[string]any{"matchLabels": map[string]any{"wired": "yes"}}},
	}}
	if _, err := l.s.Resource(resource("physicalnetworks")).Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.wait("the network", l.ready("lan", 1, "a/net"))
	for _, node := range []string{"n1", "n2", "n3"} {
		labels := map[string]string{"wired": "yes"}
		if node == "n3" {
			labels = nil
		}
		l.k.Put(&intent.Node{Name: node, Labels: labels})
	}
	l.k.NodesHeard()
	report := func(node string, p v1alpha1.NodePhysicalNetwork) {
		l.k.SetNode(&v1alpha1.NodeNetwork{
			ObjectMeta: metav1.ObjectMeta{Name: node}, Status: v1alpha1.NodeNetworkStatus{PhysicalNetworks: []v1alpha1.NodePhysicalNetwork{p}},
		})
	}
	report("n1", v1alpha1.NodePhysicalNetwork{Name: "wire", Ready: true})
	report("n2", v1alpha1.NodePhysicalNetwork{Name: "wire", Message: "there is no NIC eth1"})
	status := func() (s v1alpha1.PhysicalNetworkStatus) {
		u, err := l.s.Resource(resource("physicalnetworks")).Get(t.Context(), "wire", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := decode[v1alpha1.PhysicalNetwork](u)
		if err != nil {
			t.Fatal(err)
		}
		return p.Status
	}
	l.wait("one of two", func() bool {
		s := status()
		return s.Ready == "1/2" && len(s.Nodes) == 1 && s.Nodes[0].Message == "there is no NIC eth1" && s.Conditions[0].Status == "False"
	})
	report("n2", v1alpha1.NodePhysicalNetwork{Name: "wire", Ready: true})
	l.wait("both", func() bool { s := status(); return s.Ready == "2/2" && s.Conditions[0].Status == "True" })
	l.define("a/other", config("lan2", `"topology":"localnet","vlanID":200,"physicalNetworkName":"wire"`))
	l.wait("a VLAN that may not be", l.says("lan2", "False", "Forbidden", "VLAN 200 is not among what PhysicalNetwork wire allows: 100-199"))
}
