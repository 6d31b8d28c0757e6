package offload

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// line is a flow in by pf0vf0 with more keys and some actions, as the kernel's datapath
// has it, or TC where layer says so.
func line(n int, keys, actions, layer string) string {
	return fmt.Sprintf("ufid:44444444-0000-4000-8000-%012d, recirc_id(0),dp_hash(0/0),skb_priority(0/0),in_port(pf0vf0),skb_mark(0/0)%s, packets:10, bytes:1000, used:0.1s, %s, actions:%s\n",
		n, keys, layer, actions)
}

// The parts that many cases share.
const (
	tcp    = ",eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,tos=0/0,ttl=0/0,frag=no)"
	tunnel = "set(tunnel(tun_id=0x1,dst=172.18.0.3,ttl=64,flags(df|csum|key))),genev_sys_6081"
)

// reasonCase is a flow in a world, and the reason that is told first.
type reasonCase struct {
	code          Code
	detail        string
	keys, actions string
	layer         string // "": dp:ovs
	world         func(w)
}

type w = *world

func nothing(w) {}

func device(name string, change func(*Device)) func(w) {
	return func(w w) {
		d := w.Probe.devices[name]
		change(&d)
		w.Probe.devices[name] = d
	}
}

// portCases are of the node and of the port that packets come in by.
func portCases() []reasonCase {
	return []reasonCase{
		{UserspaceDatapath, "", tcp, "pf0vf1", "", func(w w) { w.kind = NetdevDatapath }},
		{NoFlower, "", tcp, "pf0vf1", "", func(w w) { w.Probe.kernel.Flower = No }},
		{HWOffloadOff, "", tcp, "pf0vf1", "", func(w w) { w.Config.HWOffload = false }},
		{RestartNeeded, "", tcp, "pf0vf1", "", func(w w) { w.Switch.state.Active = false }},
		{TCPolicy, "", tcp, "pf0vf1", "dp:tc", func(w w) { w.Config.TCPolicy = "skip_hw" }},
		{NoDevice, "veth", tcp, "pf0vf1", "", device("pf0vf0", func(d *Device) { *d = Device{Kind: Veth, Driver: "veth"} })},
		{DeviceGone, "", tcp, "pf0vf1", "", func(w w) { delete(w.Probe.devices, "pf0vf0") }},
		{InternalPort, "", tcp, "pf0vf1", "", func(w w) { w.Config.Ports["pf0vf0"] = Port{Type: "internal"} }},
		{NoESwitch, "igb", tcp, "pf0vf1", "", device("pf0vf0", func(d *Device) { *d = Device{Kind: Physical, Driver: "igb"} })},
		{NoESwitch, "a virtual function is the port", tcp, "pf0vf1", "", device("pf0vf0", func(d *Device) { *d = Device{Kind: Function} })},
		{LegacyMode, "pci/0000:03:00.0", tcp, "pf0vf1", "", device("pf0vf0", func(d *Device) { d.Kind, d.ESwitch = Physical, "legacy" })},
		{FeatureOff, "pf0vf0", tcp, "pf0vf1", "dp:tc", device("pf0vf0", func(d *Device) { d.TCOffload = featureOff })},
		{UplinkFeatureOff, "enp3s0f0", tcp, tunnel, "dp:tc", device("enp3s0f0", func(d *Device) { d.TCOffload = featureNever })},
		{PortPriority, "", tcp, "pf0vf1", "", func(w w) { w.Config.Ports["pf0vf0"] = Port{Priority: "none"} }},
	}
}

// egressCases are of the port that packets leave by.
func egressCases() []reasonCase {
	return []reasonCase{
		{EgressVeth, "veth5", tcp, "veth5", "dp:tc", nothing},
		{EgressInternal, "ovn-k8s-mp0", tcp, "ovn-k8s-mp0", "dp:tc", nothing},
		{EgressOtherSwitch, "other0", tcp, "other0", "dp:tc", nothing},
		{EgressNoDevice, "nowhere", tcp, "nowhere", "", nothing},
		{TunnelUnderlay, "other0", tcp, tunnel, "dp:tc", func(w w) { w.Probe.under = "other0" }},
		{TunnelUnderlay, "v0 is veth", tcp, tunnel, "dp:tc", func(w w) { w.Probe.under = "v0" }},
		{TunnelUnderlay, "no route to the other end", tcp, tunnel, "dp:tc", func(w w) { w.Probe.under = "" }},
		{EncapOff, "pci/0000:03:00.0", tcp, tunnel, "dp:tc", device("enp3s0f0", func(d *Device) { d.Encap = "none" })},
	}
}

// matchCases are of what a flow matches on.
func matchCases() []reasonCase {
	return []reasonCase{
		{MatchUnsupported, "skb_mark", ",skb_mark(0x1/0x1)" + tcp, "pf0vf1", "", nothing},
		{MatchUnsupported, "skb_priority", ",skb_priority(0x7)" + tcp, "pf0vf1", "", nothing},
		{MatchUnsupported, "ct_tuple4", ",ct_tuple4(src=10.0.0.1,dst=10.0.0.2/0.0.0.0,proto=6/0,tp_src=0/0,tp_dst=0/0)" + tcp, "pf0vf1", "", nothing},
		{MatchUnsupported, "ct_state of translated packets", ",ct_state(0x62/0x62)" + tcp, "pf0vf1", "", nothing},
		{MatchUnsupported, "part of a VLAN tag", ",eth_type(0x8100),vlan(vid=5/0xff,pcp=0/0x0)", "pf0vf1", "", nothing},
		{MatchUnsupported, "several MPLS labels", ",eth_type(0x8847),mpls(label=1,tc=0,ttl=64,bos=0,label=2,tc=0,ttl=64,bos=1)", "pf0vf1", "", nothing},
		{MatchUnsupported, "nd", ",eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=fd00::1,sll=00:00:00:00:00:00/00:00:00:00:00:00)", "pf0vf1", "", nothing},
		{MatchUnsupported, "packets without an Ethernet header", ",packet_type(ns=1,id=0x800)", "pf0vf1", "", nothing},
		{DPHash, "", ",dp_hash(0x3/0xf)" + tcp, "pf0vf1", "", nothing},
		{CTInvalid, "", ",ct_state(0x30/0x30)" + tcp, "pf0vf1", "dp:tc", nothing},
		{CTInvalid, "", ",ct_state(+inv+trk)" + tcp, "pf0vf1", "dp:tc", nothing},
		{Fragment, "IPv6", ",eth_type(0x86dd),ipv6(proto=17,frag=later)", "pf0vf1", "", nothing},
		{Fragment, "a rewrite", ",eth_type(0x0800),ipv4(proto=17,frag=first)", "set(ipv4(ttl=63)),pf0vf1", "", nothing},
	}
}

// actionCases are of what a flow does, and of connections.
func actionCases() []reasonCase {
	return []reasonCase{
		{Sampling, "", tcp, "sample(sample=10.0%,actions(userspace(pid=5,sFlow(vid=0,pcp=0,output=1)))),pf0vf1", "", nothing},
		{Sampling, "flow_sample", tcp, "userspace(pid=5,flow_sample(probability=65535,collector_set_id=1,obs_domain_id=1,obs_point_id=1,output_port=1)),pf0vf1", "", nothing},
		{Controller, "controller", tcp, "userspace(pid=5,controller(reason=1,dont_send=0,continuation=0,recirc_id=2,rule_cookie=0,controller_id=0,max_len=65535)),pf0vf1", "", nothing},
		{SlowPath, "action", tcp, "userspace(pid=5,slow_path(action))", "", nothing},
		{HashAction, "", tcp, "hash(l4(0)),recirc(0x5)", "", nothing},
		{CheckPktLen, "", tcp, "check_pkt_len(size=1414,gt(drop),le(pf0vf1))", "dp:tc", nothing},
		{CTHelper, "ftp", tcp, "ct(commit,zone=5,helper=ftp),pf0vf1", "", nothing},
		{ActionUnsupported, "clone", tcp, "clone(ct(commit),pf0vf1),pf0vf1", "", nothing},
		{ActionUnsupported, "set skb_mark", tcp, "set(skb_mark(0x1)),pf0vf1", "", nothing},
		{TooManyActions, "33", tcp, strings.Repeat("pf0vf1,", 32) + "pf0vf1", "", nothing},
		{NoRecircSharing, "6.12.0", tcp, "ct(zone=5),recirc(0x5)", "", func(w w) { w.Probe.kernel.RecircSharing = No }},
		{NoCTAction, "6.12.0", tcp, "ct(zone=5),recirc(0x5)", "", func(w w) { w.Probe.kernel.ConntrackAction = No }},
		{ICMPConntrack, "", ",ct_state(0x22/0x22),eth_type(0x0800),ipv4(proto=1,frag=no)", "pf0vf1", "dp:tc", nothing},
		{CTProtocol, "", ",ct_state(0x22/0x22),eth_type(0x0800),ipv4(proto=132,frag=no)", "pf0vf1", "dp:tc", nothing},
		{ConnectionNew, "", ",ct_state(0x21/0x23)" + tcp, "ct(commit,zone=5),pf0vf1", "dp:tc", nothing},
		{TCRefused, "", tcp, "pf0vf1", "", nothing},
		{DriverRefused, "", tcp, "pf0vf1", "dp:tc", nothing},
		{PartialOnly, "", tcp, "pf0vf1", "offloaded:partial, dp:ovs", func(w w) { w.kind, w.Config.DPDK = NetdevDatapath, true }},
	}
}

// TestEveryReason shows each code with what brings it about.
func TestEveryReason(t *testing.T) {
	shown := map[Code]bool{}
	for n, test := range slices.Concat(portCases(), egressCases(), matchCases(), actionCases()) {
		layer := test.layer
		if layer == "" {
			layer = "dp:ovs"
		}
		world := newWorld(line(n, test.keys, test.actions, layer))
		test.world(world)
		r := world.observe(t, world.observer(), "pf0vf0")
		var got []string
		for _, c := range r.Interfaces[0].Reasons {
			got = append(got, string(c.Code)+" "+c.Detail)
		}
		if len(got) == 0 || got[0] != string(test.code)+" "+test.detail {
			t.Errorf("%s%s → %s: got %q, wanted %s %s first", test.keys, layer, test.actions, got, test.code, test.detail)
		}
		shown[test.code] = true
	}
	world := newWorld(strings.ReplaceAll(line(1, tcp, "pf0vf1", "dp:ovs"), "recirc_id(0)", "recirc_id(0x10000000)"))
	shown[ChainNumber] = told(world.observe(t, world.observer(), "pf0vf0"), ChainNumber)
	// These two take more than one flow, or reading.
	earlier := line(1, tcp, "ct(zone=5),hash(l4(0)),recirc(0x5)", "dp:ovs") + strings.ReplaceAll(line(2, tcp, "pf0vf1", "dp:ovs"), "recirc_id(0)", "recirc_id(0x5)")
	world = newWorld(earlier)
	shown[EarlierStage] = told(world.observe(t, world.observer(), "pf0vf0"), EarlierStage)
	world = newWorld("", line(1, tcp, "pf0vf1", "dp:ovs"))
	o := world.observer()
	world.observe(t, o, "pf0vf0")
	shown[TooYoung] = told(world.observe(t, o, "pf0vf0"), TooYoung)
	for _, e := range Reasons() {
		if !shown[e.Code] {
			t.Errorf("reason %s is not shown by any flow", e.Code)
		}
		if Explain(e.Code) != e || e.Meaning == "" || e.Cure == "" {
			t.Errorf("reason %s: %+v", e.Code, e)
		}
	}
}

func told(r *Report, c Code) bool {
	for _, reason := range r.Interfaces[0].Reasons {
		if reason.Code == c {
			return true
		}
	}
	return false
}

// TestPage compares the table of docs/features/offload.md with the code.
func TestPage(t *testing.T) {
	const page = "../docs/features/offload.md"
	var table strings.Builder
	table.WriteString("| code | what it means | what helps |\n|---|---|---|\n")
	for _, e := range Reasons() {
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", e.Code, e.Meaning, e.Cure)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- reasons: written by go test ./offload -run TestPage -update -->\n", "<!-- end of reasons -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	have, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the reasons", page)
	}
	if *update {
		if err := os.WriteFile(page, []byte(head+begin+table.String()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != table.String() {
		t.Errorf("%s is not what the code has: go test ./offload -run TestPage -update writes it", page)
	}
}
