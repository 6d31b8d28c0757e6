package host_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/ovsdb/ovsdbtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestGatewayFlows(t *testing.T) {
	v4, v6 := netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd00::2")
	base := host.GatewayFlows{NIC: 1, MAC: "02:00:00:00:00:02", Addresses: []netip.Addr{v4}, Zone: host.GatewayZone}
	withOVN, dual := base, base
	withOVN.OVN, dual.OVN = 2, 2
	dual.Addresses = []netip.Addr{v4, v6}
	for name, f := range map[string]host.GatewayFlows{
		"before-ovn-has-its-port": base, "host-and-ovn-share-an-address": withOVN, "dual-stack": dual,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".flows")
			got := f.Text()
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("flows differ (-wanted +found):\n%s", d)
			}
			parse(t, file, got)
		})
	}
}

// parse has the real ovs-ofctl read the flows, and counts that it kept them all.
func parse(t *testing.T, file, text string) {
	out, err := ovsdbtest.Command("ovs-ofctl", "-O", "OpenFlow15", "parse-flows", file).CombinedOutput()
	if err != nil {
		if _, statErr := os.Stat(ovsdbtest.Schema("vswitch")); statErr != nil {
			t.Skip("no OVS here to read the flows with: ", statErr)
		}
		t.Fatalf("ovs-ofctl: %v\n%s", err, out)
	}
	wanted := strings.Count(text, "\ncookie") // the first line is a comment
	if got := strings.Count(string(out), "table:") + strings.Count(string(out), "OFPT_FLOW_MOD"); got < wanted {
		t.Errorf("ovs-ofctl read %d flows, wanted %d\n%s", got, wanted, out)
	}
}

func TestGatewayFlowsAreTheSameEachTime(t *testing.T) {
	f := host.GatewayFlows{NIC: 1, OVN: 2, MAC: "02:00:00:00:00:02", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Zone: 1}
	if f.Text() != f.Text() {
		t.Error("two texts of one input differ")
	}
}
