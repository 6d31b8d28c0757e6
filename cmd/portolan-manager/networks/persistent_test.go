package networks

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	ipamclaims "github.com/k8snetworkplumbingwg/ipamclaims/pkg/crd/ipamclaims/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// persisting is a network of fourteen addresses, of which two are excluded.
const persisting = `"topology":"layer2","subnets":"10.1.0.0/28","excludeSubnets":"10.1.0.4/31","allowPersistentIPs":true`

// claim makes an IPAMClaim with what its status has already.
func (l *lab) claim(name, network string, ips ...any) {
	l.t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1alpha1", "kind": "IPAMClaim", "metadata": map[string]any{"namespace": "a", "name": name},
		"spec": map[string]any{"network": network, "interface": "net1"},
	}}
	if len(ips) > 0 {
		u.Object["status"] = map[string]any{"ips": ips}
	}
	if _, err := l.s.Resource(kube.ClaimResource()).Namespace("a").Create(l.t.Context(), u, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

// claims tells whether a claim's status has such addresses, pod and reason.
func (l *lab) claims(name, ips, pod, reason, part string) func() bool {
	return func() bool {
		u, err := l.s.Resource(kube.ClaimResource()).Namespace("a").Get(l.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		c, err := decode[ipamclaims.IPAMClaim](u)
		if err != nil || len(c.Status.Conditions) != 1 {
			return false
		}
		owner := ""
		if c.Status.OwnerPod != nil {
			owner = c.Status.OwnerPod.Name
		}
		cond := c.Status.Conditions[0]
		return fmt.Sprint(c.Status.IPs) == ips && owner == pod && cond.Type == "IPsAllocated" && cond.Reason == reason && contains(cond.Message, part)
	}
}

// change writes a block, as a node's agent does; nil makes none.
func (l *lab) change(name string, change func(*v1alpha1.AddressBlock)) {
	l.t.Helper()
	r := l.s.Resource(resource("addressblocks"))
	b := &v1alpha1.AddressBlock{}
	u, err := r.Get(l.t.Context(), name, metav1.GetOptions{})
	if err == nil {
		if b, err = decode[v1alpha1.AddressBlock](u); err != nil {
			l.t.Fatal(err)
		}
	}
	change(b)
	b.Name = name
	err = l.k.putBlock(b, func(v *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		if u == nil {
			return r.Create(l.t.Context(), v, metav1.CreateOptions{})
		}
		return r.Update(l.t.Context(), v, metav1.UpdateOptions{})
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// block is what a block says: its node, and offset, pod and claim of each entry.
func (l *lab) block(name, want string) func() bool {
	return func() bool {
		u, err := l.s.Resource(resource("addressblocks")).Get(l.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return want == "gone"
		}
		b, err := decode[v1alpha1.AddressBlock](u)
		if err != nil {
			return false
		}
		got := b.Spec.Node
		for _, e := range b.Spec.Entries {
			got += fmt.Sprintf(" %d=%s/%s", e.Offset, e.Pod, e.Claim)
		}
		return got == want
	}
}

// clock is one that a test moves on, and that starts with the test.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// beginPersisting starts a Keeper of the network blue, which is persisting, and of
// another, which has the second id, and gives what moves its clock on.
func beginPersisting(t *testing.T, other, text string) (l *lab, later func(time.Duration)) {
	t.Helper()
	var high uint64
	var c clock
	l = beginAt(t, newServer(), &high, c.now)
	l.define("a/net", config("blue", persisting))
	l.wait("the network", l.ready("blue", 1, "a/net"))
	l.define("a/"+other, config(other, text))
	l.wait("the other network", l.ready(other, 2, "a/"+other))
	return l, func(d time.Duration) {
		c.ahead.Add(int64(d))
		l.k.ring()
	}
}

// assign gives an entry of a block to a pod.
func assign(e *v1alpha1.AddressEntry, pod, node string) {
	e.Pod, e.UID, e.Attachment, e.Node = pod, "u", "a/net", node
}

func TestClaimsHoldAddresses(t *testing.T) {
	l, _ := beginPersisting(t, "plain", layer2)
	const told = "IP addresses successfully allocated"
	list := []struct {
		name, network string
		had           []any // by its status
		ips           string
		reason, part  string
	}{
		{"one", "blue", nil, "[10.1.0.1/28]", "SuccessfulAllocation", told},
		{"two", "blue", []any{"10.1.0.9/28"}, "[10.1.0.9/28]", "SuccessfulAllocation", told},
		{"zwei", "blue", []any{"10.1.0.9/28"}, "[10.1.0.9/28]", "IPAddressConflict", "status.ips has 10.1.0.9/28, which is held by IPAMClaim a/two"},
		{"out", "blue", []any{"10.9.0.9/28"}, "[10.9.0.9/28]", "IPAddressConflict", "which network blue does not give"},
		{"excluded", "blue", []any{"10.1.0.4/28"}, "[10.1.0.4/28]", "IPAddressConflict", "which network blue does not give"},
		{"nowhere", "red", nil, "[]", "NetworkNotFound", "there is no network red"},
		{"passing", "plain", nil, "[]", "PersistentIPsNotAllowed", "set allowPersistentIPs"},
	}
	for _, c := range list {
		l.claim(c.name, c.network, c.had...)
	}
	for _, c := range list {
		l.wait(c.name, l.claims(c.name, c.ips, "", c.reason, c.part))
	}
	l.change("blue.0", func(b *v1alpha1.AddressBlock) {
		b.Spec.Node = "n1"
		assign(&b.Spec.Entries[0], "a/east", "n2")
	})
	l.k.Put(&intent.Node{Name: "n1"})
	l.k.Put(&intent.Node{Name: "n2"})
	l.wait("its pod", l.claims("one", "[10.1.0.1/28]", "east", "SuccessfulAllocation", told))
	for i := range 11 {
		l.claim(fmt.Sprintf("more%02d", i), "blue")
	}
	l.wait("the end of addresses", l.claims("more10", "[]", "", "SubnetExhausted", "no address left in network blue"))
	var all []string
	for i := range 10 {
		l.wait("one of the rest", func() bool {
			u, err := l.s.Resource(kube.ClaimResource()).Namespace("a").Get(t.Context(), fmt.Sprintf("more%02d", i), metav1.GetOptions{})
			if err != nil {
				return false
			}
			ips, _, _ := unstructured.NestedStringSlice(u.Object, "status", "ips")
			all = append(all, ips...)
			return len(ips) == 1
		})
	}
	if slices.Sort(all); len(slices.Compact(all)) != 10 {
		t.Errorf("addresses twice in %v", all)
	}
	l.wait("the addresses left, one's pod being unknown", func() bool {
		n := l.network("blue")
		return n.Status.AddressesFree == 1 && n.Status.AddressesUsed == 11
	})
}

// TestClaimsEndFreesTheirs has a claim go without a pod, and with one.
func TestClaimsEndFreesTheirs(t *testing.T) {
	l, later := beginPersisting(t, "plain", layer2)
	l.claim("one", "blue")
	l.claim("two", "blue", "10.1.0.2/28")
	l.wait("entries", l.block("blue.0", " 1=/a/one 2=/a/two"))
	l.k.Put(&intent.Node{Name: "n1"})
	l.change("blue.0", func(b *v1alpha1.AddressBlock) {
		assign(&b.Spec.Entries[1], "a/east", "n1")
	})
	for _, name := range []string{"one", "two"} {
		if err := l.s.Resource(kube.ClaimResource()).Namespace("a").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	l.wait("both to be no claims'", l.block("blue.0", " 1=/ 2=a/east/"))
	later(61 * time.Second)
	l.wait("the rest's end; the pod's stays", l.block("blue.0", " 2=a/east/"))
}

// TestBlocksOfDeletedNodesReturn has blocks stay while a node may come back, or pods of
// it are there, and then be given back, but for what a claim holds.
func TestBlocksOfDeletedNodesReturn(t *testing.T) {
	l, later := beginPersisting(t, "routed", `"topology":"layer3","subnets":"10.3.0.0/16"`)
	l.claim("one", "blue")
	l.wait("an entry", l.block("blue.0", " 1=/a/one"))
	for _, n := range []string{"n1", "n2"} {
		l.k.Put(&intent.Node{Name: n})
	}
	l.change("blue.0", func(b *v1alpha1.AddressBlock) {
		b.Spec.Node = "n1"
		assign(&b.Spec.Entries[0], "a/east", "")
		b.Spec.Entries = append(b.Spec.Entries, v1alpha1.AddressEntry{Offset: 2, Pod: "a/west", UID: "v", Attachment: "a/net"},
			v1alpha1.AddressEntry{Offset: 3, Pod: "a/other", UID: "w", Attachment: "a/net", Node: "n2"})
	})
	l.change("routed.2", func(b *v1alpha1.AddressBlock) {
		b.Spec = v1alpha1.AddressBlockSpec{Network: "routed", Slot: 2, Node: "n1", Subnets: []string{"10.3.2.0/24"}}
	})
	const whole = "n1 1=a/east/a/one 2=a/west/ 3=a/other/"
	stays := func(what string) {
		t.Helper()
		for range 2 {
			l.k.ring()
			<-l.rounds
		}
		if !l.block("blue.0", whole)() || !l.block("routed.2", "n1")() {
			t.Fatalf("%s: a block is given back", what)
		}
	}
	l.attach("a/west", "n1", "a/net")
	l.k.Delete(intent.Key{Kind: intent.KindNode, Name: "n1"})
	stays("the node has just gone")
	later(301 * time.Second)
	stays("a pod of it is there")
	l.attach("a/west", "", "")
	l.k.Put(&intent.Node{Name: "n1"}) // registered again
	stays("the node is back")
	l.k.Delete(intent.Key{Kind: intent.KindNode, Name: "n1"})
	stays("it has gone again")
	later(200 * time.Second)
	stays("it may come back yet")
	later(101 * time.Second)
	l.wait("the end of what it had", l.block("blue.0", " 1=/a/one 3=a/other/"))
	l.wait("the end of its subnet", l.block("routed.2", "gone"))
}
