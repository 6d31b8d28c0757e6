//go:build kernel

package host_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

// two makes namespaces a and b with an address of each family, their other ends va
// and vb here.
func two(t *testing.T) {
	t.Helper()
	for i, ns := range []string{"a", "b"} {
		n := string('3' + byte(i))
		sh(t, `ip netns add `+ns+`
			ip link add v`+ns+` type veth peer name eth0 netns `+ns+`
			ip link set v`+ns+` up
			ip -n `+ns+` address add 10.244.1.`+n+`/24 dev eth0
			ip -n `+ns+` address add fd00:1::`+n+`/64 dev eth0 nodad
			ip -n `+ns+` link set eth0 up
			ip netns exec `+ns+` ethtool -K eth0 tx off
			ethtool -K v`+ns+` tx off`)
		t.Cleanup(func() { sh(t, "ip link del v"+ns+"\nip netns del "+ns) })
	}
}

// talk makes connections from a to b, of every protocol and family. The TCP ones
// stay open until the test ends, so that they are established when looked at.
func talk(t *testing.T) {
	t.Helper()
	for _, to := range []string{"10.244.1.4", "fd00:1::4"} {
		run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W5", to)
		var l *net.TCPListener
		listen := func() (err error) { l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(to)}); return err }
		if err := inNS(t, "b", listen); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		for _, network := range []string{"tcp", "udp"} {
			dial := func() error {
				c, err := net.DialTimeout(network, l.Addr().String(), 5*time.Second)
				if err != nil {
					return err
				}
				t.Cleanup(func() { c.Close() })
				_, err = c.Write([]byte("x"))
				return err
			}
			if err := inNS(t, "a", dial); err != nil {
				t.Fatalf("%s to %s: %v", network, to, err)
			}
		}
	}
}

// lines counts a text's lines that contain a word.
func lines(text, word string) (n int) {
	for l := range strings.Lines(text) {
		if strings.Contains(l, word) {
			n++
		}
	}
	return n
}

// TestKernelConntrackOfVswitchd: established connections in a real vswitchd are
// gone after the flush of one end's address, whichever end that is, and those of
// others stay.
func TestKernelConntrackOfVswitchd(t *testing.T) {
	v := startOVS(t)
	two(t)
	v.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure")
	v.vsctl("add-port br0 va -- add-port br0 vb")
	flows := filepath.Join(v.dir, "flows")
	if err := os.WriteFile(flows, []byte("table=0,priority=10,arp,actions=NORMAL\n"+
		"table=0,priority=10,icmp6,icmp_type=135,actions=NORMAL\ntable=0,priority=10,icmp6,icmp_type=136,actions=NORMAL\n"+
		"table=0,priority=1,ip,actions=ct(commit,zone=5),NORMAL\ntable=0,priority=1,ipv6,actions=ct(commit,zone=5),NORMAL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v.do("ovs-ofctl", "add-flows", "br0", flows)
	// The names that vswitchd has in production.
	if err := os.Symlink(filepath.Join(v.dir, "sw.ctl"), filepath.Join(v.dir, "ovs-vswitchd.1.ctl")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.dir, "ovs-vswitchd.pid"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dump := func() string { return v.do("ovs-appctl", "-t", v.dir+"/sw.ctl", "dpctl/dump-conntrack") }
	k, err := host.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	c := k.Conntrack(intent.UserspaceDatapath, v.dir)
	flushes(t, c, dump)

	v.killSwitch()
	if err := c.Flush(t.Context(), []netip.Addr{netip.MustParseAddr("10.244.1.3")}); err != nil {
		t.Errorf("a vswitchd that is not there has no connections: %v", err)
	}
}

// TestKernelConntrackOfTheKernel: the same of netfilter's table.
func TestKernelConntrackOfTheKernel(t *testing.T) {
	two(t)
	sh(t, `ip link add br9 type bridge
		ip link set br9 up
		ip link set va master br9
		ip link set vb master br9`)
	t.Cleanup(func() { sh(t, "ip link del br9") })
	// The table of a: what it tracks of its own is what is looked at and flushed.
	run(t, "ip", "netns", "exec", "a", "nft", "add table inet track; add chain inet track out { type filter hook output priority 0; }; "+
		"add rule inet track out ct state new accept")
	var k *host.Kernel
	open := func() (err error) { k, err = host.Open(t.TempDir()); return err }
	if err := inNS(t, "a", open); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	flushes(t, k.Conntrack(intent.SystemDatapath, ""), func() string {
		return run(t, "ip", "netns", "exec", "a", "sh", "-c", "conntrack -L -f ipv4; conntrack -L -f ipv6")
	})
}

// flushes is what both tables must do.
func flushes(t *testing.T, c *host.Conntrack, list func() string) {
	t.Helper()
	ctx := t.Context()
	flush := func(addrs ...netip.Addr) {
		t.Helper()
		if err := c.Flush(ctx, addrs); err != nil {
			t.Fatal(err)
		}
	}
	for _, who := range []struct{ v4, v6 string }{{"10.244.1.3", "fd00:1::3"}, {"10.244.1.4", "fd00:1::4"}} {
		talk(t)
		before := list()
		if lines(before, "src="+who.v4) < 3 || lines(before, "src="+who.v6) < 3 {
			t.Fatalf("no connections to flush of %v in:\n%s", who, before)
		}
		flush(netip.MustParseAddr("10.244.1.77"))
		if after := list(); lines(after, "src="+who.v4) < 3 {
			t.Errorf("the flush of another address took these with it:\n%s", before)
		}
		flush(netip.MustParseAddr(who.v4))
		after := list()
		if lines(after, "src="+who.v4) != 0 || lines(after, "src="+who.v6) < 3 {
			t.Errorf("after the flush of %s:\n%s", who.v4, after)
		}
		flush(netip.MustParseAddr(who.v6))
		if after := list(); lines(after, "src="+who.v6) != 0 {
			t.Errorf("after the flush of %s:\n%s", who.v6, after)
		}
	}
	talk(t)
	subnets := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	keep := []netip.Addr{netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("10.244.1.4"), netip.MustParseAddr("fd00:1::3")}
	if err := c.Sweep(ctx, subnets, keep); err != nil {
		t.Fatal(err)
	}
	if after := list(); lines(after, "src=fd00:1::") != 0 || lines(after, "src=10.244.1.") < 3 {
		t.Errorf("after a sweep that keeps %v:\n%s", keep, after)
	}
	if err := c.Sweep(ctx, subnets, nil); err != nil {
		t.Fatal(err)
	}
	if after := list(); lines(after, "src=10.244.1.") != 0 {
		t.Errorf("after a sweep that keeps none:\n%s", after)
	}
}
