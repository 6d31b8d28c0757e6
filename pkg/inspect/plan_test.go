package inspect

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/intent/kube"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// TestPlanInAZoneOfManyNodes plans a pod whose node its manifest names, for a process
// that is of no node: it gets an address of that node's.
func TestPlanInAZoneOfManyNodes(t *testing.T) {
	s, _, _ := settled(t, clusterYAML)
	s.src.Door = func(text []byte) ([]intent.Object, []rows.Problem) { return kube.DecodePending(text, kube.ZoneGlobal) }
	p, err := s.Plan(context.Background(), []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: west, namespace: demo}\nspec: {nodeName: node1}\n"), false)
	if err != nil || len(p.Rows) != 1 || p.Rows[0].Row != "NB:Logical_Switch_Port(demo_west)" ||
		!slices.ContainsFunc(p.Assumed, func(a string) bool { return strings.Contains(a, "address 10.244.1.4/24") }) {
		t.Errorf("%v: %+v", err, p)
	}
}
