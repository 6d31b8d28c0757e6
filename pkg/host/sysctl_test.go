package host_test

import (
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// TestDeclareOpensNothing: what the host is told never lets neighbours reach its
// loopback addresses, and closes each link of ours to router advertisements.
func TestDeclareOpensNothing(t *testing.T) {
	m := host.Management{Subnets: mustPrefixes("10.244.1.0/24", "fd10:1::/64"), PodSubnets: mustPrefixes("10.244.0.0/16", "fd10::/48")}
	for _, dp := range []intent.Datapath{intent.UserspaceDatapath, intent.SystemDatapath} {
		have := map[string]string{}
		for _, s := range host.Declare(testGateway(), m, dp).Sysctls {
			have[s.Path] = s.Value
			if strings.HasSuffix(s.Path, "/route_localnet") {
				t.Errorf("%s: %s is set to %s: 127.0.0.0/8 is the node's own", dp, s.Path, s.Value)
			}
		}
		for _, link := range []string{"br-ex", intent.ManagementPort} {
			for _, knob := range []string{"accept_ra", "autoconf", "accept_dad"} {
				if path := "net/ipv6/conf/" + link + "/" + knob; have[path] != "0" {
					t.Errorf("%s: %s is %q, wanted 0", dp, path, have[path])
				}
			}
		}
	}
}
