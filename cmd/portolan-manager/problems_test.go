package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/cmd/portolan-manager/networks"
	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// newNetworks is an API server's nodenetworks.
func newNetworks() *dynamicfake.FakeDynamicClient {
	return dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{
			kube.NodeNetworkResource(): "NodeNetworkList", networks.Definitions(): "NetworkAttachmentDefinitionList",
			{Group: "k8s.ovn.org", Version: "v1", Resource: "userdefinednetworks"}:        "UserDefinedNetworkList",
			{Group: "k8s.ovn.org", Version: "v1", Resource: "clusteruserdefinednetworks"}: "ClusterUserDefinedNetworkList",
			ours("networks"): "NetworkList", ours("addressblocks"): "AddressBlockList", ours("physicalnetworks"): "PhysicalNetworkList", ours("devicepools"): "DevicePoolList",
			kube.ClaimResource(): "IPAMClaimList",
		})
}

func ours(name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: v1alpha1.Group, Version: v1alpha1.Version, Resource: name}
}

// putNetwork has a NodeNetwork say what is wrong.
func putNetwork(t *testing.T, networks *dynamicfake.FakeDynamicClient, name, notReady string, problems ...v1alpha1.ObjectProblem) {
	t.Helper()
	n := v1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonReady}
	if notReady != "" {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonRefused, notReady
	}
	n.Status = v1alpha1.NodeNetworkStatus{Conditions: []metav1.Condition{c}, Problems: problems, ProblemCount: len(problems)}
	put(t, networks, n)
}

// put makes or replaces a NodeNetwork.
func put(t *testing.T, networks *dynamicfake.FakeDynamicClient, n v1alpha1.NodeNetwork) {
	t.Helper()
	n.APIVersion, n.Kind = v1alpha1.APIVersion, v1alpha1.KindNodeNetwork
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&n)
	if err != nil {
		t.Fatal(err)
	}
	r, u := networks.Resource(kube.NodeNetworkResource()), &unstructured.Unstructured{Object: m}
	if _, err = r.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
		_, err = r.Update(t.Context(), u, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// world is an API server and the managers that lead in it one after the other.
type world struct {
	t        *testing.T
	client   *fake.Clientset
	networks *dynamicfake.FakeDynamicClient
}

// lead runs a leader's work until the returned function is called; told gets a
// token after each round of telling.
func (w *world) lead() (told chan struct{}, stop func()) {
	w.t.Helper()
	cfg := Config{ClusterSubnets: []string{"10.244.0.0/16/24"}, Namespace: "portolan", Identity: "me"}
	m := newMetrics()
	told = make(chan struct{}, 1000)
	e := election{cfg: cfg, client: w.client, networks: kube.NewNodeNetworks(w.networks), objects: w.networks, log: slog.New(slog.DiscardHandler), metrics: m}
	e.told = func(int, uint64) { told <- struct{}{} }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.lead(ctx) }()
	return told, func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.t.Errorf("ended with %v", err)
		}
	}
}

// events are all there are, as "Kind/namespace/name reason: message (count)".
func (w *world) events() []string {
	w.t.Helper()
	list, err := w.client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range list.Items {
		o := e.InvolvedObject
		out = append(out, fmt.Sprintf("%s/%s/%s %s: %s (%d)", o.Kind, o.Namespace, o.Name, e.Reason, e.Message, e.Count))
	}
	slices.Sort(out)
	return out
}

// wait waits for Events that have each of these in them, looking after each round.
func (w *world) wait(told chan struct{}, want ...string) {
	w.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		have := w.events()
		missing := slices.DeleteFunc(slices.Clone(want), func(s string) bool {
			return slices.ContainsFunc(have, func(e string) bool { return strings.Contains(e, s) })
		})
		if len(missing) == 0 {
			return
		}
		select {
		case <-told:
		case <-deadline:
			w.t.Fatalf("never came: %q\nthere is\n%s", missing, strings.Join(have, "\n"))
		}
	}
}

// writes counts what has been asked of the API server that changes something.
func (w *world) writes() (out []string) {
	for _, a := range append(w.client.Actions(), w.networks.Actions()...) {
		if v := a.GetVerb(); v == "create" || v == "patch" || v == "update" || v == "delete" {
			out = append(out, v+" "+a.GetResource().Resource)
		}
	}
	return out
}

// TestOneWatchOfEachResource: what several parts of a leader read is sent to it once.
func TestOneWatchOfEachResource(t *testing.T) {
	w := &world{t: t, networks: newNetworks(), client: fake.NewClientset(testNode("a", 1, "2", subnet("10.244.0.0/24")))}
	told, stop := w.lead()
	<-told // every source has been heard
	stop()
	watches := map[string]int{}
	for _, a := range append(w.client.Actions(), w.networks.Actions()...) {
		if a.GetVerb() == "watch" {
			watches[a.GetResource().Resource]++
		}
	}
	for _, of := range []string{
		"nodes", "namespaces", "pods", "nodenetworks", "networks", "physicalnetworks", "devicepools", "addressblocks", "ipamclaims",
		"network-attachment-definitions", "userdefinednetworks", "clusteruserdefinednetworks",
	} {
		if watches[of] != 1 {
			t.Errorf("%d watches of %s", watches[of], of)
		}
		delete(watches, of)
	}
	if len(watches) > 0 {
		t.Errorf("more watches than the test knows: %v", watches)
	}
}

// TestEventsSayWhatIsWrongOnce has something wrong of every scope: a malformed
// annotation of a pod, one of a node, two nodes with one address, an exhausted plan, a
// refused machine, a problem on one node. Each gets one Event, the next leader writes
// nothing, and pods without fault have none.
func TestEventsSayWhatIsWrongOnce(t *testing.T) {
	a, b := testNode("a", 3, "2", subnet("10.244.0.0/24")), testNode("b", 2, "3", subnet("10.244.1.0/24"))
	for _, n := range []*corev1.Node{a, b} {
		n.Annotations[kube.AnnotationChassisID] = "chassis-" + n.Name
		n.Annotations[kube.AnnotationEncapIPs] = `["172.18.0.2"]`
	}
	taken := testNode("c", 1, "3", subnet("10.244.2.0/24"))
	taken.Annotations[kube.AnnotationMgmtMACs] = "garbage"
	pod := func(name, annotation string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name, UID: "uid-" + "1"}, Spec: corev1.PodSpec{NodeName: "a"}}
		if annotation != "" {
			p.Annotations = map[string]string{kube.AnnotationPodNetworks: annotation}
		}
		return p
	}
	w := &world{t: t, networks: newNetworks(), client: fake.NewClientset(a, b, taken, pod("bad", "{"), pod("good", ""))}
	putNetwork(t, w.networks, "a", "", v1alpha1.ObjectProblem{Object: "Pod/demo/bad", Severity: "error", Message: "name held by a stranger"})
	putNetwork(t, w.networks, "b", "NIC eth0 is not taken over: its address 192.0.2.1/24 is a DHCP lease, which ends.")
	told, stop := w.lead()
	w.wait(told,
		"Pod/demo/bad NetworkInputInvalid: metadata.annotations[k8s.ovn.org/pod-networks]: pod networks \"{\" are not of the form",
		"on node a: name held by a stranger",
		"no pod can start here, portolan-node says: NIC eth0 is not taken over",
		"node a has 172.18.0.2 too: tunnels go to that one",
		"Node//c NodeIDConflict: ", `metadata.annotations[k8s.ovn.org/node-mgmt-port-mac-addresses]: "garbage"`)
	stop()
	first := w.events()
	if len(first) != 3 || slices.ContainsFunc(first, func(e string) bool { return strings.Contains(e, "good") }) {
		t.Errorf("%d events, want one for the pod and for two nodes:\n%s", len(first), strings.Join(first, "\n"))
	}
	w.client.ClearActions()
	w.networks.ClearActions()
	told, stop = w.lead()
	<-told // all that there was to say has been said
	if got := w.writes(); len(got) != 0 {
		t.Errorf("the next leader wrote %v", got)
	}
	putNetwork(t, w.networks, "b", "") // the machine is put right
	p := pod("bad", "")
	if _, err := w.client.CoreV1().Pods("demo").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	putNetwork(t, w.networks, "a", "", v1alpha1.ObjectProblem{Object: "Pod/demo/good", Severity: "error", Message: "x"})
	w.wait(told, "Pod/demo/good NetworkProblem: on node a: x (1)")
	stop()
	for _, e := range w.events() {
		if strings.HasSuffix(e, "(2)") {
			t.Errorf("told twice: %s", e)
		}
	}
}

// TestVandalisedAnnotationIsRestoredAndTold has somebody write a node's subnet: it is
// set back, one Event says so, and no other node is touched.
func TestVandalisedAnnotationIsRestoredAndTold(t *testing.T) {
	w := &world{t: t, networks: newNetworks(), client: fake.NewClientset(
		testNode("a", 3, "2", subnet("10.244.0.0/24")), testNode("b", 2, "3", subnet("10.244.1.0/24")))}
	told, stop := w.lead()
	<-told
	for i, bad := range []string{"garbage", subnet("10.244.1.0/24")} { // the second is b's
		body := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, kube.AnnotationNodeSubnets, bad)
		if _, err := w.client.CoreV1().Nodes().Patch(t.Context(), "a", "application/merge-patch+json", []byte(body), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		w.wait(told, fmt.Sprintf("Node//a NodeAnnotationRestored: annotation %s was %q and is set back to [10.244.0.0/24]", kube.AnnotationNodeSubnets, bad))
		n, err := w.client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || n.Annotations[kube.AnnotationNodeSubnets] != subnet("10.244.0.0/24") {
			t.Errorf("round %d: %v, %v", i, n.Annotations, err)
		}
	}
	stop()
	for _, action := range w.client.Actions() {
		if p, ok := action.(ktesting.PatchAction); ok && p.GetResource().Resource == "nodes" && p.GetName() == "b" {
			t.Errorf("b was written: %s", p.GetPatch())
		}
	}
}
