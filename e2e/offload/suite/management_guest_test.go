//go:build guest

package suite

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// TestDebianManagementPort counts what is lost between a node and its pod while the
// management port goes from Open vSwitch's own to a device of a pool, on to another
// pool's, and back; and between pods, where it must be none.
func TestDebianManagementPort(t *testing.T) {
	long(t)
	l := rig.New(t)
	base := nodeFile(1) + podFile(1, "web", "") + podFile(1, "db", "")
	s := newSite(l, t, "  managementPort: {resourceName: portolan.io/mp}\n", base)
	a := s.start(t, s.host(1, nil))
	web, db := a.add(t, "web"), a.add(t, "db")
	pods, err := rig.Counted(db, web, netip.AddrPortFrom(web.Addr.Addr(), 5003), pace)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := rig.Talk(a.Host, web, 5004)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ what, pools, port string }{
		{"a pool comes", softPool("mp", "portolan.io/mp", 1, ""), "sr-mp-0"},
		{"another pool takes its place", softPool("next", "portolan.io/mp", 1, ""), "sr-next-0"},
		{"it goes", "", "ovn-k8s-mp0"},
	} {
		l.Run(step.port, func(t *testing.T) {
			node, err := rig.Counted(a.Host, web, netip.AddrPortFrom(web.Addr.Addr(), 5002), pace)
			if err != nil {
				t.Fatal(err)
			}
			more(t, node)
			a.Write("intent/all.yaml", base+step.pools)
			rig.Wait(t, "the port "+step.port, func() error {
				port := a.Vsctl("--bare", "--columns=name", "find", "Interface", "external_ids:iface-id=k8s-n1")
				if _, err := a.Try("ping", "-c1", "-W1", web.Addr.Addr().String()); port != step.port || err != nil {
					return fmt.Errorf("it is %s, %v", port, err)
				}
				return nil
			})
			more(t, node)
			t.Logf("%s: between node and pod %s", step.what, node.Stop())
		})
	}
	if err := stream.Close(); err != nil {
		t.Errorf("the node's connection to its pod: %v", err)
	}
	if tally := pods.Stop(); tally.Lost > 0 {
		t.Errorf("between pods %s", tally)
	}
}
