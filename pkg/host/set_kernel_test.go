//go:build kernel

package host_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

func openKernel(t *testing.T, dir string) *host.Kernel {
	t.Helper()
	k, err := host.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = k.Set(context.Background(), host.Config{})
		k.Close()
	})
	return k
}

func dummies(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		run(t, "ip", "link", "add", n, "type", "veth", "peer", "name", n+"p")
		run(t, "ip", "link", "set", n+"p", "up")
		t.Cleanup(func() {
			if _, err := net.InterfaceByName(n); err == nil {
				run(t, "ip", "link", "del", n)
			}
		})
	}
}

func set(t *testing.T, k *host.Kernel, c host.Config) host.Report {
	t.Helper()
	r, err := k.Set(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fullConfig() host.Config {
	return host.Config{
		Links: []host.Link{
			{Name: "d0", MAC: "02:00:00:00:00:10", MTU: 1300, Addresses: mustPrefixes("192.0.2.1/24", "2001:db8::1/64"), TxChecksumOff: true},
			{Name: "d1"},
		},
		Routes: []host.Route{
			{Dst: netip.MustParsePrefix("198.51.100.0/24"), Link: "d0", Gateway: netip.MustParseAddr("192.0.2.9"), Source: netip.MustParseAddr("192.0.2.1"), MTU: 1200},
			{Dst: netip.MustParsePrefix("203.0.113.0/24"), Link: "d0", Table: 1000, Metric: 7},
			{Dst: netip.MustParsePrefix("2001:db8:1::/48"), Link: "d0", Gateway: netip.MustParseAddr("2001:db8::9")},
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: "d0", Gateway: netip.MustParseAddr("10.255.255.1"), OnLink: true, Metric: 900},
			{Dst: netip.MustParsePrefix("::/0"), Link: "d0", Gateway: netip.MustParseAddr("2001:db8::9"), Metric: 900},
		},
		Rules: []host.Rule{
			{Priority: 2000, To: netip.MustParsePrefix("203.0.113.0/24"), Table: 1000},
			{Priority: 2001, From: netip.MustParsePrefix("2001:db8::/64"), Mark: 5, Table: 1000},
		},
		Sysctls: []host.Sysctl{{Path: "net/ipv4/conf/d0/rp_filter", Value: "2"}, {Path: "net/ipv4/conf/none/rp_filter", Value: "2"}},
		Hidden:  []host.Hidden{{NIC: "d1", Bridge: "d0"}},

		HideAttachments: true,
	}
}

func TestSetTwiceWritesOnce(t *testing.T) {
	dummies(t, "d0", "d1")
	k := openKernel(t, t.TempDir())
	if r := set(t, k, fullConfig()); r.Changes < 15 || len(r.Missing) != 0 {
		t.Errorf("found %+v, wanted all written", r)
	}
	if r := set(t, k, fullConfig()); r.Changes != 0 {
		t.Errorf("found %d changes, wanted none", r.Changes)
	}
	if r := set(t, openKernel(t, t.TempDir()), fullConfig()); r.Changes != 0 {
		t.Errorf("without a record: found %d changes, wanted none", r.Changes)
	}
}

// TestARestartKeepsTheManagementPort has a new agent that does not know its node's
// subnets yet declare what an earlier one managed: nothing is written.
func TestARestartKeepsTheManagementPort(t *testing.T) {
	dummies(t, intent.ManagementPort)
	dir := t.TempDir()
	declared := func(subnets []netip.Prefix) host.Config {
		m := host.Management{Subnets: subnets, PodSubnets: mustPrefixes("10.244.0.0/16", "fd00:10:244::/48"), MTU: 1400}
		return host.Declare(host.Gateway{Foreign: intent.SystemDatapath}, m, intent.SystemDatapath)
	}
	k := openKernel(t, dir)
	if got, err := k.Managed(); err != nil || len(got) != 0 {
		t.Fatalf("a new node manages %v, %v", got, err)
	}
	want := mustPrefixes("10.244.1.0/24", "fd00:10:244:1::/64")
	if r := set(t, k, declared(want)); r.Changes < 6 || len(r.Missing) != 0 {
		t.Fatalf("found %+v, wanted all written", r)
	}
	k = openKernel(t, dir)
	got, err := k.Managed()
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("after a restart it manages %v, %v, want %v", got, err, want)
	}
	if r := set(t, k, declared(got)); r.Changes != 0 {
		t.Errorf("found %d changes, wanted none", r.Changes)
	}
}

func TestEmptySetUndoesAfterRestart(t *testing.T) {
	dummies(t, "d0", "d1")
	dir := t.TempDir()
	rpFilter := "/proc/sys/net/ipv4/conf/d0/rp_filter"
	before, _ := os.ReadFile(rpFilter)
	sh(t, "ip link set d0 up\nip link set d1 up")
	foreign := func() string {
		return strings.Join([]string{
			run(t, "ip", "-o", "addr"), run(t, "ip", "route", "show", "table", "all"), run(t, "ip", "rule"), run(t, "nft", "list", "ruleset"),
		}, "\n")
	}
	sh(t, "ip addr add 192.0.2.77/24 dev d0\nip route add 198.18.0.0/15 dev d0 proto static\nip rule add prio 3000 table 7\nnft add table inet theirs")
	want := foreign()
	set(t, openKernel(t, dir), fullConfig())
	set(t, openKernel(t, dir), host.Config{})
	if got := foreign(); stripLinkLocal(got) != stripLinkLocal(want) {
		t.Errorf("found\n%s\nwanted what was there before:\n%s", got, want)
	}
	if after, _ := os.ReadFile(rpFilter); string(after) != string(before) {
		t.Errorf("rp_filter found %q, wanted %q", after, before)
	}
	if out := run(t, "ethtool", "-k", "d0"); !strings.Contains(out, "tx-checksum-ip-generic: on") {
		t.Errorf("transmit checksums are still off:\n%s", out)
	}
	sh(t, "ip rule del prio 3000\nnft delete table inet theirs")
}

// stripLinkLocal drops what changes by itself or with the MAC.
func stripLinkLocal(s string) string {
	var keep []string
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "fe80") && !strings.Contains(line, "ff00") {
			keep = append(keep, strings.ReplaceAll(line, " tentative", ""))
		}
	}
	return strings.Join(keep, "")
}

func TestChangedConfigSweepsWhatItLeavesOut(t *testing.T) {
	dummies(t, "d0", "d1")
	k := openKernel(t, t.TempDir())
	c := fullConfig()
	set(t, k, c)
	c.Links[0].Addresses = mustPrefixes("192.0.2.2/24", "2001:db8::1/64")
	c.Routes = []host.Route{{Dst: netip.MustParsePrefix("198.51.100.0/24"), Link: "d0", Gateway: netip.MustParseAddr("192.0.2.8")}}
	c.Rules = c.Rules[:1]
	set(t, k, c)
	if r := set(t, k, c); r.Changes != 0 {
		t.Errorf("found %d changes, wanted none", r.Changes)
	}
	if got := addrs("d0"); strings.Contains(got, "192.0.2.1/") || !strings.Contains(got, "192.0.2.2/24") {
		t.Errorf("addresses found %q", got)
	}
	got := run(t, "ip", "route", "show", "proto", "85", "table", "all") + run(t, "ip", "-6", "route", "show", "proto", "85", "table", "all")
	if want := "198.51.100.0/24 via 192.0.2.8 dev d0"; strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("routes found\n%swanted\n%s", got, want)
	}
}

func TestAddressIsOnOneLinkOnly(t *testing.T) {
	dummies(t, "d0", "d1")
	sh(t, "ip addr add 192.0.2.1/24 dev d1\nip addr add 192.0.2.3/24 dev d1\nip link set d1 up\nip route add default via 192.0.2.254 dev d1")
	k := openKernel(t, t.TempDir())
	set(t, k, host.Config{
		Links:  []host.Link{{Name: "d1"}, {Name: "d0", Addresses: mustPrefixes("192.0.2.1/24", "192.0.2.3/24")}},
		Routes: []host.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: "d0", Gateway: netip.MustParseAddr("192.0.2.254")}},
	})
	if a, b := addrs("d0"), addrs("d1"); a != "192.0.2.1/24 192.0.2.3/24" || b != "" {
		t.Errorf("found %q and %q", a, b)
	}
	if got := run(t, "ip", "route"); strings.Contains(got, "d1") {
		t.Errorf("routes are left on the old link:\n%s", got)
	}
}

func TestMissingLinkKeepsTheAddressWhereItIs(t *testing.T) {
	dummies(t, "d1")
	sh(t, "ip addr add 192.0.2.1/24 dev d1")
	k := openKernel(t, t.TempDir())
	r := set(t, k, host.Config{
		Links:  []host.Link{{Name: "d1"}, {Name: "later", Addresses: mustPrefixes("192.0.2.1/24")}},
		Hidden: []host.Hidden{{NIC: "d1", Bridge: "later"}},
	})
	if len(r.Missing) != 1 || r.Missing[0] != "later" || addrs("d1") != "192.0.2.1/24" {
		t.Errorf("found %+v, addresses %q", r, addrs("d1"))
	}
	if got := run(t, "nft", "list", "ruleset"); strings.Contains(got, "d1") {
		t.Errorf("hidden before anything took its place:\n%s", got)
	}
}

func TestKeeperPutsBackWhatGoes(t *testing.T) {
	dummies(t, "d0", "d1")
	k := openKernel(t, t.TempDir())
	keeper := host.NewKeeper(k, testLog(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); keeper.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	keeper.Declare(fullConfig())
	there := func() bool {
		return strings.Contains(addrs("d0"), "192.0.2.1/24") &&
			strings.Contains(run(t, "ip", "route", "show", "table", "1000"), "203.0.113.0/24")
	}
	eventually(t, 5*time.Second, "declared state", there)
	for _, damage := range []string{
		"ip addr flush dev d0", "ip route del 203.0.113.0/24 table 1000", "ip link set d0 down", "ip link del d0",
	} {
		run(t, "ip", strings.Fields(damage)[1:]...)
		if strings.Contains(damage, "link del") {
			run(t, "ip", "link", "add", "d0", "type", "veth", "peer", "name", "d0p")
			run(t, "ip", "link", "set", "d0p", "up")
		}
		eventually(t, time.Second, "back after "+damage, there)
	}
}

func TestDiscover(t *testing.T) {
	dir := t.TempDir()
	k := openKernel(t, dir)
	o := host.Options{Bridge: "br-ex", RunDir: dir}
	if _, err := k.Discover(o); !errors.Is(err, host.ErrNoGateway) {
		t.Errorf("found %v, wanted ErrNoGateway", err)
	}
	dummies(t, "d0", "d1")
	sh(t, `
ip link set d0 up
ip link set d1 up
ip addr add 192.0.2.1/24 dev d0
ip addr add 198.51.100.1/24 dev d1
ip route add default via 192.0.2.254 dev d0 metric 100
ip route add 10.0.0.0/8 via 198.51.100.9 dev d1
`)
	check := func(o host.Options, nic string, routes int) {
		t.Helper()
		g, err := k.Discover(o)
		if err != nil || g.NIC != nic || g.Bridge != "br-ex" || len(g.Routes) != routes || !g.Virtual {
			t.Errorf("%+v: found %+v, %v, wanted %s with %d routes", o, g, err, nic, routes)
		}
	}
	check(o, "d0", 1)
	o.NodeIPs = []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	check(o, "d1", 1)
	o.Interface = "d0"
	check(o, "d0", 1)
	o.BridgeNIC = func(string) (string, intent.Datapath) { return "eth7", "netdev" }
	if g, err := k.Discover(o); err != nil || g.NIC != "eth7" || g.Bridge != "d0" || g.Foreign != "netdev" {
		t.Errorf("found %+v, %v, wanted a foreign bridge d0 with eth7", g, err)
	}
}

func TestDiscoverRefuses(t *testing.T) {
	dummies(t, "d0")
	i, err := net.InterfaceByName("d0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	k := openKernel(t, dir)
	o := host.Options{Bridge: "br-ex", RunDir: dir, Interface: "d0"}
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path, strconv.Itoa(i.Index))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(reason, file string) {
		t.Helper()
		_, err := k.Discover(o)
		var r *host.Refusal
		if !errors.As(err, &r) || !strings.Contains(r.Reason, reason) || r.File != file {
			t.Errorf("found %v, wanted a refusal for %s with file %q", err, reason, file)
		}
		forced := o
		forced.Force = true
		if _, err := k.Discover(forced); err != nil {
			t.Errorf("forced: %v", err)
		}
	}
	sh(t, "ip link set d0 up\nip addr add 192.0.2.1/24 dev d0 valid_lft 3600 preferred_lft 3600")
	refused("DHCP lease", "/etc/network/interfaces.d/d0")
	sh(t, "ip addr flush dev d0\nip addr add 192.0.2.1/24 dev d0")
	if _, err := k.Discover(o); err != nil {
		t.Errorf("a permanent address: %v", err)
	}
	write("systemd/netif/links", "ADMIN_STATE=configured\nOPER_STATE=routable\n")
	refused("systemd-networkd", "/etc/systemd/network/05-portolan.network")
	write("systemd/netif/links", "ADMIN_STATE=unmanaged\n")
	write("NetworkManager/devices", "[device]\nmanaged=true\n")
	refused("NetworkManager", "/etc/NetworkManager/conf.d/05-portolan.conf")
}

func TestDiscoverAfterACrashInTheMiddle(t *testing.T) {
	dummies(t, "d0")
	sh(t, "ip link set d0 up\nip addr add 192.0.2.1/24 dev d0\nip route add default via 192.0.2.254 dev d0")
	dir := t.TempDir()
	k := openKernel(t, dir)
	o := host.Options{Bridge: "br-ex", RunDir: dir}
	g, err := k.Discover(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SaveGateway(g); err != nil {
		t.Fatal(err)
	}
	sh(t, "ip addr flush dev d0")
	again, err := openKernel(t, dir).Discover(o)
	if err != nil || !again.Resumed || again.NIC != "d0" || len(again.Addresses) != 1 || len(again.Routes) != 1 {
		t.Errorf("found %+v, %v, wanted what was saved", again, err)
	}
	sh(t, "ip addr add 192.0.2.7/24 dev d0\nip route add default via 192.0.2.254 dev d0")
	fresh, err := k.Discover(o)
	if err != nil || fresh.Resumed || fresh.Addresses[0] != netip.MustParsePrefix("192.0.2.7/24") {
		t.Errorf("after a reboot with another address: found %+v, %v", fresh, err)
	}
}
