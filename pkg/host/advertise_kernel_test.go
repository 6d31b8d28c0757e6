//go:build kernel

package host_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// advertise sends a router advertisement (RFC 4861 §4.2) of a prefix, from which
// addresses are to be made, to all nodes on eth0 of a namespace.
func advertise(t *testing.T, ns string, prefix netip.Prefix) {
	t.Helper()
	err := inNS(t, ns, func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		msg := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0} // a default router for 1,800 s
		msg = append(msg, 3, 4, byte(prefix.Bits()), 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0)
		msg = append(msg, prefix.Addr().AsSlice()...)
		return unix.Sendto(fd, msg, 0, &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(ifi.Index)})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKernelAdvertisements: on the kernel datapath a pod's router advertisements
// end at its device, before what forwards packets has them (here a Linux bridge,
// which takes them at the same place in the kernel as Open vSwitch), and what else
// pods say to neighbours does not.
func TestKernelAdvertisements(t *testing.T) {
	sh(t, `ip link add br8 type bridge
		ip link set br8 up`)
	t.Cleanup(func() { sh(t, "ip link del br8") })
	for i, ns := range []string{"pod", "peer"} {
		sh(t, fmt.Sprintf(`ip netns add %[1]s
			ip netns exec %[1]s sysctl -qw net.ipv6.conf.default.accept_ra=2 net.ipv6.conf.default.accept_dad=0
			ip link add p%[1]s group %[2]d type veth peer name eth0 netns %[1]s
			ip link set p%[1]s master br8 up
			ip -n %[1]s address add fd00:1::%[3]d/64 dev eth0 nodad
			ip -n %[1]s link set eth0 up`, ns, intent.AttachmentGroup, i+3))
		t.Cleanup(func() { sh(t, "ip netns del "+ns) })
	}
	k, err := host.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	set := func(refuse bool) host.Report {
		t.Helper()
		r, err := k.Set(t.Context(), host.Config{RefuseAdvertisements: refuse})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	believed := func(prefix string) bool {
		return strings.Contains(run(t, "ip", "-n", "peer", "-6", "route"), prefix)
	}
	table := func() string { return run(t, "nft", "list", "ruleset") }

	eventually(t, 5*time.Second, "the pod's link-local address", func() bool {
		return strings.Contains(run(t, "ip", "-n", "pod", "-6", "address", "show", "dev", "eth0", "scope", "link"), "fe80")
	})
	advertise(t, "pod", netip.MustParsePrefix("2001:db8:1::/64"))
	eventually(t, 5*time.Second, "a peer that is open believes the advertisement", func() bool { return believed("2001:db8:1::/64") })

	set(true)
	if got := table(); strings.Count(got, "icmpv6 type nd-router-advert drop") != 2 || !strings.Contains(got, `device "ppod"`) {
		t.Errorf("rules for two devices, found:\n%s", got)
	}
	if r := set(true); r.Changes != 0 {
		t.Errorf("set twice: %d changes, wanted none", r.Changes)
	}
	advertise(t, "pod", netip.MustParsePrefix("2001:db8:2::/64"))
	run(t, "ip", "-n", "peer", "neigh", "flush", "dev", "eth0")
	run(t, "ip", "netns", "exec", "pod", "ping", "-6", "-c1", "-W5", "fd00:1::4") // arrives after it, and needs neighbours
	if believed("2001:db8:2::/64") {
		t.Error("a router advertisement of a pod arrived at its peer")
	}

	sh(t, "ip link del ppeer")
	set(true)
	if got := table(); strings.Count(got, "nd-router-advert") != 1 {
		t.Errorf("a rule for one device, found:\n%s", got)
	}
	set(false)
	if got := table(); strings.Contains(got, "advertisements") {
		t.Errorf("nothing is declared, found:\n%s", got)
	}
}
