package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// object is one of the API server's, from YAML.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

const (
	blueNetwork = `{apiVersion: portolan.io/v1alpha1, kind: Network, metadata: {name: blue}, spec: {id: 7, topology: layer2, subnets: [10.9.0.0/16]}}`
	blueBlock   = `{apiVersion: portolan.io/v1alpha1, kind: AddressBlock, metadata: {name: blue.0}, spec: {network: blue, slot: 0, node: node1,
  entries: [{offset: 4, addresses: [10.9.0.5/16], mac: "0a:58:0a:09:00:05", pod: a/web, uid: u, attachment: a/blue}]}}`
	wire = `{apiVersion: portolan.io/v1alpha1, kind: PhysicalNetwork, metadata: {name: lan}, spec: {nic: eth1, vlans: ["100-199", "0"]}}`
	nad  = `{apiVersion: k8s.cni.cncf.io/v1, kind: NetworkAttachmentDefinition, metadata: {namespace: a, name: blue, uid: x}, spec: {config: "{}"}}`
)

func lists() map[schema.GroupVersionResource]string {
	out := map[schema.GroupVersionResource]string{}
	for s, kind := range map[Source]string{
		Networks: "NetworkList", AddressBlocks: "AddressBlockList", PhysicalNetworks: "PhysicalNetworkList", Definitions: "NetworkAttachmentDefinitionList",
	} {
		out[customs()[s].resource] = kind
	}
	return out
}

func TestWatchNetworks(t *testing.T) {
	var objects []runtime.Object
	for _, text := range []string{blueNetwork, blueBlock, wire} {
		objects = append(objects, object(t, text))
	}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists(), objects...)
	// The fake would guess another plural.
	if _, err := client.Resource(customs()[Definitions].resource).Namespace("a").Create(context.Background(), object(t, nad), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	sink := newRecordingSink(t)
	running(t, (&Watch{Client: fake.NewClientset(), Dynamic: client, Sink: sink, Problems: sink.problems}).Run)
	sink.wait("all sources", func() bool { return len(sink.synced) == len(Sources()) })
	sink.wait("the objects", sink.has("Block/0/blue Definition/a/blue Network/blue PhysicalNetwork/lan"))

	networks := client.Resource(customs()[Networks].resource)
	key := intent.Key{Kind: intent.KindNetwork, Name: "blue"}
	bad := object(t, strings.Replace(blueNetwork, "layer2", "layer4", 1))
	if _, err := networks.Update(context.Background(), bad, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.wait("a Problem", func() bool { return sink.bad[key] != "" })
	renamed := object(t, strings.Replace(blueNetwork, "id: 7", "name: green, id: 7", 1))
	if _, err := networks.Update(context.Background(), renamed, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	sink.wait("the other name", sink.has("Block/0/blue Definition/a/blue Network/green PhysicalNetwork/lan"))
	if sink.bad[key] != "" {
		t.Errorf("what is gone has problems: %s", sink.bad[key])
	}
}

// TestTap: who listens by a tap gets the whole object, a status too, which the Sink has
// no use for; and the end of one, as it was.
func TestTap(t *testing.T) {
	u := object(t, blueNetwork)
	u.Object["status"] = map[string]any{"pods": int64(3)}
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists(), u)
	core := fake.NewClientset(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: "5"}})
	heard := make(chan string, 10)
	tap := func(s Source) Tap {
		say := func(verb string) func(any) {
			return func(o any) {
				switch o := o.(type) {
				case *v1alpha1.Network:
					heard <- fmt.Sprintf("%s %s, %d pods", verb, o.Name, o.Status.Pods)
				case *corev1.Node:
					heard <- fmt.Sprintf("%s %s, version %s", verb, o.Name, o.ResourceVersion)
				}
			}
		}
		return Tap{Put: say("put"), Drop: say("drop"), Synced: func() { heard <- "all " + string(s) }}
	}
	sink := newRecordingSink(t)
	running(t, (&Watch{
		Client: core, Dynamic: client, Sink: sink, Sources: []Source{Nodes, Networks, PhysicalNetworks},
		Taps: map[Source]Tap{Nodes: tap(Nodes), Networks: tap(Networks)},
	}).Run)
	expect := func(want ...string) {
		t.Helper()
		got := []string{}
		for range want {
			select {
			case s := <-heard:
				got = append(got, s)
			case <-time.After(30 * time.Second):
				t.Fatalf("heard %q, want %q", got, want)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	expect("all networks", "all nodes", "put blue, 3 pods", "put n1, version 5")
	sink.wait("the Sink", sink.has("Network/blue Node/n1"))
	if err := client.Resource(customs()[Networks].resource).Delete(t.Context(), "blue", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	expect("drop blue, 3 pods")
	sink.wait("the Sink", sink.has("Node/n1"))
}

// TestWatchWithoutKinds: an API server without the CustomResourceDefinitions holds up
// nothing, the Problem names what is missing, and they are found when they come.
func TestWatchWithoutKinds(t *testing.T) {
	client := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists())
	client.PrependReactor("list", "network-attachment-definitions", func(a ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(a.GetResource().GroupResource(), "")
	})
	sink := newRecordingSink(t)
	absent := map[Source]Tap{Definitions: {Synced: func() { t.Error("a tap is told that all of an absent kind was put") }}}
	running(t, (&Watch{Client: fake.NewClientset(), Dynamic: client, Sink: sink, Problems: sink.problems, Taps: absent}).Run)
	sink.wait("all sources", func() bool { return len(sink.synced) == len(Sources()) })
	key := intent.Key{Kind: intent.KindCluster, Name: "network-attachment-definitions.k8s.cni.cncf.io"}
	sink.wait("a Problem", func() bool { return strings.Contains(sink.bad[key], "apply the CustomResourceDefinition") })
}

func TestParseNetworkKinds(t *testing.T) {
	const network = "apiVersion: portolan.io/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: "
	const physical = "apiVersion: portolan.io/v1alpha1\nkind: PhysicalNetwork\nmetadata: {name: lan}\nspec: "
	for _, c := range []struct{ name, in, want string }{
		{"no id yet", network + "{topology: layer2}", "Network/blue\n"},
		{"an id too many", network + "{id: 65001, topology: layer2}", "error|Network/blue|spec.id|id 65001 is none of 1 to 65000; portolan-manager gives ids: delete the object and it is made anew\n"},
		{"one subnet twice", network + "{id: 1, topology: layer2, subnets: [10.0.0.0/16, 10.0.3.0/24]}",
			"Network/blue\nerror|Network/blue|spec.subnets|subnet 10.0.3.0/24 overlaps 10.0.0.0/16 of the same network: give each address once\n"},
		{"a second length on layer2", network + "{id: 1, topology: layer2, subnets: [10.0.0.0/16/24]}",
			"Network/blue\nerror|Network/blue|spec.subnets|subnet \"10.0.0.0/16/24\" has a second length, which is that of a node's subnet: only layer3 has those\n"},
		{"excludes what is not there", network + "{id: 1, topology: layer2, subnets: [10.0.0.0/16], excludeSubnets: [10.1.0.0/30, 10.0.0.9]}",
			"Network/blue\nerror|Network/blue|spec.excludeSubnets|10.1.0.0/30 is no part of the network's subnets; it is ignored: remove it or correct it\n"},
		{"an MTU that IPv6 cannot have", network + `{id: 1, topology: layer2, mtu: 1000, subnets: ["fd00::/64"]}`,
			"Network/blue\nerror|Network/blue|spec.mtu|1000 is outside 1280 to 65535 bytes; the cluster's is used\n"},
		{"persistent addresses on layer3", network + "{id: 1, topology: layer3, subnets: [10.0.0.0/16], allowPersistentIPs: true}",
			"Network/blue\nerror|Network/blue|spec.allowPersistentIPs|only a layer2 or localnet network with subnets has addresses that outlive a pod; it is ignored\n"},
		{"a wire", physical + "{nic: eth1, vlans: [\"100-199\"]}", "PhysicalNetwork/lan\n"},
		{"a wire that is two", physical + "{nic: eth1, bridge: br1}",
			"error|PhysicalNetwork/lan|spec|nic \"eth1\" and bridge \"br1\" are given: give nic, to have a bridge made, or bridge, to use one that is there\n"},
		{"VLANs backwards", physical + `{nic: eth1, vlans: ["200-100"]}`,
			"PhysicalNetwork/lan\nerror|PhysicalNetwork/lan|spec.vlans[0]|VLANs \"200-100\" are not of the form \"100\" or \"100-199\", from 0 (untagged) to 4094; nothing is allowed by them\n"},
		{"a block", blueBlock, "Block/0/blue\n"},
		{"a definition", nad, "Definition/a/blue\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, decoded(Decode([]byte(c.in)))); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// TestSelectorsFailClosed: who may join does not grow by a mistake.
func TestSelectorsFailClosed(t *testing.T) {
	p := &problems{}
	got := p.selector("spec.namespaceSelector", &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}})
	if len(p.list) != 1 || got.Matches(nil) || got.Matches(map[string]string{"a": "b", got[0].Key: "x"}) {
		t.Errorf("%v with %v: selects something", got, p.list)
	}
	got = p.selector("spec.namespaceSelector", &metav1.LabelSelector{
		MatchLabels:      map[string]string{"team": "x"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "old", Operator: metav1.LabelSelectorOpDoesNotExist}},
	})
	if got.String() != "{!old,team=x}" {
		t.Errorf("selector %s", got)
	}
}

// TestBlockGoesThroughTheAPI: what an entry says comes back, and a tunnel address that is
// none is told.
func TestBlockGoesThroughTheAPI(t *testing.T) {
	want := &intent.Block{Network: "blue", Slot: 1, Node: "n1", Entries: []intent.BlockEntry{
		{Key: 66, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.66/16")}, MAC: "0a:58:0a:09:00:42", Pod: "a/web", UID: "u",
			Network: "a/blue", Node: "n2", Encap: netip.MustParseAddr("172.19.0.3"), Claim: "a/c"},
	}}
	spec := FormatBlock(want)
	got, list := ParseBlock(&v1alpha1.AddressBlock{Spec: spec})
	if len(list) > 0 || !got.Equal(want) {
		t.Errorf("%v: %+v, want %+v", list, got, want)
	}
	spec.Entries[0].EncapIP = "everywhere"
	if _, list = ParseBlock(&v1alpha1.AddressBlock{Spec: spec}); len(list) != 1 || list[0].Field != "spec.entries[0].encapIP" {
		t.Errorf("tunnel address %q: %v", spec.Entries[0].EncapIP, list)
	}
}

// TestPodNetworksOfOthers: what a secondary network says beside addresses goes through
// the annotation and comes back, also where there are no addresses.
func TestPodNetworksOfOthers(t *testing.T) {
	want := []intent.Attachment{
		{Network: "a/blue", MAC: "0a:58:0a:09:00:05", TunnelKey: 5, Bandwidth: &intent.Bandwidth{IngressRate: 1e6, EgressBurst: 2000}},
		{Network: "a/blue/1", MAC: "0a:58:0a:09:00:06", TunnelKey: 6, Encap: netip.MustParseAddr("172.19.0.3")},
	}
	got, err := ParsePodNetworks(FormatPodNetworks(want))
	if err != nil || !cmp.Equal(want, got, cmp.Comparer(intent.Attachment.Equal)) {
		t.Errorf("%v: %s", err, cmp.Diff(want, got))
	}
	if _, err := ParsePodNetworks(`{"a/blue":{"mac_address":"0a:58:0a:09:00:05","tunnel_id":40000}}`); err == nil {
		t.Error("a tunnel key of 40000 is taken")
	}
	if _, err := ParsePodNetworks(`{"a/blue":{"mac_address":"0a:58:0a:09:00:05","encap_ip":"172.19.0.0/24"}}`); err == nil {
		t.Error("a subnet is taken as a tunnel address")
	}
}
