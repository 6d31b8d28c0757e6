//go:build guest

package suite

import (
	"fmt"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// twoNodes are two OVN nodes on one wire, and OVN's databases on a third host:
// a switch s1 with ports pa and pb, a switch s2 with pc, a router between.
type twoNodes struct {
	wire    rig.Wire
	central rig.Central
	node    [2]rig.OVS
}

// topology is what both tests make of OVN. Gateways are 10.1.1.1 and 10.1.2.1.
const topology = `
ls-add s1
ls-add s2
lr-add r
lrp-add r r-s1 02:aa:00:00:00:01 10.1.1.1/24
lrp-add r r-s2 02:aa:00:00:00:02 10.1.2.1/24
lsp-add s1 s1-r
lsp-set-type s1-r router
lsp-set-addresses s1-r router
lsp-set-options s1-r router-port=r-s1
lsp-add s2 s2-r
lsp-set-type s2-r router
lsp-set-addresses s2-r router
lsp-set-options s2-r router-port=r-s2
lsp-add s1 pa
lsp-set-addresses pa '02:00:00:00:01:11 10.1.1.11'
lsp-add s1 pb
lsp-set-addresses pb '02:00:00:00:01:12 10.1.1.12'
lsp-add s2 pc
lsp-set-addresses pc '02:00:00:00:02:11 10.1.2.11'
`

// newTwoNodes starts all daemons. plug connects a node to the wire, and gives the
// address of its end of tunnels.
func newTwoNodes(l *rig.Lab, plug func(w rig.Wire, h *rig.Host, i int) string) twoNodes {
	n := twoNodes{wire: l.Wire()}
	db := l.Host("central")
	n.wire.Plug(db, "eth0", "172.30.0.254/24")
	n.central = db.StartCentral("172.30.0.254")
	n.central.Nbctl(topology)
	for i := range n.node {
		h := l.Host(fmt.Sprintf("node%d", i+1))
		encap := plug(n.wire, h, i)
		n.node[i] = h.StartOVS(rig.HWOffload()...)
		n.node[i].Controller(n.central, encap)
	}
	return n
}

// plugVeth connects a node by a veth.
func plugVeth(w rig.Wire, h *rig.Host, i int) string {
	addr := fmt.Sprintf("172.30.0.%d", i+1)
	w.Plug(h, "eth0", addr+"/24")
	return addr
}

// TestDebianTwoNodes: OVN on the kernel's datapath. Flows through a router and a
// tunnel are in TC, with the tunnel's key set there.
func TestDebianTwoNodes(t *testing.T) {
	l := rig.New(t)
	n := newTwoNodes(l, plugVeth)
	pa := n.node[0].VethPod("pa", "10.1.1.11/24", "02:00:00:00:01:11")
	pb := n.node[0].VethPod("pb", "10.1.1.12/24", "02:00:00:00:01:12")
	pc := n.node[1].VethPod("pc", "10.1.2.11/24", "02:00:00:00:02:11")
	for _, p := range []*rig.Pod{pa, pb} {
		p.Route("10.1.1.1")
		n.node[0].Bind(p.Name+"-h", p.Name)
	}
	pc.Route("10.1.2.1")
	n.node[1].Bind("pc-h", "pc")
	n.central.Sync()
	l.Run("SameNode", func(t *testing.T) {
		ping(t, pa, "10.1.1.12")
		flowsFrom(t, n.node[0], "pa-h", "tc", "")
	})
	l.Run("Geneve", func(t *testing.T) {
		ping(t, pa, "10.1.2.11")
		flowsFrom(t, n.node[0], "pa-h", "tc", "")
		flowsFrom(t, n.node[1], "genev_sys_6081", "tc", "")
	})
	l.Run("ACL", func(t *testing.T) {
		n.central.Nbctl("acl-add s2 to-lport 1001 'outport == \"pc\" && icmp4' allow-related\nacl-add s2 to-lport 1000 'outport == \"pc\" && ip4' drop")
		n.central.Sync()
		ping(t, pa, "10.1.2.11")
		flowsFrom(t, n.node[1], "genev_sys_6081", "ovs", "")
	})
}

// TestOwnTwoNodes: the first node's pods are on VFs, and its tunnels go through
// the NIC's own port; the second node has a veth.
func TestOwnTwoNodes(t *testing.T) {
	l := rig.New(t)
	var nic *rig.NIC
	n := newTwoNodes(l, func(w rig.Wire, h *rig.Host, i int) string {
		if i > 0 {
			return plugVeth(w, h, i)
		}
		nic = h.NewNIC(1, 2)
		nic.Switchdev()
		nic.Cable(w)
		h.Run("ip", "addr", "add", "172.30.0.1/24", "dev", nic.PF)
		return "172.30.0.1"
	})
	one, two := n.node[0], n.node[1]
	pa := one.NewPod("pa", "10.1.1.11/24", "02:00:00:00:01:11")
	pb := one.NewPod("pb", "10.1.1.12/24", "02:00:00:00:01:12")
	for i, p := range []*rig.Pod{pa, pb} {
		p.Take(nic.VFs[i].Netdev)
		p.Route("10.1.1.1")
		one.Bind(nic.VFs[i].Rep, p.Name)
	}
	pc := two.VethPod("pc", "10.1.2.11/24", "02:00:00:00:02:11")
	pc.Route("10.1.2.1")
	two.Bind("pc-h", "pc")
	n.central.Sync()
	repA, repB := nic.VFs[0].Rep, nic.VFs[1].Rep
	l.Run("SameNode", func(t *testing.T) {
		ping(t, pa, "10.1.1.12")
		flowsFrom(t, one, repA, "tc", "yes")
		flowsFrom(t, one, repB, "tc", "yes")
	})
	l.Run("Geneve", func(t *testing.T) {
		one.Forget()
		ping(t, pa, "10.1.2.11")
		flowsFrom(t, one, repA, "tc", "yes")
		flowsFrom(t, one, "genev_sys_6081", "tc", "yes")
		flowsFrom(t, two, "genev_sys_6081", "tc", "") // in software: this node has no NIC
	})
	l.Run("ACL", func(t *testing.T) {
		n.central.Nbctl("acl-add s1 to-lport 1001 'outport == \"pb\" && tcp' allow-related\nacl-add s1 to-lport 1000 'outport == \"pb\" && ip4' drop")
		n.central.Sync()
		one.Forget()
		stop := talk(t, pa, pb)
		defer stop()
		flowsFrom(t, one, repA, "tc", "yes")
		flowsFrom(t, one, repB, "tc", "yes")
	})
	l.Run("ACLBehindTunnel", func(t *testing.T) {
		one.Forget()
		stop := talk(t, pc, pb)
		defer stop()
		flowsFrom(t, one, "genev_sys_6081", "tc", "")
		flowsFrom(t, one, repB, "tc", "yes") // answers: tracked before they go into the tunnel
	})
}
