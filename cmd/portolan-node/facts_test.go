package main

import (
	"net/netip"
	"testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestWhatIsAnnotatedIsNotWritten: an agent that restarts finds its annotations and
// leaves them; one whose machine has changed, or that is new, writes.
func TestWhatIsAnnotatedIsNotWritten(t *testing.T) {
	f := facts{
		spec: &v1alpha1.Cluster{}, plan: &intent.Cluster{}, chassis: "c1",
		gateway: host.Gateway{Bridge: "br-ex", NIC: "eth0", MAC: "02:00:00:00:00:02", Addresses: []netip.Prefix{netip.MustParsePrefix("172.18.0.2/16")}},
	}
	cfg := &Config{Node: "n1"}
	fresh := &intent.Node{Name: "n1"}
	said := f.own(fresh)
	if !f.annotated(said, f.annotations(cfg)) {
		t.Error("what the API server has would be written again")
	}
	if f.annotated(fresh, f.annotations(cfg)) {
		t.Error("a new node's annotations would not be written")
	}
	f.chassis = "c2"
	if f.annotated(said, f.annotations(cfg)) {
		t.Error("another chassis would not be written")
	}
	f.chassis, f.plan.GatewayVLAN = "c1", 5
	if f.annotated(said, f.annotations(cfg)) {
		t.Error("with a VLAN, which is not read back, the annotations must be written")
	}
}
