package main

import (
	"fmt"
	"testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestPhysicalNetworksOfANode: labels select them, nothing is declared before all
// are listed, and a Node that is deleted keeps what it had.
func TestPhysicalNetworksOfANode(t *testing.T) {
	var got []string
	p := newPhysical(func(w []host.Wire) { got = append(got, fmt.Sprint(w)) })
	for _, n := range []*intent.PhysicalNetwork{
		{Name: "everywhere", NIC: "eth1"},
		{Name: "racks", Bridge: "br-rack", Nodes: intent.Labels{{Key: "rack", Op: intent.In, Values: []string{"a"}}}},
	} {
		p.know(n)
	}
	p.label(map[string]string{"rack": "b"})
	if got != nil {
		t.Errorf("declared %v before all were listed", got)
	}
	p.list()
	p.label(map[string]string{"rack": "a"})
	p.label(map[string]string{"rack": "a"}) // a heartbeat
	p.forget("everywhere")
	want := []string{"[{everywhere eth1 }]", "[{everywhere eth1 } {racks  br-rack}]", "[{racks  br-rack}]"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("declared\n%v, wanted\n%v", got, want)
	}
}

func TestPhysicalNetworksAreReported(t *testing.T) {
	s := view{wires: []host.WireState{{Network: "lan", Bridge: "br-0", Ready: true}, {Network: "san", Message: "no NIC"}}}.status(nil)
	if fmt.Sprint(s.PhysicalNetworks) != fmt.Sprint([]v1alpha1.NodePhysicalNetwork{{Name: "lan", Bridge: "br-0", Ready: true}, {Name: "san", Message: "no NIC"}}) {
		t.Errorf("found %+v", s.PhysicalNetworks)
	}
}

func TestMachineKeepsWhatPartsAdd(t *testing.T) {
	var got *intent.Host
	m := &machine{host: intent.Host{Node: "n"}, put: func(o intent.Object) { got = o.(*intent.Host) }}
	m.change(func(h *intent.Host) { h.PhysicalBridges = []intent.PhysicalBridge{{Network: "lan", Bridge: "br-0"}} })
	first := got
	m.change(func(h *intent.Host) { h.WaitBeforeClear = 7 })
	if len(got.PhysicalBridges) != 1 || got.WaitBeforeClear != 7 || first.WaitBeforeClear != 0 || got.Node != "n" {
		t.Errorf("found %+v after %+v", got, first)
	}
}
