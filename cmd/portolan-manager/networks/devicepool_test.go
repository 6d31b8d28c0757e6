package networks

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// pooled makes a DevicePool; generation is that of its spec.
func (l *lab) pooled(name string, generation int64, spec map[string]any) {
	l.t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": "DevicePool", "metadata": map[string]any{"name": name, "generation": generation}, "spec": spec,
	}}
	if _, err := l.s.Resource(resource("devicepools")).Create(l.t.Context(), u, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) poolStatus(name string) v1alpha1.DevicePoolStatus {
	l.t.Helper()
	u, err := l.s.Resource(resource("devicepools")).Get(l.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	p, err := decode[v1alpha1.DevicePool](u)
	if err != nil {
		l.t.Fatal(err)
	}
	return p.Status
}

func (l *lab) poolReport(node string, list ...v1alpha1.NodeDevicePool) {
	l.k.SetNode(&v1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: node}, Status: v1alpha1.NodeNetworkStatus{DevicePools: list}})
}

// told are the reasons and messages that users are told.
func (l *lab) told() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, f := range l.pools {
		if f.UID == "" {
			l.t.Errorf("whose pool %s is, is not said", f.Pool)
		}
		out = append(out, f.Pool+" "+f.Reason+" "+f.Message)
	}
	return strings.Join(out, "\n")
}

func TestDevicePoolIsFolded(t *testing.T) {
	var high uint64
	l := begin(t, newServer(), &high)
	for _, node := range []string{"n1", "n2", "n3"} {
		labels := map[string]string{"nic": "cx6"}
		if node == "n3" {
			labels = nil
		}
		l.k.Put(&intent.Node{Name: node, Labels: labels})
	}
	selector := map[string]any{"matchLabels": map[string]any{"nic": "cx6"}}
	nics := map[string]any{"vendors": []any{"15b3"}}
	l.pooled("fast", 2, map[string]any{"resourceName": "portolan.io/fast", "nodeSelector": selector, "nics": nics})
	l.pooled("none", 1, map[string]any{"resourceName": "portolan.io/none", "nodeSelector": map[string]any{"matchLabels": map[string]any{"nic": "none"}}, "nics": nics})
	l.pooled("bad", 1, map[string]any{"resourceName": "kubernetes.io/bad", "nics": nics})
	l.pooled("dry", 1, map[string]any{"resourceName": "portolan.io/dry", "nics": nics, "dryRun": true})
	l.poolReport("n1", v1alpha1.NodeDevicePool{Name: "fast", Ready: true, ObservedGeneration: 2, Devices: 8, Well: 8},
		v1alpha1.NodeDevicePool{Name: "dry", Ready: true, Reason: v1alpha1.PoolDryRun, Steps: []string{"ens1f0: make 8 VFs", "ens1f0: mode switchdev"}})
	l.poolReport("n2", v1alpha1.NodeDevicePool{Name: "fast", Ready: true, ObservedGeneration: 1, Devices: 4, Well: 3})
	l.k.NodesHeard()
	is := func(name, ready, devices, reason, message string, nodes ...v1alpha1.DevicePoolNode) func() bool {
		return func() bool {
			s := l.poolStatus(name)
			if len(s.Conditions) != 1 || len(s.Nodes) != len(nodes) {
				return false
			}
			for i, n := range nodes {
				if s.Nodes[i] != n {
					return false
				}
			}
			c := s.Conditions[0]
			return s.Ready == ready && s.Devices == devices && c.Reason == reason && contains(c.Message, message) && (c.Status == "True") == (reason == reasonReady)
		}
	}
	l.wait("an older generation", is("fast", "1/2", "11/12", "NodesNotReady", "ready on 1/2 nodes; n2: the node's agent has not said anything of generation 2 yet",
		v1alpha1.DevicePoolNode{Node: "n2", Message: "the node's agent has not said anything of generation 2 yet"}))
	if c := l.poolStatus("fast").Conditions[0]; c.ObservedGeneration != 2 || c.LastTransitionTime.IsZero() {
		t.Errorf("condition %+v", c)
	}
	l.wait("no node", is("none", "0/0", "0/0", "NoNode", "spec.nodeSelector selects no node"))
	l.wait("what is wrong with it", func() bool {
		s := l.poolStatus("bad")
		return len(s.Conditions) == 1 && s.Conditions[0].Reason == v1alpha1.ReasonInvalid && contains(s.Conditions[0].Message, "spec.resourceName: ")
	})
	l.wait("what would be done", func() bool {
		s := l.poolStatus("dry")
		return len(s.Conditions) == 1 && s.Conditions[0].Reason == "DryRun" && len(s.Nodes) == 3 && s.Nodes[0].Message == "DryRun: ens1f0: make 8 VFs; ens1f0: mode switchdev"
	})
	l.poolReport("n2", v1alpha1.NodeDevicePool{Name: "fast", Reason: v1alpha1.PoolFailed, Message: "ens1f0: no room", ObservedGeneration: 2, Devices: 4})
	l.wait("a failure", is("fast", "1/2", "8/12", "NodesNotReady", "ready on 1/2 nodes; n2: Failed: ens1f0: no room", v1alpha1.DevicePoolNode{Node: "n2", Message: "Failed: ens1f0: no room"}))
	l.wait("that it is told", func() bool { return l.told() == "fast DevicePoolFailed node n2: ens1f0: no room" })
	l.poolReport("n2", v1alpha1.NodeDevicePool{Name: "fast", Ready: true, ObservedGeneration: 2, Devices: 4, Well: 4})
	l.wait("both", is("fast", "2/2", "12/12", "Ready", ""))
	l.wait("that it is not told any more", func() bool { return l.told() == "" })
}

// TestPoolsAreNotToldNodeByNode: as nodes take each other's place in a trouble, words change
// once a minute at most; another trouble is told at once.
func TestPoolsAreNotToldNodeByNode(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	k := New(Config{Now: func() time.Time { return now }})
	for _, node := range []string{"n1", "n2", "n3"} {
		k.Put(&intent.Node{Name: node})
	}
	k.setPool("fast", &v1alpha1.DevicePool{ObjectMeta: metav1.ObjectMeta{Name: "fast"}})
	report := func(node, reason string) {
		k.SetNode(&v1alpha1.NodeNetwork{ObjectMeta: metav1.ObjectMeta{Name: node}, Status: v1alpha1.NodeNetworkStatus{
			DevicePools: []v1alpha1.NodeDevicePool{{Name: "fast", Ready: reason == "", Reason: reason, Message: "of " + node}},
		}})
	}
	look := func(want string, again time.Duration) {
		t.Helper()
		found, next := k.poolsFound()
		var got []string
		for _, f := range found {
			got = append(got, f.Reason+" "+f.Message)
		}
		if text := strings.Join(got, "; "); text != want || next != again {
			t.Errorf("%q, again in %s; want %q, in %s", text, next, want, again)
		}
	}
	report("n1", "Waiting")
	report("n2", "Waiting")
	look("DevicePoolWaiting node n1: of n1", 0)
	report("n1", "")
	now = now.Add(20 * time.Second)
	look("DevicePoolWaiting node n1: of n1", 40*time.Second)
	report("n3", "Failed")
	look("DevicePoolFailed node n3: of n3; DevicePoolWaiting node n1: of n1", 40*time.Second)
	now = now.Add(40 * time.Second)
	look("DevicePoolFailed node n3: of n3; DevicePoolWaiting node n2: of n2", 0)
	report("n2", "")
	report("n3", "")
	look("", 0)
}
