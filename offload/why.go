package offload

import (
	"strconv"
	"strings"
)

// Reason is why something is not in hardware. Detail names what of it, and may be
// empty.
type Reason struct {
	Code   Code   `json:"code"`
	Detail string `json:"detail,omitempty"`
}

// mostChains is TC's number of chains: what is above cannot be one.
const mostChains = 1<<28 - 1

// mostActions is TCA_ACT_MAX_PRIO.
const mostActions = 32

// facts are what holds for all flows of one reading.
type facts struct {
	kernel KernelFacts
	config Config
	state  SwitchState
	kind   string // of the datapath
	device func(port string) Device
	under  func(to string) Device // the underlay of a tunnel, by its other end; "": of any
}

// node lists what keeps every flow of the node out of hardware.
func (x *facts) node() []Reason {
	var out []Reason
	if x.kind == DatapathUserspace {
		if x.config.DPDK && x.config.HWOffload {
			return nil // its ports offload without TC
		}
		return []Reason{{Code: UserspaceDatapath}}
	}
	if x.kernel.Flower.missing() {
		out = append(out, Reason{Code: NoFlower})
	}
	switch {
	case !x.config.HWOffload:
		out = append(out, Reason{Code: HWOffloadOff})
	case x.state.Running && !x.state.Active:
		out = append(out, Reason{Code: RestartNeeded})
	}
	if x.config.HWOffload && x.config.TCPolicy == "skip_hw" {
		out = append(out, Reason{Code: TCPolicy})
	}
	return out
}

// port lists what keeps every flow that comes in by a port out of hardware.
func (x *facts) port(name string) []Reason {
	p, known := x.config.Ports[name]
	if known && (p.Priority == "none" || p.Priority == "" && x.config.Priority == "none") {
		return []Reason{{Code: PortPriority}}
	}
	d := x.device(name)
	switch d.Kind {
	case Veth, Other:
		return []Reason{{NoDevice, d.Driver}}
	case Missing:
		return []Reason{{Code: DeviceGone}}
	case Internal:
		return []Reason{{Code: InternalPort}}
	case Tunnel:
		return x.tunnel(x.under(""))
	case Function:
		return []Reason{{NoESwitch, "a virtual function is the port"}}
	case Physical:
		if d.ESwitch == "legacy" {
			return []Reason{{LegacyMode, d.Parent}}
		}
		return []Reason{{NoESwitch, d.Driver}}
	}
	var out []Reason
	if d.ESwitch == "legacy" {
		out = append(out, Reason{LegacyMode, d.Parent})
	}
	if d.TCOffload == featureOff || d.TCOffload == featureNever {
		code := FeatureOff
		if d.Kind == Uplink {
			code = UplinkFeatureOff
		}
		out = append(out, Reason{code, d.Name})
	}
	return out
}

// tunnel judges the device that tunnels leave by.
func (x *facts) tunnel(under Device) []Reason {
	switch {
	case under.Kind == Missing:
		return []Reason{{TunnelUnderlay, "no route to the other end"}}
	case under.Kind != Uplink && under.Kind != Representor:
		return []Reason{{TunnelUnderlay, under.Name + " is " + string(under.Kind)}}
	case under.Encap == "disable" || under.Encap == "none":
		return []Reason{{EncapOff, under.Parent}}
	case under.TCOffload == featureOff || under.TCOffload == featureNever:
		return []Reason{{UplinkFeatureOff, under.Name}}
	}
	return nil
}

// text lists what of a flow's own text keeps it out of TC.
func (f *Flow) text(a *act) []Reason {
	var out []Reason
	if f.Recirc > mostChains {
		out = append(out, Reason{ChainNumber, "0x" + strconv.FormatUint(uint64(f.Recirc), 16)})
	}
	out = append(out, f.matches()...)
	return append(out, f.does(a)...)
}

// matches lists the keys that TC has none for, or NICs cannot do.
func (f *Flow) matches() []Reason {
	var out []Reason
	for name, v := range elements(f.Match) {
		out = append(out, matchOf(name, v)...)
	}
	return out
}

// matchOf is what one key of a match, with its value, keeps out of TC or a NIC.
func matchOf(name, v string) []Reason {
	number, mask, _ := strings.Cut(v, "/")
	unsupported := func(is bool, what string) []Reason {
		if !is {
			return nil
		}
		return []Reason{{MatchUnsupported, what}}
	}
	switch name {
	case "skb_mark":
		return unsupported(matched(mask) && (mask != "" || nonzero(number)), name)
	case "skb_priority":
		return unsupported(matched(mask), name)
	case "dp_hash":
		if matched(mask) {
			return []Reason{{Code: DPHash}}
		}
	case "ct_tuple4", "ct_tuple6", "nd", "nd_ext", "nsh":
		return unsupported(anyMatched(v), name)
	case "ct_state":
		s := readCTState(v)
		out := unsupported(s.matches(ctSNAT|ctDNAT), "ct_state of translated packets")
		if s.matches(ctInvalid) && s.is(ctInvalid) {
			out = append([]Reason{{Code: CTInvalid}}, out...)
		}
		return out
	case "vlan":
		return unsupported(partVLAN(v), "part of a VLAN tag")
	case "mpls":
		return unsupported(strings.Count(v, "label=") > 1, "several MPLS labels")
	case "packet_type":
		ns, ok := field(v, "ns")
		return unsupported(ok && ns != "0", "packets without an Ethernet header")
	case "ipv6":
		if frag, ok := field(v, "frag"); ok && frag != "no" {
			return []Reason{{Fragment, "IPv6"}}
		}
	}
	return nil
}

// anyMatched tells whether some field of a list is matched on.
func anyMatched(list string) bool {
	for list != "" {
		var e string
		e, list = first(list)
		if _, v, ok := strings.Cut(e, "="); ok {
			if _, mask, _ := strings.Cut(v, "/"); matched(mask) {
				return true
			}
		}
	}
	return false
}

// partVLAN tells whether some bits of a tag's number or priority are matched on, and
// not all.
func partVLAN(v string) bool {
	for name, whole := range map[string]uint64{"vid": 0xfff, "pcp": 0x7} {
		if _, mask, ok := masked(v, name); ok && mask != "" {
			n, err := strconv.ParseUint(mask, 0, 16)
			if err != nil || n != 0 && n&whole != whole {
				return true
			}
		}
	}
	return false
}

// does lists the actions that TC, or NICs, cannot do.
func (f *Flow) does(a *act) []Reason {
	var out []Reason
	add := func(c Code, detail string) {
		if r := (Reason{c, detail}); !containsReason(out, r) {
			out = append(out, r)
		}
	}
	for _, name := range a.names {
		switch name {
		case "sample", "psample":
			add(Sampling, "")
		case "userspace":
			if why, ok := strings.CutPrefix(a.slow, "slow path "); ok {
				add(SlowPath, why)
			} else if a.slow == "sFlow" || a.slow == "flow_sample" || a.slow == "ipfix" {
				add(Sampling, a.slow)
			} else {
				add(Controller, a.slow)
			}
		case "hash":
			add(HashAction, "")
		case "check_pkt_len":
			add(CheckPktLen, "")
		case "clone", "trunc", "lb_output", "dec_ttl", "push_nsh", "pop_nsh", "push_eth", "pop_eth", "add_mpls":
			add(ActionUnsupported, name)
		default:
			if field, ok := strings.CutPrefix(name, "set "); ok && !rewritable(field) {
				add(ActionUnsupported, name)
			}
		}
	}
	if a.helper != "" {
		add(CTHelper, a.helper)
	}
	if a.count > mostActions {
		add(TooManyActions, strconv.Itoa(a.count))
	}
	if f.fragments() && a.rewrites() {
		add(Fragment, "a rewrite")
	}
	return out
}

// rewritable are the headers that TC's pedit is asked to change.
func rewritable(header string) bool {
	switch header {
	case "eth", "ipv4", "ipv6", "tcp", "udp", "mpls", "":
		return true
	}
	return false
}

func (a *act) rewrites() bool {
	return a.has("set ipv4") || a.has("set ipv6") || a.has("set tcp") || a.has("set udp")
}

func (f *Flow) fragments() bool {
	v, ok := value(f.Match, "ipv4")
	if !ok {
		return false
	}
	frag, ok := field(v, "frag")
	return ok && frag != "no"
}

func containsReason(list []Reason, r Reason) bool {
	for _, known := range list {
		if known == r {
			return true
		}
	}
	return false
}
