package record

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// filled is a run whose zone has so many pods, all written.
func filled(b *testing.B, pods int) *run {
	w := newRunOf(b, 1, defaultLimit, 5000)
	w.sh.Put(&intent.Node{Name: "n0", Zone: "n0", ID: 2, Subnets: prefixes("10.244.0.0/16")})
	for i := range pods {
		ip := netip.AddrFrom4([4]byte{10, 244, byte(1 + i/250), byte(3 + i%250)})
		w.sh.Put(&intent.Pod{
			Namespace: "demo", Name: fmt.Sprintf("p%d", i), UID: fmt.Sprint(i), Node: "n0", Labels: map[string]string{"app": "a", "tier": "b"},
			Attachments: []intent.Attachment{{Network: intent.DefaultNetwork, MAC: rows.MAC(ip), Addresses: []netip.Prefix{netip.PrefixFrom(ip, 16)}}},
		})
	}
	w.settle()
	return w
}

// BenchmarkCheckpoint is what a turn of the ring takes from the loop.
func BenchmarkCheckpoint(b *testing.B) {
	w := filled(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		c := w.sh.Engine().Checkpoint()
		if len(c.Objects) < 10_000 {
			b.Fatal(len(c.Objects))
		}
	}
}

// BenchmarkRecordSnapshot is what a start or a reconnection takes from the loop.
func BenchmarkRecordSnapshot(b *testing.B) {
	w := filled(b, 10_000)
	snap := w.dbs[1].Snapshot()
	events := []engine.Event{{Snapshot: &snap}}
	size := len(w.recorder.codec.Append(nil, &events))
	b.ReportAllocs()
	for b.Loop() {
		w.recorder.Before(events)
		w.recorder.After(engine.Ready{})
	}
	b.ReportMetric(float64(size), "B/snapshot")
}
