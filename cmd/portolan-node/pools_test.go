package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// listening is a pools that notes what it is told.
type listening struct{ told []string }

func (l *listening) Know(p *intent.DevicePool)      { l.told = append(l.told, "know "+p.Name) }
func (l *listening) Forget(name string)             { l.told = append(l.told, "forget "+name) }
func (l *listening) Label(labels map[string]string) { l.told = append(l.told, fmt.Sprint(labels)) }
func (l *listening) Namespace(name string, labels map[string]string) {
	l.told = append(l.told, fmt.Sprint(name, labels, labels == nil))
}
func (l *listening) Listed()                           { l.told = append(l.told, "listed") }
func (l *listening) States() []v1alpha1.NodeDevicePool { return nil }
func (l *listening) Problems() []rows.Problem          { return nil }

// deaf is the engine's place.
type deaf struct{}

func (deaf) Put(intent.Object)        {}
func (deaf) Delete(intent.Key)        {}
func (deaf) Synced()                  {}
func (deaf) Withdrawn(string, func()) {}

// TestPoolsAreTold: who keeps device pools hears of pools, and of this node's labels when
// they change; a Node's end changes nothing.
func TestPoolsAreTold(t *testing.T) {
	l := &listening{}
	key := intent.Key{Kind: intent.KindNode, Name: "n1"}
	s := &poolSink{Driver: deaf{}, pools: l, key: key}
	s.Put(&intent.Node{Name: "n1"})
	s.Put(&intent.Node{Name: "n1"}) // a heartbeat
	s.Put(&intent.Node{Name: "n2", Labels: map[string]string{"nic": "other"}})
	s.Put(&intent.DevicePool{Name: "fast"})
	s.Put(&intent.Node{Name: "n1", Labels: map[string]string{"nic": "cx6"}})
	s.Put(&intent.Namespace{Name: "a"})
	s.Delete(intent.Key{Kind: intent.KindNamespace, Name: "a"})
	s.Delete(key)
	s.Delete(intent.Key{Kind: intent.KindDevicePool, Name: "fast"})
	want := []string{"map[]", "know fast", "map[nic:cx6]", "amap[] false", "amap[] true", "forget fast"}
	if !slices.Equal(l.told, want) {
		t.Errorf("told %q, want %q", l.told, want)
	}
}

func TestPoolsAreReported(t *testing.T) {
	steps := strings.Fields(strings.Repeat("step ", 40))
	s := view{pools: []v1alpha1.NodeDevicePool{{Name: "fast", Reason: v1alpha1.PoolFailed, Message: strings.Repeat("x", 1000), Devices: 8, Well: 7, Steps: steps}}}.status(nil)
	if len(s.DevicePools) != 1 {
		t.Fatalf("found %+v", s.DevicePools)
	}
	if p := s.DevicePools[0]; p.Well != 7 || len(p.Steps) != v1alpha1.MaxPoolSteps || len(p.Message) > clipped+len("…") {
		t.Errorf("found %+v", p)
	}
}
