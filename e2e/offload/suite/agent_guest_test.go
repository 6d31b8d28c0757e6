//go:build guest

package suite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
	"github.com/portolan-cni/portolan/offload"
)

// TestDebianAgent: the product itself on the kernel's datapath, where it is not told
// to have flows offloaded. No flow between its pods goes into TC: routers with
// gateway_mtu ask for ct.dnat in a table that every packet passes, so that each flow
// of the datapath has that bit of ct_state in its mask, which TC does not know.
// Without gateway_mtu they do.
func TestDebianAgent(t *testing.T) {
	l := rig.New(t)
	s := newSite(l, t, "", nodeFile(1)+podFile(1, "web", "")+podFile(1, "db", ""))
	a := s.start(t, s.host(1, nil), rig.HWOffload()...)
	web, db := a.add(t, "web"), a.add(t, "db")
	ping(t, web, db.Addr.Addr().String())
	port := a.port(t, "default_web")
	l.Run("GatewayMTU", func(t *testing.T) {
		flowsFrom(t, a.OVS, port, "ovs", "")
	})
	l.Run("NoGatewayMTU", func(t *testing.T) {
		for _, port := range strings.Fields(a.Run("ovn-nbctl", "--bare", "--columns=_uuid", "list", "Logical_Router_Port")) {
			a.Run("ovn-nbctl", "remove", "Logical_Router_Port", port, "options", "gateway_mtu")
		}
		a.sync()
		a.Forget() // a flow whose mask asks for more than is needed is kept as long as it is used
		flowsFrom(t, a.OVS, port, "tc", "")
	})
	a.del(t, call{pod: "web"})
}

// sync waits until the node's chassis has done what its northbound database says.
func (a *agent) sync() {
	a.Run("ovn-nbctl", "--timeout=100", "--wait=hv", "sync")
}

// TestDebianTwoAgents: two nodes of the product with offload in mode hardware. Packets
// between pods are in TC, on one node and through Geneve; where connections are
// tracked they stay in Open vSwitch's datapath, and portolan offload says why.
func TestDebianTwoAgents(t *testing.T) {
	l := rig.New(t)
	s := newSite(l, t, "  offload: {mode: hardware}\n", nodeFile(1)+nodeFile(2)+podFile(1, "web", "")+podFile(1, "db", "")+podFile(2, "far", ""))
	one := s.start(t, s.host(1, nil))
	two := s.start(t, s.host(2, nil))
	web, db, far := one.add(t, "web"), one.add(t, "db"), two.add(t, "far")
	port := one.port(t, "default_web")
	l.Run("SameNode", func(t *testing.T) {
		ping(t, web, db.Addr.Addr().String())
		flowsFrom(t, one.OVS, port, "tc", "")
		one.tells(t, "web", "eth0", offload.InSoftware, offload.NoDevice)
	})
	l.Run("Geneve", func(t *testing.T) {
		ping(t, web, far.Addr.Addr().String())
		flowsFrom(t, one.OVS, port, "tc", "")
		flowsFrom(t, two.OVS, "genev_sys_6081", "tc", "")
		ping(t, far, web.Addr.Addr().String())
		flowsFrom(t, two.OVS, two.port(t, "default_far"), "tc", "")
		flowsFrom(t, one.OVS, "genev_sys_6081", "tc", "")
	})
	l.Run("Conntrack", func(t *testing.T) {
		one.track("default_db", "tcp")
		stop := talk(t, web, db)
		defer stop()
		flowsFrom(t, one.OVS, port, "ovs", "")
		one.tells(t, "web", "eth0", offload.InSoftware, offload.NoDevice, offload.NoRecircSharing)
	})
}

// track has connections to a logical port tracked, as a policy does that lets them in:
// ACLs of a port group of the test's own, which the agent leaves alone.
func (a *agent) track(logical, protocol string) {
	group := "tracked_" + strings.ReplaceAll(logical, "-", "_")
	a.Run("ovn-nbctl", "pg-add", group, logical)
	for priority, match := range map[int]string{1001: "&& " + protocol, 1000: "&& ip4"} {
		verdict := map[int]string{1001: "allow-related", 1000: "drop"}[priority]
		a.Run("ovn-nbctl", "acl-add", group, "to-lport", fmt.Sprint(priority), "outport == @"+group+" "+match, verdict)
	}
	a.sync()
	a.Forget()
}
