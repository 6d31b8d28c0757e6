package rig

import (
	"strings"
	"testing"
)

// dump is of OVS 3.5.0 in a guest with the own kernel, shortened.
const dump = `ufid:1, skb_priority(0/0),skb_mark(0/0),ct_state(0/0),recirc_id(0),in_port(eth3),packet_type(ns=0/0,id=0/0),eth(src=02:00:00:00:00:10,dst=02:00:00:00:00:11),eth_type(0x0800),ipv4(src=0.0.0.0/0.0.0.0,proto=6,frag=no),tcp(src=0/0,dst=0/0), packets:31, bytes:1736, used:0.040s, offloaded:yes, dp:tc, actions:ct(zone=5),recirc(0x1)
ufid:2, recirc_id(0x1),in_port(eth3),ct_state(0x22/0x23),eth_type(0x0800),ipv4(frag=no), packets:30, bytes:1, used:0.040s, dp:ovs, actions:eth4
ufid:3, recirc_id(0),in_port(eth3),eth_type(0x0806),arp(op=1/0xff), packets:0, bytes:0, used:never, offloaded:partial, dp:tc, actions:eth4
warning: something else
`

func TestFlowsAreRead(t *testing.T) {
	flows := parseFlows(dump)
	if len(flows) != 3 {
		t.Fatalf("%d flows: %v", len(flows), flows)
	}
	for i, want := range []Flow{
		{InPort: "eth3", EthType: "0x0800", Chain: "0", Actions: "ct(zone=5),recirc(0x1)", Datapath: "tc", Offloaded: "yes", Packets: 31},
		{InPort: "eth3", EthType: "0x0800", Chain: "1", Actions: "eth4", Datapath: "ovs", Packets: 30},
		{InPort: "eth3", EthType: "0x0806", Chain: "0", Actions: "eth4", Datapath: "tc", Offloaded: "partial"},
	} {
		got := flows[i]
		got.Text = ""
		if got != want {
			t.Errorf("flow %d:\ngot  %+v\nwant %+v", i, got, want)
		}
	}
	if ip := IPFrom(flows, "eth3"); len(ip) != 2 {
		t.Errorf("IPv4 flows from eth3: %v", ip)
	}
}

func TestIsNeedsAllFlowsAndAtLeastOne(t *testing.T) {
	flows := parseFlows(dump)
	if err := Is(flows[:1], "tc", "yes"); err != nil {
		t.Error(err)
	}
	if err := Is(flows, "tc", "yes"); err == nil || !strings.Contains(err.Error(), "ufid:2") {
		t.Errorf("one flow in OVS's datapath: %v", err)
	}
	if Is(nil, "tc", "yes") == nil {
		t.Error("no flow is enough")
	}
}

func TestQuotedWordsStayWhole(t *testing.T) {
	got := quoted(` acl-add s2 to-lport 1001 'outport == "pc" && ip4' drop`)
	if len(got) != 6 || got[4] != `outport == "pc" && ip4` || got[5] != "drop" {
		t.Errorf("%q", got)
	}
}
