package trace

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
)

// Packet is the packet that is followed.
type Packet struct {
	Datapath string     `json:"datapath"` // logical switch that it enters
	Inport   string     `json:"inport"`   // logical port by which it does
	EthSrc   string     `json:"ethSrc"`
	EthDst   string     `json:"ethDst"`
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	Protocol string     `json:"protocol"` // tcp, udp, sctp, icmp
	SrcPort  int        `json:"srcPort,omitempty"`
	DstPort  int        `json:"dstPort,omitempty"`
	TTL      int        `json:"ttl"`
}

// Flow is the packet as ovn-trace takes it (a microflow).
func (p Packet) Flow() string {
	ip, icmp := "ip6", "icmp6.type == 128"
	if p.Dst.Is4() {
		ip, icmp = "ip4", "icmp4.type == 8"
	}
	parts := []string{
		fmt.Sprintf("inport == %q", p.Inport), "eth.src == " + p.EthSrc, "eth.dst == " + p.EthDst,
		fmt.Sprintf("%s.src == %s", ip, p.Src), fmt.Sprintf("%s.dst == %s", ip, p.Dst), fmt.Sprintf("ip.ttl == %d", p.TTL),
	}
	if p.Protocol == "icmp" {
		parts = append(parts, icmp)
	} else {
		parts = append(parts, fmt.Sprintf("%s.src == %d", p.Protocol, p.SrcPort), fmt.Sprintf("%s.dst == %d", p.Protocol, p.DstPort))
	}
	return strings.Join(parts, " && ")
}

// String is the packet for people.
func (p Packet) String() string {
	from, to := p.Src.String(), p.Dst.String()
	if p.Protocol != "icmp" {
		from, to = netip.AddrPortFrom(p.Src, uint16(p.SrcPort)).String(), netip.AddrPortFrom(p.Dst, uint16(p.DstPort)).String()
	}
	return fmt.Sprintf("%s %s → %s", p.Protocol, from, to)
}

// Validate refuses what ovn-trace would misread.
func (p Packet) Validate() error {
	switch {
	case !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != p.Dst.Is4():
		return fmt.Errorf("addresses %s and %s are not of one family", p.Src, p.Dst)
	case cmp.Or(p.Datapath, p.Inport) == "" || strings.ContainsAny(p.Datapath+p.Inport, "\"\\\n"):
		return fmt.Errorf("switch %q and port %q are not names of OVN's", p.Datapath, p.Inport)
	case p.Protocol != "tcp" && p.Protocol != "udp" && p.Protocol != "sctp" && p.Protocol != "icmp":
		return fmt.Errorf("protocol %q is none of tcp, udp, sctp and icmp", p.Protocol)
	case p.SrcPort < 0 || p.SrcPort > 65535 || p.DstPort < 0 || p.DstPort > 65535:
		return fmt.Errorf("ports %d and %d are not from 0 to 65535", p.SrcPort, p.DstPort)
	case p.TTL < 1 || p.TTL > 255:
		return fmt.Errorf("a ttl of %d is not from 1 to 255", p.TTL)
	}
	for _, mac := range []string{p.EthSrc, p.EthDst} {
		if strings.Trim(mac, "0123456789abcdef:") != "" || len(mac) != 17 {
			return fmt.Errorf("%q is no Ethernet address", mac)
		}
	}
	return nil
}
