package main

import (
	"net/netip"
	"testing"

	"github.com/portolan-cni/portolan/pkg/trace"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestTracedPacket(t *testing.T) {
	east := end{name: "Pod/d/east", node: "a", port: "d_east", mac: "0a:58:0a:f4:01:03", gateway: "0a:58:0a:f4:01:01", addresses: addrs("10.244.1.3", "fd00::3")}
	near, far := east, east
	near.name, near.port, near.mac, near.addresses = "Pod/d/near", "d_near", "0a:58:0a:f4:01:04", addrs("10.244.1.4")
	far.name, far.node, far.port, far.addresses = "Pod/d/far", "b", "d_far", addrs("10.244.2.3", "fd00:2::3")
	node := end{name: "Node/a", node: "a", port: "k8s-a", mac: "0a:58:0a:f4:01:02", gateway: "0a:58:0a:f4:01:01", addresses: addrs("172.18.0.4", "10.244.1.2")}
	flags := tracing{sourcePort: 40000}
	for _, c := range []struct {
		name     string
		flags    tracing
		from, to end
		want     string // source, Ethernet destination, packet
	}{
		{"one switch", flags, east, near, "0a:58:0a:f4:01:04 tcp 10.244.1.3:40000 → 10.244.1.4:80"},
		{"another node", flags, east, far, "0a:58:0a:f4:01:01 tcp 10.244.1.3:40000 → 10.244.2.3:80"},
		{"IPv6", tracing{six: true, sourcePort: 1}, east, far, "0a:58:0a:f4:01:01 tcp [fd00::3]:1 → [fd00:2::3]:80"},
		{"its own node", tracing{udp: true, sourcePort: 67}, east, node, "0a:58:0a:f4:01:01 udp 10.244.1.3:67 → 172.18.0.4:80"},
		{"from the node", tracing{icmp: true}, node, east, "0a:58:0a:f4:01:03 icmp 10.244.1.2 → 10.244.1.3"},
		{"forged", tracing{sourcePort: 40000, sourceAddress: "10.9.9.9"}, east, far, "0a:58:0a:f4:01:01 tcp 10.9.9.9:40000 → 10.244.2.3:80"},
	} {
		p, err := c.flags.packet(c.from, c.to, 80)
		if got := p.EthDst + " " + p.String(); err != nil || got != c.want || p.Inport != c.from.port || p.Datapath != c.from.node {
			t.Errorf("%s: %v, %q", c.name, err, got)
		}
	}
	if _, err := flags.packet(end{name: "8.8.8.8", addresses: addrs("8.8.8.8")}, east, 80); err == nil {
		t.Error("a packet was sent from outside")
	}
	if _, err := flags.packet(near, end{name: "x", addresses: addrs("fd00::9")}, 80); err == nil {
		t.Error("a packet was sent between families")
	}
}

func TestExitCodes(t *testing.T) {
	for o, want := range map[trace.Outcome]int{trace.Delivered: 0, trace.Dropped: 1, trace.Unknown: 2, trace.Onward: 2} {
		if got := (trace.Verdict{Outcome: o}).ExitCode(); got != want {
			t.Errorf("%s: %d", o, got)
		}
	}
}
