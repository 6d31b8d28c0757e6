package kube

import (
	"reflect"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
)

func TestAllocationIsReadBack(t *testing.T) {
	n := &intent.Node{Name: "n", UID: "u", ID: 7, Subnets: prefixes("10.244.1.0/24", "fd00::/64")}
	a := AllocationOf(n)
	if got := ParseAllocation(a.Said()); !reflect.DeepEqual(got, a) || a.UID != "u" {
		t.Errorf("said %+v, read %+v", a, got)
	}
	for _, n := range []*intent.Node{{UID: "u", ID: 7}, {UID: "u", Subnets: n.Subnets}, {ID: 7, Subnets: n.Subnets}} {
		if s := AllocationOf(n).Said(); s != nil {
			t.Errorf("%+v says %+v", n, s)
		}
	}
	for _, s := range []*v1alpha1.NodeAllocation{
		nil, {NodeID: 7, Subnets: []string{"10.244.1.0/24"}}, {NodeUID: "u", NodeID: 1, Subnets: []string{"10.244.1.0/24"}},
		{NodeUID: "u", NodeID: 7}, {NodeUID: "u", NodeID: 7, Subnets: []string{"garbage"}}, {NodeUID: "u", NodeID: 7, Subnets: []string{"10.244.1.0/24", "10.244.2.0/24"}},
	} {
		if got := ParseAllocation(s); !reflect.DeepEqual(got, Allocation{}) {
			t.Errorf("%+v is read as %+v", s, got)
		}
	}
}

// TestAllocationOutlivesAStart: an agent that does not know it yet, or that refuses its
// machine, leaves it; one that knows it writes it, once.
func TestAllocationOutlivesAStart(t *testing.T) {
	networks, nodes := fakeNetworks()
	w := testWriter(networks, nodes, nil)
	knows := status(true)
	knows.Allocation = AllocationOf(&intent.Node{UID: "node-uid", ID: 7, Subnets: prefixes("10.244.1.0/24")}).Said()
	if a, err := ReadAllocation(t.Context(), w.networks, "n"); err != nil || a.UID != "" {
		t.Errorf("%+v, %v of none", a, err)
	}
	for _, s := range []v1alpha1.NodeNetworkStatus{knows, status(false), status(true)} {
		if err := w.Write(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		a, err := ReadAllocation(t.Context(), w.networks, "n")
		if err != nil || !reflect.DeepEqual(a.Said(), knows.Allocation) {
			t.Errorf("%+v, %v", a, err)
		}
	}
	before := writes(networks)
	if err := testWriter(networks, nodes, nil).Write(t.Context(), knows); err != nil || writes(networks) != before {
		t.Errorf("%d writes, %v after a restart", writes(networks)-before, err)
	}
	all, err := ReadAllocations(t.Context(), w.networks)
	if err != nil || len(all) != 1 || all["n"].ID != 7 {
		t.Errorf("%+v, %v", all, err)
	}
	networks.PrependReactor("*", "nodenetworks", func(ktesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(NodeNetworkResource().GroupResource(), "n", nil)
	})
	if _, err := ReadAllocations(t.Context(), w.networks); !Denied(err) {
		t.Errorf("list: %v", err)
	}
	if _, err := ReadAllocation(t.Context(), w.networks, "n"); !Denied(err) {
		t.Errorf("get: %v", err)
	}
}

func TestTermChangesWhileOneLeads(t *testing.T) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "portolan", Name: ManagerLease}}
	client := fake.NewClientset(lease)
	if text, err := ReadTerm(t.Context(), client, "portolan"); err == nil {
		t.Errorf("%q of nobody's", text)
	}
	who, seen := "m", map[string]bool{}
	for i := range 3 {
		at := metav1.NewMicroTime(time.Unix(1e9+int64(i), 0))
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &who, RenewTime: &at}
		if _, err := client.CoordinationV1().Leases("portolan").Update(t.Context(), lease, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			text, err := ReadTerm(t.Context(), client, "portolan")
			if err != nil {
				t.Fatal(err)
			}
			seen[text] = true
		}
	}
	if len(seen) != 3 {
		t.Errorf("%v", seen)
	}
	if _, err := ReadTerm(t.Context(), client, "elsewhere"); !Denied(err) {
		t.Errorf("no Lease: %v", err)
	}
}
