//go:build kernel

package host_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
)

const nicMAC = "02:00:00:00:00:02"

// wire gives the node a NIC, eth0, to a neighbour, and puts a stand-in for OVN's
// gateway router, with the node's MAC and address, behind br-int.
func wire(t *testing.T) {
	t.Helper()
	sh(t, `
ip link set lo up
ip netns add pth-peer
ip link add eth0 address `+nicMAC+` type veth peer name eth0 netns pth-peer
ip addr add 172.18.0.2/24 dev eth0
ip addr add fd00:18::2/64 dev eth0 nodad
ip link set eth0 up
ip route add default via 172.18.0.1 dev eth0 proto static
ip route add default via fd00:18::1 dev eth0 proto static
ip route add 10.99.0.0/16 via 172.18.0.1 dev eth0 metric 50
ip -n pth-peer addr add 172.18.0.1/24 dev eth0
ip -n pth-peer addr add fd00:18::1/64 dev eth0 nodad
ip -n pth-peer link set eth0 up
ip -n pth-peer link set lo up
ip netns exec pth-peer ethtool -K eth0 tx off
ip netns add pth-ovn
ip link add ovn0p type veth peer name ovn0 netns pth-ovn
ip link set ovn0p up
ip -n pth-ovn link set ovn0 address `+nicMAC+`
ip -n pth-ovn addr add 172.18.0.2/24 dev ovn0
ip -n pth-ovn addr add fd00:18::2/64 dev ovn0 nodad
ip -n pth-ovn link set ovn0 up
ip netns exec pth-ovn ethtool -K ovn0 tx off
`)
	t.Cleanup(func() {
		for _, args := range []string{"link del eth0", "link del ovn0p", "netns del pth-peer", "netns del pth-ovn"} {
			_ = exec.Command("ip", strings.Fields(args)...).Run()
		}
	})
}

// bridges makes in the OVS database what the engine would.
func bridges(v *vswitch) {
	v.vsctl(`--no-wait set Open_vSwitch . external_ids:ovn-remote=unix:none external_ids:theirs=1 other_config:bundle-idle-timeout=180
 -- add-br br-int -- set bridge br-int datapath_type=netdev fail_mode=standalone external_ids:portolan/owner=ovs/node1
 -- add-br br-ex -- set bridge br-ex datapath_type=netdev fail_mode=standalone other_config:hwaddr=` + nicMAC + ` external_ids:portolan/owner=ovs/node1
 -- set interface br-ex mtu_request=1500
 -- add-port br-ex eth0
 -- add-port br-int ovn-k8s-mp0 -- set interface ovn-k8s-mp0 type=internal mtu_request=1400`)
}

// patch makes what ovn-controller would, with the stand-in router behind it.
func patch(v *vswitch) {
	v.vsctl(`--no-wait add-port br-int ovn0p
 -- add-port br-int patch-br-int-to-br-ex_node1 -- set interface patch-br-int-to-br-ex_node1 type=patch options:peer=patch-br-ex_node1-to-br-int
 -- add-port br-ex patch-br-ex_node1-to-br-int -- set interface patch-br-ex_node1-to-br-int type=patch options:peer=patch-br-int-to-br-ex_node1`)
}

// agent is the part of portolan-node under test.
type agent struct {
	t      *testing.T
	kernel *host.Kernel
	ovs    *host.OVS
	node   host.Node
	set    chan host.Report
	loaded chan struct{}
	stop   func()
}

func startAgent(t *testing.T, v *vswitch, stateDir string) *agent {
	t.Helper()
	k, err := host.Open(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	ovs, err := host.OpenOVS(t.Context(), "unix:"+v.sock())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ovs.Close)
	dp, reason, err := k.DetectDatapath()
	if err != nil || dp != intent.UserspaceDatapath {
		t.Skipf("found datapath %q (%s, %v), wanted a kernel without the module", dp, reason, err)
	}
	g, err := k.Discover(host.Options{Bridge: "br-ex", RunDir: stateDir, BridgeNIC: ovs.BridgeNIC})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SaveGateway(g); err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, kernel: k, ovs: ovs, set: make(chan host.Report, 100), loaded: make(chan struct{}, 100)}
	r := host.NewRunner(k, ovs, g.Bridge, v.dir, testLog(t))
	r.Loader.Command = v.ofctl
	r.Loader.Loaded = func() { a.loaded <- struct{}{} }
	r.Keeper.Done = func(rep host.Report, err error) {
		// A link that vswitchd takes away while the kernel is being set is set again.
		if err != nil && !errors.Is(err, unix.ENODEV) {
			t.Errorf("Set: %v", err)
		}
		a.set <- rep
	}
	a.node = host.Node{Name: "node1", Gateway: g, Datapath: dp, Management: host.Management{
		Subnets: prefixes("10.244.1.0/24"), PodSubnets: prefixes("10.244.0.0/16"), MTU: 1400}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	a.stop = func() { cancel(); <-done }
	t.Cleanup(a.stop)
	r.Declare(a.node)
	return a
}

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// addrs is what a link of the node has, "" when it is not there.
func addrs(link string) string {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return ""
	}
	as, _ := i.Addrs()
	var ss []string
	for _, a := range as {
		if !strings.HasPrefix(a.String(), "fe80") {
			ss = append(ss, a.String())
		}
	}
	return strings.Join(ss, " ")
}

func (a *agent) taken() {
	a.t.Helper()
	eventually(a.t, 5*time.Second, "the addresses are on the bridge and the management port", func() bool {
		return addrs("br-ex") == "172.18.0.2/24 fd00:18::2/64" && addrs("ovn-k8s-mp0") == "10.244.1.2/24" && addrs("eth0") == ""
	})
}

func (a *agent) flows() {
	a.t.Helper()
	select {
	case <-a.loaded:
	case <-time.After(5 * time.Second):
		a.t.Fatal("flows not loaded within 5 s")
	}
}

// ping sends n echo requests from a namespace and fails unless each is answered
// exactly once.
func ping(t *testing.T, ns, to string) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", ns, "ping", "-n", "-c", "5", "-i", "0.1", "-W", "2", to).CombinedOutput()
	if err != nil || strings.Contains(string(out), "DUP!") || !strings.Contains(string(out), " 0% packet loss") {
		t.Fatalf("ping %s from %s: %v\n%s", to, ns, err, out)
	}
}

// TestTakeover walks through a node's life: the NIC taken over, the address
// shared by host and OVN, vswitchd restarted, the agent restarted, cleanup.
func TestTakeover(t *testing.T) {
	whole := t
	wire(t)
	routes := func() string { return stripLinkLocal(run(t, "ip", "route") + run(t, "ip", "-6", "route")) }
	routesBefore, addrsBefore := routes(), addrs("eth0")
	v := startOVS(t)
	dir := t.TempDir()
	a := startAgent(t, v, dir)
	bridges(v)
	a.taken()
	a.flows()
	t.Run("the neighbour reaches the host once", func(t *testing.T) {
		ping(t, "pth-peer", "172.18.0.2")
		ping(t, "pth-peer", "fd00:18::2")
	})
	t.Run("routes moved", func(t *testing.T) {
		routes := run(t, "ip", "route")
		for _, want := range []string{
			"default via 172.18.0.1 dev br-ex proto 85", "10.99.0.0/16 via 172.18.0.1 dev br-ex proto 85 metric 50",
			"10.244.0.0/16 via 10.244.1.1 dev ovn-k8s-mp0 proto 85 src 10.244.1.2",
		} {
			if !strings.Contains(routes, want) {
				t.Errorf("no %q in\n%s", want, routes)
			}
		}
		if strings.Contains(routes, "eth0") {
			t.Errorf("routes through the NIC are left:\n%s", routes)
		}
	})
	t.Run("set again changes nothing", func(t *testing.T) {
		r, err := a.kernel.Set(t.Context(), host.Declare(a.node.Gateway, a.node.Management, a.node.Datapath))
		if err != nil || r.Changes != 0 {
			t.Errorf("found %d changes, %v, wanted none", r.Changes, err)
		}
	})
	patch(v)
	a.flows()
	t.Run("host and OVN share the address", func(t *testing.T) { sharedAddress(t) })
	t.Run("vswitchd is killed", func(t *testing.T) { restartSwitch(t, v, a, v.killSwitch) })
	t.Run("vswitchd takes its taps along", func(t *testing.T) { restartSwitch(t, v, a, v.exitSwitch) })
	t.Run("vswitchd stays away", func(t *testing.T) { awaySwitch(t, v, a, addrsBefore) })
	t.Run("the agent restarts", func(t *testing.T) {
		a.stop()
		a = startAgent(whole, v, dir)
		if r := <-a.set; r.Changes != 0 {
			t.Errorf("found %d changes, wanted none", r.Changes)
		}
		if !a.node.Gateway.Resumed || a.node.Gateway.NIC != "eth0" {
			t.Errorf("found gateway %+v, wanted eth0 resumed", a.node.Gateway)
		}
	})
	t.Run("cleanup", func(t *testing.T) {
		a.stop()
		if err := host.Cleanup(t.Context(), a.kernel, a.ovs, []string{"ovn-remote", "ovn-encap-ip"}, []string{"bundle-idle-timeout"}); err != nil {
			t.Fatal(err)
		}
		if got := addrs("eth0"); got != addrsBefore {
			t.Errorf("addresses found %q, wanted %q", got, addrsBefore)
		}
		eventually(t, 5*time.Second, "the bridges are gone", func() bool {
			_, ex := net.InterfaceByName("br-ex")
			_, mp := net.InterfaceByName("ovn-k8s-mp0")
			return ex != nil && mp != nil
		})
		if got := routes(); got != routesBefore {
			t.Errorf("routes found\n%swanted\n%s", got, routesBefore)
		}
		if got := run(t, "nft", "list", "ruleset"); strings.Contains(got, "portolan") {
			t.Errorf("nftables left:\n%s", got)
		}
		settings := v.do("ovs-vsctl", "--db=unix:"+v.sock(), "--columns=external_ids,other_config", "list", "Open_vSwitch")
		if strings.Contains(settings, "ovn-remote") || strings.Contains(settings, "bundle") || !strings.Contains(settings, "theirs") {
			t.Errorf("settings found %s, wanted theirs alone", settings)
		}
		if files, _ := os.ReadDir(dir); len(files) != 0 {
			t.Errorf("state left: %v", files)
		}
		ping(t, "pth-peer", "172.18.0.2")
	})
}

// sharedAddress checks that each side gets the answers to what it asked, and the
// host what nobody asked for.
func sharedAddress(t *testing.T) {
	serve(t, "pth-peer", "172.18.0.1:80", "peer")
	serve(t, "", "172.18.0.2:10250", "host")
	for range 10 {
		for _, from := range []string{"", "pth-ovn"} {
			if w, err := call(t, from, "172.18.0.1:80"); w != "peer" || err != nil {
				t.Fatalf("from %q to the neighbour: found %q, %v", from, w, err)
			}
		}
		if w, err := call(t, "pth-peer", "172.18.0.2:10250"); w != "host" || err != nil {
			t.Fatalf("from the neighbour to the host: found %q, %v", w, err)
		}
	}
	for ns, to := range map[string][]string{"pth-peer": {"172.18.0.2", "fd00:18::2"}, "pth-ovn": {"172.18.0.1", "fd00:18::1"}} {
		for _, a := range to {
			ping(t, ns, a)
		}
	}
}

// awaySwitch ends vswitchd, both ways, and starts it again only when the node has
// its addresses back on the NIC.
func awaySwitch(t *testing.T, v *vswitch, a *agent, addrsBefore string) {
	for _, end := range []func(){v.killSwitch, v.exitSwitch} {
		end()
		eventually(t, 10*time.Second, "the NIC has its addresses back", func() bool { return addrs("eth0") == addrsBefore && addrs("br-ex") == "" })
		eventually(t, 5*time.Second, "the kernel hears what arrives at the NIC", func() bool {
			return !strings.Contains(run(t, "nft", "list", "ruleset"), "eth0")
		})
		ping(t, "pth-peer", "172.18.0.2")
		if got := run(t, "ip", "route", "get", "192.0.2.1"); !strings.Contains(got, "dev eth0") {
			t.Errorf("the default route is not the NIC's: %s", got)
		}
		v.startSwitch()
		a.taken()
		ping(t, "pth-peer", "172.18.0.2")
	}
}

// restartSwitch ends vswitchd and starts it again. A killed one leaves its taps
// behind, without carrier; one that cleans up takes them along.
func restartSwitch(t *testing.T, v *vswitch, a *agent, end func()) {
	for len(a.loaded) > 0 {
		<-a.loaded
	}
	end()
	before := linkIndex("ovn-k8s-mp0")
	v.startSwitch()
	var back time.Time
	eventually(t, 10*time.Second, "the management port is back", func() bool {
		back = time.Now()
		now, err := net.InterfaceByName("ovn-k8s-mp0")
		return err == nil && now.Flags&net.FlagRunning != 0
	})
	a.taken()
	t.Logf("ifindex %d, now %d; addresses back %v after the port", before, linkIndex("ovn-k8s-mp0"), time.Since(back))
	if took := time.Since(back); took > time.Second {
		t.Errorf("addresses back %v after the taps, wanted 1 s", took)
	}
	a.flows()
	ping(t, "pth-peer", "172.18.0.2")
	ping(t, "pth-ovn", "172.18.0.1")
}

func linkIndex(name string) int {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return 0
	}
	return i.Index
}

// TestLostBridgeGivesTheNICBack starts the agent on a node whose OVS database
// was lost after the takeover: it must reach the API server before the engine can
// make the bridge again, and take the NIC over again when it has.
func TestLostBridgeGivesTheNICBack(t *testing.T) {
	wire(t)
	dir := t.TempDir()
	before := addrs("eth0")
	k := openKernel(t, dir)
	g, err := k.Discover(host.Options{Bridge: "br-ex", RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.SaveGateway(g); err != nil {
		t.Fatal(err)
	}
	sh(t, "ip addr flush dev eth0 scope global")
	v := startOVS(t)
	a := startAgent(t, v, dir)
	eventually(t, 5*time.Second, "the NIC has its addresses back", func() bool { return addrs("eth0") == before })
	ping(t, "pth-peer", "172.18.0.2")
	if got := run(t, "ip", "route"); !strings.Contains(got, "default via 172.18.0.1 dev eth0 proto static") {
		t.Errorf("routes found\n%s", got)
	}
	bridges(v)
	a.taken()
	a.flows()
	ping(t, "pth-peer", "172.18.0.2")
}
