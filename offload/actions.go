package offload

import (
	"net/netip"
	"strconv"
	"strings"
)

// act is what a flow's actions come to.
type act struct {
	outputs []string   // ports, in order, each once
	recircs []uint32   // stages that packets go on to
	tunnel  netip.Addr // where a tunnel takes them; invalid: in none
	names   []string   // of the actions that every packet meets, in order; "set eth" …
	checked []string   // of those that only packets of some length meet
	count   int        // of actions, as TC counts them
	ct      bool       // packets are tracked
	commit  bool       // and remembered
	helper  string     // of connection tracking: ftp …
	slow    string     // why vswitchd must see each packet
}

// readActions reads the actions of a flow.
func readActions(text string) act {
	var a act
	a.read(text, 0)
	return a
}

// deepest bounds nesting; OVS's own bound is 32.
const deepest = 40

func (a *act) read(text string, depth int) {
	if depth > deepest {
		return
	}
	for name, v := range elements(text) {
		a.count++
		switch name {
		case "drop", "ct_clear", "pop_vlan", "pop_eth", "pop_nsh", "push_vlan", "push_eth", "push_nsh", "push_mpls", "pop_mpls", "add_mpls",
			"hash", "meter", "trunc", "psample", "lb_output", "dec_ttl":
		case "recirc":
			if n, err := strconv.ParseUint(v, 0, 32); err == nil {
				a.recircs = append(a.recircs, uint32(n))
			}
		case "ct":
			a.track(v)
		case "set":
			a.set(v)
		case "check_pkt_len":
			a.check(v, depth)
		case "clone":
			a.read(v, depth+1)
		case "sample":
			// What a sample is given to is no output of the packet's.
		case "userspace":
			a.userspace(v)
		case "tnl_push":
			a.push(v)
		case "tnl_pop":
			a.output(v)
		default:
			if v == "" && !strings.ContainsAny(name, "=") {
				a.output(name)
				name = "output"
			}
		}
		a.names = append(a.names, name)
	}
}

// check reads check_pkt_len(size=1414,gt(…),le(…)).
func (a *act) check(v string, depth int) {
	var inner act
	for _, branch := range []string{"gt", "le"} {
		list, _ := value(v, branch)
		inner.read(list, depth+1)
	}
	a.checked = append(append(a.checked, inner.names...), inner.checked...)
	for _, port := range inner.outputs {
		a.output(port)
	}
	a.recircs = append(a.recircs, inner.recircs...)
	a.count += inner.count
	a.ct, a.commit = a.ct || inner.ct, a.commit || inner.commit
	if inner.tunnel.IsValid() {
		a.tunnel = inner.tunnel
	}
	if a.helper == "" {
		a.helper = inner.helper
	}
}

// track reads ct(commit,zone=5,mark=…,helper=ftp,nat(src=…)).
func (a *act) track(v string) {
	a.ct = true
	for name := range elements(v) {
		if name == "commit" || name == "force_commit" {
			a.commit = true
		}
		if helper, ok := strings.CutPrefix(name, "helper="); ok {
			a.helper = helper
		}
	}
}

// set reads set(tunnel(tun_id=…,dst=…)); other fields are a header's.
func (a *act) set(v string) {
	if t, ok := value(v, "tunnel"); ok {
		for _, key := range []string{"dst", "ipv6_dst"} {
			if text, ok := field(t, key); ok {
				a.tunnel, _ = netip.ParseAddr(text) // one that cannot be read is none
			}
		}
		return
	}
	for name := range elements(v) {
		a.names = append(a.names, "set "+name)
	}
}

// push reads tnl_push(tnl_port(genev_sys_6081),header(…,ipv4(src=…,dst=…)…),out_port(br-ex)).
func (a *act) push(v string) {
	port, _ := value(v, "tnl_port")
	a.output(port)
	header, _ := value(v, "header")
	for _, family := range []string{"ipv4", "ipv6"} {
		if ip, ok := value(header, family); ok {
			if dst, ok := field(ip, "dst"); ok {
				a.tunnel, _ = netip.ParseAddr(dst)
			}
		}
	}
}

// userspace reads userspace(pid=…,slow_path(…)) and its like.
func (a *act) userspace(v string) {
	for name, why := range elements(v) {
		switch {
		case strings.HasPrefix(name, "pid="):
		case name == "slow_path":
			a.slow = "slow path " + why
		case a.slow == "":
			a.slow = name
		}
	}
	if a.slow == "" {
		a.slow = "unnamed"
	}
}

func (a *act) output(port string) {
	if port == "" {
		return
	}
	for _, known := range a.outputs {
		if known == port {
			return
		}
	}
	a.outputs = append(a.outputs, port)
}

// has tells whether an action is among them.
func (a *act) has(name string) bool {
	for _, n := range a.names {
		if n == name {
			return true
		}
	}
	return false
}

// slowOnly tells whether packets go to vswitchd and nowhere else.
func (a *act) slowOnly() bool { return a.slow != "" && len(a.outputs) == 0 && len(a.recircs) == 0 }

// final tells whether packets end here and are not handed to a further stage.
func (a *act) final() bool { return len(a.recircs) == 0 }
