//go:build kernel

package host_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/host"
)

// TestTunnelAddressesLeaveByTheirOwnNIC: of two NICs on one subnet, and to another by a
// router that only the second knows, what is sent from the second's address leaves by it,
// and from the first's by the first. Undeclared, the kernel is as it was.
func TestTunnelAddressesLeaveByTheirOwnNIC(t *testing.T) {
	sh(t, `ip link add nic1 type veth peer name wire1
		ip link add nic2 type veth peer name wire2
		ip link set wire1 up
		ip link set wire2 up
		ip link set nic1 up mtu 1500
		ip link set nic2 up mtu 1400
		ip addr add 198.18.7.2/24 dev nic1
		ip addr add 198.18.7.102/24 dev nic2
		ip route add 198.51.100.0/24 via 198.18.7.1 dev nic1
		ip route add 198.51.100.0/24 via 198.18.7.101 dev nic2 metric 500`)
	t.Cleanup(func() { sh(t, "ip link del nic1\nip link del nic2") })
	k, err := host.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	rules := run(t, "ip", "rule")
	addr := netip.MustParseAddr
	got, err := k.FindTunnels("n1", addr("198.18.7.2"), 1400, []netip.Addr{addr("198.18.7.102"), addr("198.18.7.103"), addr("fd00::2")})
	if err != nil || len(got.Addresses) != 1 || len(got.Problems) != 3 {
		t.Fatalf("%v: %+v", err, got)
	}
	for i, want := range []string{"nic2, which has tunnel address 198.18.7.102, has MTU 1400", "198.18.7.103 is on no network device", "fd00::2 has not the family"} {
		if !strings.Contains(got.Problems[i].Message, want) {
			t.Errorf("problem %q, want %q", got.Problems[i].Message, want)
		}
	}
	keeper := host.NewKeeper(k, slog.Default())
	keeper.Declare(host.Config{})
	keeper.DeclareTunnels(got.Config)
	done := make(chan struct{})
	go func() { defer close(done); keeper.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	way := func(to, from string) string { return run(t, "ip", "route", "get", to, "from", from) }
	eventually(t, 20*time.Second, "ways", func() bool {
		return strings.Contains(way("198.18.7.9", "198.18.7.102"), "dev nic2") &&
			strings.Contains(way("198.51.100.9", "198.18.7.102"), "via 198.18.7.101 dev nic2") &&
			strings.Contains(way("198.18.7.9", "198.18.7.2"), "dev nic1") &&
			strings.Contains(way("198.51.100.9", "198.18.7.2"), "via 198.18.7.1 dev nic1")
	})
	keeper.DeclareTunnels(host.Config{})
	eventually(t, 20*time.Second, "rules as before", func() bool { return run(t, "ip", "rule") == rules })
}
