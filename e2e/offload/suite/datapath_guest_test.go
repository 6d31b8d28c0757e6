//go:build guest

package suite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// ping waits for an answer, and then goes on sending until the test or subtest
// ends: a flow that no packet uses is gone after ten seconds.
func ping(t *testing.T, p *rig.Pod, to string) {
	t.Helper()
	rig.Wait(t, "an answer from "+to, func() error { _, err := p.Try("ping", "-c1", "-W3", to); return err })
	p.Start("ping-"+p.Name, "ping", "-i0.2", to)
}

// conntrackFlows are what an ACL makes of a switch: each packet is tracked, and
// passes if it begins a connection or belongs to one.
const conntrackFlows = `table=0,priority=100,arp,actions=NORMAL
table=0,priority=50,ip,ct_state=-trk,actions=ct(table=1,zone=5)
table=1,priority=50,ip,ct_state=+trk+new,actions=ct(commit,zone=5),NORMAL
table=1,priority=50,ip,ct_state=+trk+est,actions=NORMAL
`

// flowsFrom waits until there are IPv4 flows from a port, all of which are as wanted.
func flowsFrom(t *testing.T, o rig.OVS, port, datapath, offloaded string) {
	t.Helper()
	rig.Wait(t, fmt.Sprintf("flows from %s in dp:%s, offloaded:%q", port, datapath, offloaded), func() error {
		return rig.Is(rig.IPFrom(o.Flows(), port), datapath, offloaded)
	})
}

// TestDebianFlower: on veths, flows go into TC and no driver takes them; flows
// with connection tracking stay in OVS's datapath, for Debian's kernel has no
// NET_TC_SKB_EXT.
func TestDebianFlower(t *testing.T) {
	l := rig.New(t)
	h := l.Host("node")
	o := h.StartOVS(rig.HWOffload()...)
	a := h.VethPod("a", "10.1.0.11/24", "02:00:00:00:00:11")
	h.VethPod("b", "10.1.0.12/24", "02:00:00:00:00:12")
	o.Port("br-int", "a-h", "b-h")
	l.Run("Plain", func(t *testing.T) {
		ping(t, a, "10.1.0.12")
		flowsFrom(t, o, "a-h", "tc", "")
		flowsFrom(t, o, "b-h", "tc", "")
		if filters := h.Run("tc", "-s", "filter", "show", "dev", "a-h", "ingress"); !strings.Contains(filters, "not_in_hw") || strings.Contains(filters, "in_hw_count") {
			t.Errorf("filters of a-h:\n%s", filters)
		}
	})
	l.Run("Conntrack", func(t *testing.T) {
		h.Write("run/flows", conntrackFlows)
		h.Run("ovs-ofctl", "--bundle", "replace-flows", "br-int", "/run/flows")
		ping(t, a, "10.1.0.12")
		flowsFrom(t, o, "a-h", "ovs", "")
		flowsFrom(t, o, "b-h", "ovs", "")
	})
}

// TestDebianFlowerOff is what holds without hw-offload: nothing is in TC.
func TestDebianFlowerOff(t *testing.T) {
	l := rig.New(t)
	h := l.Host("node")
	o := h.StartOVS()
	a := h.VethPod("a", "10.1.0.11/24", "02:00:00:00:00:11")
	h.VethPod("b", "10.1.0.12/24", "02:00:00:00:00:12")
	o.Port("br-int", "a-h", "b-h")
	ping(t, a, "10.1.0.12")
	flowsFrom(t, o, "a-h", "ovs", "")
}
