package rows

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Match is an OVN logical flow match built from typed parts, which knows the
// names it uses: a missing one would fail open (decision 3). Features build
// matches only here.
type Match struct {
	text string
	uses []Name
}

// String is the match in OVN's expression language (ovn-sb(5)).
func (m Match) String() string { return m.text }

// Uses lists the names that must exist before a row with this match does.
func (m Match) Uses() []Name { return m.uses }

// And joins matches that must all hold.
func And(ms ...Match) Match { return joined(" && ", ms) }

// Or joins matches of which one must hold.
func Or(ms ...Match) Match {
	m := joined(" || ", ms)
	if len(ms) > 1 {
		m.text = "(" + m.text + ")"
	}
	return m
}

func joined(sep string, ms []Match) Match {
	var out Match
	parts := make([]string, 0, len(ms))
	for _, m := range ms {
		parts = append(parts, m.text)
		out.uses = append(out.uses, m.uses...)
	}
	out.text = strings.Join(parts, sep)
	return out
}

// FromRouterPort matches packets that entered a router by a port.
func FromRouterPort(lrp string) Match {
	return Match{text: "inport == " + strconv.Quote(lrp), uses: []Name{{NB, RouterPort, lrp}}}
}

// FromPort matches packets that entered a switch by a port, and ToPort those that
// leave by it. OVN matches nothing by a port that is not there.
func FromPort(lsp string) Match { return Match{text: "inport == " + strconv.Quote(lsp)} }

// ToPort is FromPort's counterpart.
func ToPort(lsp string) Match { return Match{text: "outport == " + strconv.Quote(lsp)} }

// Broadcast matches Ethernet broadcasts.
func Broadcast() Match { return Match{text: "eth.bcast"} }

// ToAddress matches a destination address of either family.
func ToAddress(ip netip.Addr) Match {
	if ip.Is4() {
		return Match{text: "ip4.dst == " + ip.String()}
	}
	return Match{text: "ip6.dst == " + ip.String()}
}

// FromUDPPort matches UDP source ports, over either family.
func FromUDPPort(ports ...int) Match {
	slices.Sort(ports)
	text := make([]string, len(ports))
	for i, p := range ports {
		text[i] = strconv.Itoa(p)
	}
	return Match{text: "udp.src == {" + strings.Join(text, ", ") + "}"}
}
