package apiserver

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
)

// typed is a client of built-in kinds by which somebody works.
func (c *cluster) typed(t *testing.T, w who) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.configOf(w))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// testAllocations has an agent say what its node runs with, with its own rights, and
// portolan-manager read it; of another node the agent says nothing. Whether a manager
// leads, an agent may ask.
func testAllocations(t *testing.T, c *cluster) {
	for _, n := range []string{"n1", "n2"} {
		c.must(t, admin, fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n", n))
	}
	node, err := c.typed(t, agent("n1")).CoreV1().Nodes().Get(t.Context(), "n1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	runs := kube.Allocation{UID: string(node.UID), ID: 2, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}}
	say := func(w who, node string, a *v1alpha1.NodeAllocation) error {
		networks := kube.NewNodeNetworks(c.as(w))
		writer := kube.NewNodeNetworkWriter(networks, c.typed(t, w), node, slog.New(slog.DiscardHandler))
		return writer.Write(t.Context(), v1alpha1.NodeNetworkStatus{Zone: node, Allocation: a})
	}
	c.until(t, "the policy", func() error {
		if err := say(agent("n2"), "n1", runs.Said()); err == nil || !strings.Contains(err.Error(), "the agent of node n2 may not write nodenetworks n1") {
			return fmt.Errorf("the agent of n2 writes of n1: %w", err)
		}
		return nil
	})
	for _, a := range []*v1alpha1.NodeAllocation{runs.Said(), nil} { // nil: an agent that has just begun
		if err := say(agent("n1"), "n1", a); err != nil {
			t.Fatal(err)
		}
		got, err := kube.ReadAllocation(t.Context(), kube.NewNodeNetworks(c.as(agent("n1"))), "n1")
		if err != nil || !reflect.DeepEqual(got, runs) {
			t.Errorf("the agent reads %+v, %v", got, err)
		}
	}
	other := runs
	other.ID = 3
	if err := say(agent("n2"), "n1", other.Said()); err == nil || !strings.Contains(err.Error(), "the agent of node n2 may not write nodenetworks n1") {
		t.Errorf("the agent of n2 changes what n1's says: %v", err)
	}
	all, err := kube.ReadAllocations(t.Context(), kube.NewNodeNetworks(c.as(manager)))
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all["n1"], runs) {
		t.Errorf("portolan-manager reads %+v, %v", all, err)
	}
	client := c.typed(t, agent("n1"))
	if _, err := kube.ReadTerm(t.Context(), client, "portolan"); !apierrors.IsNotFound(err) {
		t.Errorf("no manager has led yet: %v", err)
	}
	c.must(t, admin, `apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {namespace: portolan, name: portolan-manager}
spec: {holderIdentity: m, renewTime: "2026-01-01T00:00:00.000000Z"}
`)
	if text, err := kube.ReadTerm(t.Context(), client, "portolan"); err != nil || text != "m 2026-01-01T00:00:00Z" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := kube.ReadTerm(t.Context(), client, "kube-system"); !apierrors.IsForbidden(err) {
		t.Errorf("a Lease of another namespace: %v", err)
	}
	t.Log("\n" + c.kubectl(t, "get", "nodenetworks", "-o", "wide"))
	c.kubectl(t, "delete", "node", "n1", "n2")
	c.kubectl(t, "delete", "nodenetwork", "n1")
}
