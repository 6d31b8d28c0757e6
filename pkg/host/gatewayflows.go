package host

import (
	"fmt"
	"net/netip"
	"strings"
)

// What a connection's mark in the gateway's zone says of its owner.
const (
	markOVN  = 1
	markHost = 2
)

// GatewayZone is the first of the conntrack zones that the gateway bridge uses;
// OVN counts its zones up from 1 and never gets here.
const GatewayZone = 64000

// flowCookie marks our flows in dumps.
const flowCookie = 0x85

// Tables of the gateway bridge.
const (
	tableEntry   = 0 // by where a packet comes from
	tableTracked = 1 // by the connection it belongs to
)

const genevePort = 6081

// GatewayFlows is all that the OpenFlow of the gateway bridge depends on. The
// host and OVN's gateway router share the bridge's MAC and the node's addresses;
// whoever began a connection owns it, and connection tracking tells.
//
//	      NIC ──> table 0 ──ct──> table 1 ──est, mark 1──> OVN
//	               │                 ├─────est, mark 2──> host
//	               └─ Geneve ─> host └─────new──────────> host (commit 2)
//	OVN, host ──> table 0 ──ct──> table 1 ──commit 1, 2──> NIC
type GatewayFlows struct {
	NIC       int // OpenFlow port of the NIC
	OVN       int // of the patch port to br-int; 0: ovn-controller has not made it yet
	MAC       string
	Addresses []netip.Addr // the node's
	Zone      int          // conntrack zone: GatewayZone
}

// Text is the whole flow table in ovs-ofctl's language: the same input gives
// the same text.
func (f GatewayFlows) Text() string {
	w := &flowWriter{}
	f.geneve(w)
	f.neighbours(w)
	f.entry(w)
	f.tracked(w)
	return w.String()
}

// geneve lets tunnels pass untracked: to the host where vswitchd or the kernel
// takes them apart, and from it.
func (f GatewayFlows) geneve(w *flowWriter) {
	w.comment("tunnels between nodes")
	for _, a := range f.Addresses {
		proto, src, dst := "udp", "nw_src", "nw_dst"
		if a.Is6() {
			proto, src, dst = "udp6", "ipv6_src", "ipv6_dst"
		}
		w.flow(tableEntry, 300, fmt.Sprintf("in_port=%d,%s,%s=%s,tp_dst=%d", f.NIC, proto, dst, a, genevePort), "LOCAL")
		w.flow(tableEntry, 300, fmt.Sprintf("in_port=LOCAL,%s,%s=%s,tp_dst=%d", proto, src, a, genevePort), output(f.NIC))
	}
}

// neighbours gives answers to both, for either may have asked, and questions for
// the node's addresses to the host alone, so that they are answered once.
func (f GatewayFlows) neighbours(w *flowWriter) {
	w.comment("ARP and neighbour discovery")
	for _, a := range f.Addresses {
		if a.Is4() {
			w.flow(tableEntry, 260, fmt.Sprintf("in_port=%d,arp,arp_op=1,arp_tpa=%s", f.NIC, a), "LOCAL")
		} else {
			w.flow(tableEntry, 260, fmt.Sprintf("in_port=%d,icmp6,icmp_type=135,icmp_code=0,nd_target=%s", f.NIC, a), "LOCAL")
		}
	}
	// Router advertisements (134) are for the host, which ignores them.
	for _, match := range []string{"arp", "icmp6,icmp_type=135", "icmp6,icmp_type=136"} {
		w.flow(tableEntry, 250, fmt.Sprintf("in_port=%d,%s", f.NIC, match), f.both())
		for _, in := range f.inside() {
			w.flow(tableEntry, 250, fmt.Sprintf("in_port=%s,%s", in.name, match), output(f.NIC))
		}
	}
}

// entry sends unicast IP to connection tracking. Multicast is the host's: it has
// no connections.
func (f GatewayFlows) entry(w *flowWriter) {
	const multicast = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"
	track := fmt.Sprintf("ct(zone=%d,table=%d)", f.Zone, tableTracked)
	w.comment("what the NIC brings")
	w.flow(tableEntry, 200, fmt.Sprintf("in_port=%d,%s", f.NIC, multicast), "LOCAL")
	for _, ip := range []string{"ip", "ipv6"} {
		w.flow(tableEntry, 100, fmt.Sprintf("in_port=%d,%s,dl_dst=%s", f.NIC, ip, f.MAC), track)
	}
	w.comment("what the host and OVN send")
	for _, in := range f.inside() {
		w.flow(tableEntry, 200, fmt.Sprintf("in_port=%s,%s", in.name, multicast), output(f.NIC))
		for _, ip := range []string{"ip", "ipv6"} {
			w.flow(tableEntry, 100, fmt.Sprintf("in_port=%s,%s", in.name, ip), track)
		}
	}
	w.comment("everything else: a switch")
	w.flow(tableEntry, 0, "", "NORMAL")
}

// tracked decides by connection. An established one is not committed again: NICs
// offload no commit.
func (f GatewayFlows) tracked(w *flowWriter) {
	for _, in := range f.inside() {
		w.comment("connections of " + in.what)
		for _, state := range []string{"+trk+est", "+trk+rel"} {
			w.flow(tableTracked, 100, fmt.Sprintf("in_port=%d,ct_state=%s,ct_mark=%d", f.NIC, state, in.mark), in.output)
		}
		w.flow(tableTracked, 100, fmt.Sprintf("in_port=%s,ct_state=+trk+est,ct_mark=%d", in.name, in.mark), output(f.NIC))
		for _, ip := range []string{"ip", "ipv6"} {
			w.flow(tableTracked, 50, fmt.Sprintf("in_port=%s,ct_state=+trk+new,%s", in.name, ip), f.commit(in.mark, output(f.NIC)))
		}
		// Errors about a connection of the other, and what tracking cannot place.
		w.flow(tableTracked, 10, "in_port="+in.name, output(f.NIC))
	}
	w.comment("connections from outside are the host's")
	for _, ip := range []string{"ip", "ipv6"} {
		w.flow(tableTracked, 50, fmt.Sprintf("in_port=%d,ct_state=+trk+new,%s", f.NIC, ip), f.commit(markHost, "LOCAL"))
	}
	w.flow(tableTracked, 10, fmt.Sprintf("in_port=%d", f.NIC), "LOCAL")
}

// insider is one of the two that share the node's address.
type insider struct {
	what   string
	name   string // in matches
	output string // as an action
	mark   int
}

func (f GatewayFlows) inside() []insider {
	in := []insider{{"the host", "LOCAL", "LOCAL", markHost}}
	if f.OVN != 0 {
		in = append(in, insider{"OVN", fmt.Sprint(f.OVN), output(f.OVN), markOVN})
	}
	return in
}

func (f GatewayFlows) both() string {
	if f.OVN == 0 {
		return "LOCAL"
	}
	return "LOCAL," + output(f.OVN)
}

func (f GatewayFlows) commit(mark int, then string) string {
	return fmt.Sprintf("ct(commit,zone=%d,exec(set_field:%d->ct_mark)),%s", f.Zone, mark, then)
}

func output(port int) string { return fmt.Sprintf("output:%d", port) }

type flowWriter struct{ strings.Builder }

func (w *flowWriter) comment(s string) { w.WriteString("# " + s + "\n") }

func (w *flowWriter) flow(table, priority int, match, actions string) {
	if match != "" {
		match = "," + match
	}
	fmt.Fprintf(w, "cookie=%#x,table=%d,priority=%d%s,actions=%s\n", flowCookie, table, priority, match, actions)
}
