//go:build guest

package suite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/offload/rig"
)

// TestOwnSwitchdev: the modes of an e-switch, and what there is in each.
func TestOwnSwitchdev(t *testing.T) {
	h := rig.New(t).Host("node")
	n := h.NewNIC(1, 2)
	if mode := n.Mode(); mode != "legacy" {
		t.Errorf("at first the mode is %q", mode)
	}
	if reps := n.Representors(); len(reps) != 0 {
		t.Errorf("in mode legacy there are representors %v", reps)
	}
	n.Switchdev()
	if mode := n.Mode(); mode != "switchdev" {
		t.Errorf("switched, the mode is %q", mode)
	}
	ports := h.Run("devlink", "port", "show")
	for i, vf := range n.VFs {
		want := fmt.Sprintf("netdev %s flavour pcivf controller 0 pfnum 0 vfnum %d", vf.Rep, i)
		if vf.Rep == "" || !strings.Contains(ports, want) {
			t.Errorf("devlink has no port %q:\n%s", want, ports)
		}
	}
	n.SetMode("legacy")
	if reps := n.Representors(); len(reps) != 0 {
		t.Errorf("back in mode legacy there are representors %v", reps)
	}
	n.Switchdev()
	if reps := n.Representors(); len(reps) != 2 {
		t.Errorf("the second time there are representors %v", reps)
	}
}

// TestOwnOffload: flows between VFs of one NIC are in a driver, also those with
// connection tracking; what leaves the NIC is not.
func TestOwnOffload(t *testing.T) {
	l := rig.New(t)
	h := l.Host("node")
	n := h.NewNIC(1, 2)
	n.Switchdev()
	o := h.StartOVS(rig.HWOffload()...)
	var pods []*rig.Pod
	for i, vf := range n.VFs {
		p := podOn(h, fmt.Sprintf("p%d", i), i)
		p.Take(vf.Netdev)
		o.Port("br-int", vf.Rep)
		pods = append(pods, p)
	}
	h.VethPod("veth", "10.1.0.20/24", "02:00:00:00:00:20")
	o.Port("br-int", "veth-h")
	l.Run("Plain", func(t *testing.T) {
		ping(t, pods[0], "10.1.0.11")
		flowsFrom(t, o, n.VFs[0].Rep, "tc", "yes")
		flowsFrom(t, o, n.VFs[1].Rep, "tc", "yes")
		if filters := h.Run("tc", "-s", "filter", "show", "dev", n.VFs[0].Rep, "ingress"); !strings.Contains(filters, "in_hw_count 1") {
			t.Errorf("filters of the representor:\n%s", filters)
		}
	})
	l.Run("VethIsNot", func(t *testing.T) {
		o.Forget()
		ping(t, pods[0], "10.1.0.20")
		flowsFrom(t, o, n.VFs[0].Rep, "tc", "")
		flowsFrom(t, o, "veth-h", "tc", "")
	})
	l.Run("Conntrack", func(t *testing.T) {
		h.Write("run/flows", conntrackFlows)
		h.Run("ovs-ofctl", "--bundle", "replace-flows", "br-int", "/run/flows")
		o.Forget()
		stop := talk(t, pods[0], pods[1])
		defer stop()
		rig.Wait(t, "all flows of a tracked connection in a driver", func() error {
			flows := rig.IPFrom(o.Flows(), n.VFs[0].Rep)
			if err := rig.Is(flows, "tc", "yes"); err != nil {
				return err
			}
			chains := map[string]bool{}
			for _, f := range flows {
				chains[f.Chain] = true
			}
			if !chains["0"] || len(chains) < 2 {
				return fmt.Errorf("chains %v: want the one before and one after ct()", chains)
			}
			return nil
		})
		inDriver(t, h)
	})
}

// inDriver waits until a connection is in a driver.
func inDriver(t *testing.T, h *rig.Host) {
	t.Helper()
	rig.Wait(t, "the connection in a driver", func() error {
		table := h.Run("conntrack", "-L", "-p", "tcp")
		if !strings.Contains(table, "[HW_OFFLOAD]") {
			return fmt.Errorf("conntrack -L: %s", table)
		}
		return nil
	})
}

// podOn makes a pod 10.1.0.1i.
func podOn(h *rig.Host, name string, i int) *rig.Pod {
	return h.NewPod(name, fmt.Sprintf("10.1.0.1%d/24", i), fmt.Sprintf("02:00:00:00:00:1%d", i))
}

// TestOwnBorders: a rule is the driver's only if all that it touches is of one
// e-switch.
func TestOwnBorders(t *testing.T) {
	l := rig.New(t)
	h := l.Host("node")
	a, b := h.NewNIC(1, 1), h.NewNIC(2, 1)
	o := h.StartOVS(rig.HWOffload()...)
	for i, n := range []*rig.NIC{a, b} {
		n.Switchdev()
		podOn(h, fmt.Sprintf("p%d", i), i).Take(n.VFs[0].Netdev)
		o.Port("br-int", n.VFs[0].Rep)
	}
	l.Run("TwoSwitches", func(t *testing.T) {
		p := &rig.Pod{Host: h, Name: "p0"}
		ping(t, p, "10.1.0.11")
		flowsFrom(t, o, a.VFs[0].Rep, "tc", "")
		flowsFrom(t, o, b.VFs[0].Rep, "tc", "")
	})
	l.Run("Reasons", func(t *testing.T) {
		rep, other := a.VFs[0].Rep, b.VFs[0].Rep
		h.Sh("ip link add gnv type geneve external\nip link set gnv up\nip link add dum type dummy")
		const key = "tunnel_key set id 7 src_ip 172.30.0.1 dst_ip 172.30.0.9 dst_port 6081 "
		for _, r := range []rule{
			{rep, "", "drop", ""},
			{rep, "", "mirred egress redirect dev " + a.PF, ""},
			{rep, "", "mirred egress redirect dev " + other, "egress device is not on this e-switch"},
			{rep, "", "mirred egress redirect dev dum", "egress device is not a port of an e-switch"},
			{rep, "", "mirred egress redirect dev gnv", "the rule sets no tunnel key"},
			{rep, "", key + "action mirred egress redirect dev gnv", ""},
			{rep, "", "ct zone 5 pipe action goto chain 1", ""},
			{rep, "", "mirred ingress redirect dev " + rep, "action is not one of this e-switch's"},
			{"gnv", "enc_key_id 7", "tunnel_key unset action mirred egress redirect dev " + rep, ""},
			{"gnv", "enc_key_id 7", "ct zone 5 pipe action goto chain 1", "packets of a tunnel are not tracked"},
			{"gnv", "enc_key_id 7", "goto chain 1", "in chain 0 only"},
			{"gnv", "enc_key_id 7", "drop", "names no port of an e-switch"},
			{"gnv", "enc_key_id 7", key + "action mirred egress redirect dev gnv", "from a tunnel into a tunnel"},
		} {
			r.offered(t, h)
		}
	})
	l.Run("Legacy", func(t *testing.T) {
		b.SetMode("legacy")
		rule{b.PF, "", "drop", "not a port of an e-switch in mode switchdev"}.offered(t, h)
	})
	l.Run("OffloadOff", func(t *testing.T) {
		h.Run("ethtool", "-K", a.VFs[0].Rep, "hw-tc-offload", "off")
		rule{a.VFs[0].Rep, "", "drop", "TC offload is disabled on net device"}.offered(t, h)
	})
	l.Run("OtherHost", func(t *testing.T) {
		far := l.Host("far")
		far.Sh("ip link add gnv type geneve external\nip link set gnv up\nip link add dum type dummy")
		rule{"gnv", "enc_key_id 7", "tunnel_key unset action mirred egress redirect dev dum", "egress device is not a port of an e-switch"}.offered(t, far)
	})
}

// rule is a flower rule for UDP on a device, and what a driver says to it.
type rule struct {
	device, match, action string
	refusal               string // part of the reason; empty: it takes the rule
}

// offered adds the rule and looks whether a driver took it. A refusal's reason is
// what tc prints as a warning: the rule is there, in software. (skip_sw would be
// shorter, but the kernel never takes it for tunnels.)
func (r rule) offered(t *testing.T, h *rig.Host) {
	t.Helper()
	h.Sh("tc qdisc show dev " + r.device + " ingress | grep -q . || tc qdisc add dev " + r.device + " clsact")
	said := h.Sh("tc filter add dev " + r.device + " ingress protocol ip pref 99 flower verbose ip_proto udp " + r.match + " action " + r.action)
	shown := h.Run("tc", "filter", "show", "dev", r.device, "ingress", "protocol", "ip", "pref", "99")
	h.Run("tc", "filter", "del", "dev", r.device, "ingress", "protocol", "ip", "pref", "99")
	taken := !strings.Contains(shown, "not_in_hw") && strings.Contains(shown, "in_hw")
	if taken != (r.refusal == "") || r.refusal != "" && !strings.Contains(said, r.refusal) {
		t.Errorf("%s: %s: taken: %v, tc said %q; want refusal %q", r.device, r.action, taken, said, r.refusal)
	}
}
