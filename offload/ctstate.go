package offload

import (
	"strconv"
	"strings"
)

// The bits of ct_state, as the kernel has them (OVS_CS_F_…).
const (
	ctNew         = 0x01
	ctEstablished = 0x02
	ctRelated     = 0x04
	ctReply       = 0x08
	ctInvalid     = 0x10
	ctTracked     = 0x20
	ctSNAT        = 0x40
	ctDNAT        = 0x80
)

// ctState is what a flow matches of a packet's connection.
type ctState struct{ bits, mask uint64 }

// readCTState reads 0x21/0x23, or -new+est+trk as a dump without -m has it.
func readCTState(v string) ctState {
	if v == "" || v[0] == '+' || v[0] == '-' {
		return readCTFlags(v)
	}
	bits, mask, exact := strings.Cut(v, "/")
	var s ctState
	s.bits, _ = strconv.ParseUint(bits, 0, 32) // what cannot be read matches nothing
	if !exact {
		s.mask = 0xff
		return s
	}
	s.mask, _ = strconv.ParseUint(mask, 0, 32)
	return s
}

func readCTFlags(v string) ctState {
	var s ctState
	for v != "" {
		on := v[0] == '+'
		name := v[1:]
		if i := strings.IndexAny(name, "+-"); i >= 0 {
			name, v = name[:i], name[i:]
		} else {
			v = ""
		}
		bit := ctBit(name)
		s.mask |= bit
		if on {
			s.bits |= bit
		}
	}
	return s
}

func ctBit(name string) uint64 {
	switch name {
	case "new":
		return ctNew
	case "est":
		return ctEstablished
	case "rel":
		return ctRelated
	case "rpl":
		return ctReply
	case "inv":
		return ctInvalid
	case "trk":
		return ctTracked
	case "snat":
		return ctSNAT
	case "dnat":
		return ctDNAT
	}
	return 0
}

// matches tells whether one of some bits is matched on, is whether it is to be set.
func (s ctState) matches(bits uint64) bool { return s.mask&bits != 0 }
func (s ctState) is(bits uint64) bool      { return s.bits&s.mask&bits != 0 }

// tracked tells how a flow has to do with connection tracking: matches on its state,
// or tracks.
func (f *Flow) tracked(a *act) (ctState, bool) {
	v, ok := value(f.Match, "ct_state")
	s := readCTState(v)
	return s, ok && s.is(ctTracked) || a.ct
}

// protocol is the number of the IP protocol that a flow matches on; 0: of any, or no IP.
func (f *Flow) protocol() int {
	for _, family := range []string{"ipv4", "ipv6"} {
		v, ok := value(f.Match, family)
		if !ok {
			continue
		}
		proto, mask, ok := masked(v, "proto")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(proto)
		if err == nil && matched(mask) {
			return n
		}
	}
	return 0
}

// isICMP tells whether a flow matches ICMP. What its first packet was, which is
// printed with a mask of zeroes, says nothing of the next.
func (f *Flow) isICMP() bool {
	if n := f.protocol(); n != 0 {
		return n == 1 || n == 58
	}
	for _, key := range []string{"icmp", "icmpv6"} {
		if v, ok := value(f.Match, key); ok && anyMatched(v) {
			return true
		}
	}
	return false
}
