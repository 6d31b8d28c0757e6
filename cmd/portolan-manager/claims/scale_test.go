package claims

import (
	"fmt"
	"testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
)

// scaleWorld has networks that were accepted, in use each, and definitions that are new.
func scaleWorld(b *testing.B, accepted, fresh int) *World {
	b.Helper()
	w := testWorld(b)
	for i := range accepted + fresh {
		w.define(fmt.Sprintf("a/net%d", i), fmt.Sprintf(`{"type":"portolan","name":"net%d","topology":"layer2","subnets":"172.%d.%d.0/24"}`,
			i, 16+i/256, i%256), 0)
		if i+1 == accepted {
			for n, want := range Decide(w).Networks {
				want.Spec.ID = n + 1
				w.Networks[want.Spec.Name] = &v1alpha1.Network{Spec: want.Spec, Status: want.Status}
			}
		}
	}
	w.Uses = map[string]map[string]Use{}
	for i := range accepted {
		w.Uses[fmt.Sprintf("a/net%d", i)] = map[string]Use{"a/pod": {Node: "n", Addressed: 1}}
	}
	return w
}

// BenchmarkDecide is one decision over a thousand networks: when nothing is new, when
// all are, and when a hundred come beside nine hundred.
func BenchmarkDecide(b *testing.B) {
	for _, c := range []struct{ accepted, fresh int }{{1000, 0}, {0, 1000}, {900, 100}} {
		b.Run(fmt.Sprintf("accepted=%d/new=%d", c.accepted, c.fresh), func(b *testing.B) {
			w := scaleWorld(b, c.accepted, c.fresh)
			b.ReportAllocs()
			for b.Loop() {
				if d := Decide(w); len(d.Networks) != c.accepted+c.fresh {
					b.Fatalf("%d networks: %v", len(d.Networks), d.Findings)
				}
			}
		})
	}
}
