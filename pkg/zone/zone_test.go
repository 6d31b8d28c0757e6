package zone

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/rows"
)

func TestAddressesBecomeEndpoints(t *testing.T) {
	d, err := Parse(v1alpha1.ClusterSpec{Zone: "global", Databases: []string{"172.18.0.3", "172.18.0.2", "fd00::4"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{
		{d.Endpoint(rows.NB), "ssl:172.18.0.3:6641,ssl:172.18.0.2:6641,ssl:[fd00::4]:6641"},
		{d.Endpoint(rows.SB), "ssl:172.18.0.3:6642,ssl:172.18.0.2:6642,ssl:[fd00::4]:6642"},
		{d.Listen(rows.NB, d.Servers[0]), "pssl:6641:172.18.0.3"},
		{d.Listen(rows.SB, d.Servers[2]), "pssl:6642:[fd00::4]"},
		{d.Raft(rows.NB, d.Servers[1]), "ssl:172.18.0.2:6643"},
		{d.Raft(rows.SB, d.Servers[2]), "ssl:[fd00::4]:6644"},
		{Databases{Servers: []netip.Addr{d.Servers[0]}, Insecure: true}.Endpoint(rows.NB), "tcp:172.18.0.3:6641"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s, want %s", c[0], c[1])
		}
	}
	if others := d.Others(d.Servers[1]); len(others) != 2 || others[0] != d.Servers[0] || others[1] != d.Servers[2] {
		t.Errorf("the others are %v", others)
	}
}

func TestPlansThatCannotWorkAreRefused(t *testing.T) {
	for _, c := range []struct {
		zone, want string
		databases  []string
	}{
		{"", "remove one or the other", []string{"172.18.0.3"}},
		{"node", "remove one or the other", []string{"172.18.0.3"}},
		{"global", "0 addresses", nil},
		{"global", "2 addresses", []string{"172.18.0.3", "172.18.0.2"}},
		{"global", "named twice", []string{"172.18.0.3", "172.18.0.2", "172.18.0.3"}},
		{"global", `"ovn-control-plane" is not an IP address`, []string{"ovn-control-plane"}},
	} {
		if _, err := Parse(v1alpha1.ClusterSpec{Zone: c.zone, Databases: c.databases}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("zone %q, databases %q: %v, want %q", c.zone, c.databases, err, c.want)
		}
	}
	if d, err := Parse(v1alpha1.ClusterSpec{Zone: "node"}); err != nil || len(d.Servers) != 0 {
		t.Errorf("zone node: %v, %v", d, err)
	}
}
