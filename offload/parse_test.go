package offload

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestFlowsOfADump(t *testing.T) {
	text := "flow-dump from pmd on cpu core: 7\n" +
		"ufid:840603cf-5145-4458-83ec-4474cc867263, recirc_id(0x1),in_port(v0),eth_type(0x0800),ipv4(frag=no), packets:2, bytes:196, used:0.011s, flags:SFP., offloaded:yes, dp:tc, actions:v1, dp-extra-info:miniflow_bits(5,1)\n" +
		"\n" +
		"flow-dump from the main thread:\n" +
		"recirc_id(0),in_port(2),eth_type(0x86dd),ipv6(frag=no), packets:0, bytes:0, used:never, actions:drop\n"
	var got []Flow
	for f, err := range Flows(strings.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, *f)
	}
	if len(got) != 2 {
		t.Fatalf("got %d flows", len(got))
	}
	f := got[0]
	if f.ID.String() != "840603cf-5145-4458-83ec-4474cc867263" || f.ID.Core != 7 || f.Recirc != 1 || f.InPort != "v0" ||
		f.Packets != 2 || f.Bytes != 196 || f.Used != 11*time.Millisecond || f.Degree != Whole || f.Layer != "tc" || f.Actions != "v1" ||
		f.Match != "recirc_id(0x1),in_port(v0),eth_type(0x0800),ipv4(frag=no)" {
		t.Errorf("got %+v", f)
	}
	f = got[1]
	if f.ID.Core != -1 || f.InPort != "2" || f.Used != Never || f.Layer != "" || f.Actions != "drop" {
		t.Errorf("got %+v", f)
	}
}

func TestLinesThatCannotBeRead(t *testing.T) {
	good := "recirc_id(0),in_port(2), packets:1, bytes:2, used:never, actions:drop"
	for _, bad := range []string{
		"ufid:840603cf-5145-4458-83ec-4474cc86726, recirc_id(0),in_port(2), packets:1, bytes:2, used:never, actions:drop",
		"ufid:840603cf-5145-4458-83ec-4474cc86726x, recirc_id(0),in_port(2), packets:1, bytes:2, used:never, actions:drop",
		"recirc_id(z),in_port(2), packets:1, bytes:2, used:never, actions:drop",
		"recirc_id(0),in_port(2), packets:x, bytes:2, used:never, actions:drop",
		"recirc_id(0),in_port(2), packets:1, bytes:-2, used:never, actions:drop",
		"recirc_id(0),in_port(2), packets:1, bytes:2, used:soon, actions:drop",
		"recirc_id(0),in_port(2), packets:1, bytes:2, used:never, offloaded:perhaps, actions:drop",
		"recirc_id(0),in_port(2), packets:1, bytes:2, used:never",
		"recirc_id(0),in_port(2)",
	} {
		var errs, flows int
		for _, err := range Flows(strings.NewReader(bad + "\n" + good + "\n")) {
			if err != nil {
				errs++
				if !strings.Contains(err.Error(), "flow with") {
					t.Errorf("%s: %v", bad, err)
				}
				continue
			}
			flows++
		}
		if errs != 1 || flows != 1 {
			t.Errorf("%s: %d errors and %d flows, wanted one of each: reading goes on", bad, errs, flows)
		}
	}
}

func TestADumpThatBreaksOff(t *testing.T) {
	r := io.MultiReader(strings.NewReader("recirc_id(0),in_port(2), packets:1, bytes:2, used:never, actions:drop\n"), &broken{})
	var last error
	n := 0
	for f, err := range Flows(r) {
		if f != nil {
			n++
		}
		last = err
	}
	if n != 1 || !errors.Is(last, io.ErrUnexpectedEOF) {
		t.Errorf("got %d flows and %v", n, last)
	}
}

type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestActions(t *testing.T) {
	for _, test := range []struct {
		text, outputs, names, tunnel string
		recircs                      []uint32
		slow                         string
	}{
		{text: "drop", names: "drop"},
		{text: "v1,3,br-ex", outputs: "v1 3 br-ex", names: "output output output"},
		{text: "ct(commit,zone=5,mark=0x1/0xffffffff,nat(src=10.0.0.1)),recirc(0x1f)", names: "ct recirc", recircs: []uint32{31}},
		{text: "set(tunnel(tun_id=0x1,dst=172.18.0.3,ttl=64,geneve({class=0x102,type=0x80,len=4,0x20003}),flags(df|csum|key))),genev_sys_6081",
			outputs: "genev_sys_6081", names: "set output", tunnel: "172.18.0.3"},
		{text: "set(tunnel(tun_id=0x1,ipv6_dst=fd00::3,ttl=64)),genev_sys_6081", outputs: "genev_sys_6081", names: "set output", tunnel: "fd00::3"},
		{text: "set(eth(src=0a:58:64:58:00:02,dst=0a:58:64:58:00:03)),set(ipv4(ttl=63)),2", outputs: "2", names: "set eth set set ipv4 set output"},
		{text: "check_pkt_len(size=1414,gt(sample(sample=100.0%,actions(meter(1),userspace(pid=1,controller(reason=1))))),le(v1,v2))", outputs: "v1 v2", names: "check_pkt_len"},
		{text: "userspace(pid=4294967295,slow_path(action))", names: "userspace", slow: "slow path action"},
		{text: "tnl_push(tnl_port(genev_sys_6081),header(size=58,type=5,eth(dst=02:00:ac:12:00:03,src=02:00:ac:12:00:02,dl_type=0x0800),ipv4(src=172.18.0.2,dst=172.18.0.3,proto=17,tos=0,ttl=64,frag=0x4000),udp(src=0,dst=6081,csum=0xffff),geneve(crit,vni=0xff0003,options({class=0x102,type=0x80,len=4,0x20003}))),out_port(br-ex)),nic0",
			outputs: "genev_sys_6081 nic0", names: "tnl_push output", tunnel: "172.18.0.3"},
		{text: "tnl_pop(genev_sys_6081)", outputs: "genev_sys_6081", names: "tnl_pop"},
		{text: "clone(ct(commit),7),recirc(2)", outputs: "7", names: "ct output clone recirc", recircs: []uint32{2}},
	} {
		a := readActions(test.text)
		tunnel := ""
		if a.tunnel.IsValid() {
			tunnel = a.tunnel.String()
		}
		if got := strings.Join(a.outputs, " "); got != test.outputs {
			t.Errorf("%s: outputs %q, wanted %q", test.text, got, test.outputs)
		}
		if got := strings.Join(a.names, " "); got != test.names {
			t.Errorf("%s: names %q, wanted %q", test.text, got, test.names)
		}
		if tunnel != test.tunnel || fmt.Sprint(a.recircs) != fmt.Sprint(test.recircs) || a.slow != test.slow {
			t.Errorf("%s: got tunnel %q, stages %v, slow %q", test.text, tunnel, a.recircs, a.slow)
		}
	}
}

// FuzzFlows holds that no text makes the reader, or the judge, panic or hang, and that
// what is read is what was written.
func FuzzFlows(f *testing.F) {
	for _, name := range []string{"hardware", "mixed", "userspace", "partial"} {
		f.Add(dump(&testing.T{}, name))
	}
	f.Add("recirc_id(0),in_port(((, packets:1, bytes:1, used:1s, actions:clone(clone(clone(")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for flow, err := range Flows(strings.NewReader(text)) {
			if flow == nil || err != nil {
				continue
			}
			if !strings.Contains(text, flow.InPort) || !strings.Contains(text, flow.Actions) || flow.Used < Never {
				t.Errorf("%q: got %+v", text, flow)
			}
			n++
		}
		w := newWorld(text)
		r := w.observe(t, w.observer(), "pf0vf0", "v0")
		if r.Reading.Flows > n {
			t.Errorf("%q: %d flows of %d", text, r.Reading.Flows, n)
		}
		for _, i := range r.Interfaces {
			if sum, hw := i.From.Sum(), i.From.Hardware.Flows; sum.Flows > hw && len(i.Reasons) == 0 {
				t.Errorf("%q: %+v has no reason", text, i)
			}
		}
	})
}

// many is a dump of n flows as OVN makes them: stages with connection tracking, and
// tunnels.
func many(n int) []byte {
	var out bytes.Buffer
	for i := range n {
		layer, actions := "offloaded:yes, dp:tc", fmt.Sprintf("ct(zone=%d),recirc(0x%x)", i%500, i/3+1)
		recirc := 0
		if i%3 > 0 {
			recirc, actions = i/3+1, fmt.Sprintf("set(eth(src=0a:58:64:58:00:02,dst=0a:58:64:58:00:03)),set(ipv4(ttl=63)),veth%d", i%250)
		}
		if i%10 == 0 {
			layer = "dp:ovs"
		}
		fmt.Fprintf(&out, "ufid:840603cf-5145-4458-83ec-%012x, recirc_id(0x%x),dp_hash(0/0),skb_priority(0/0),in_port(veth%d),skb_mark(0/0),ct_state(0x22/0x23),ct_zone(0x5/0),ct_mark(0x1/0),ct_label(0/0),"+
			"ct_tuple4(src=10.9.0.1/0.0.0.0,dst=10.9.0.2/0.0.0.0,proto=1/0,tp_src=8/0,tp_dst=0/0),packet_type(ns=0,id=0),eth(src=da:e3:1c:42:f0:8d,dst=fe:1c:4e:95:10:8a),eth_type(0x0800),"+
			"ipv4(src=10.9.%d.%d/0.0.0.0,dst=10.9.0.2/0.0.0.0,proto=6/0,tos=0/0,ttl=64/0,frag=no),tcp(src=40000/0,dst=80/0),tcp_flags(0/0), packets:%d, bytes:%d, used:0.011s, flags:P., %s, actions:%s\n",
			i, recirc, i/3%250, i>>8&255, i&255, i, i*100, layer, actions)
	}
	return out.Bytes()
}

// BenchmarkFlows reads a dump of 100,000 flows; an op is the whole of it.
func BenchmarkFlows(b *testing.B) {
	text := many(100_000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range Flows(bytes.NewReader(text)) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != 100_000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkObserve reads, attributes and judges 100,000 flows of 250 interfaces.
func BenchmarkObserve(b *testing.B) {
	w := newWorld(string(many(100_000)))
	var ports []Attached
	for i := range 250 {
		name := fmt.Sprintf("veth%d", i)
		d := w.Probe.devices["pf0vf0"]
		w.Probe.devices[name] = d
		ports = append(ports, Attached{Port: name, Pod: "demo/" + name})
	}
	o := w.observer()
	b.ReportAllocs()
	for b.Loop() {
		r, err := o.Observe(b.Context(), ports)
		if err != nil || r.Reading.Flows != 100_000 {
			b.Fatal(r, err)
		}
	}
}
