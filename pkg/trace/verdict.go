package trace

import (
	"fmt"
	"slices"
	"strings"
)

// Outcome is what becomes of a packet.
type Outcome string

// The outcomes of one zone's walk, and of a path; a path never ends with Onward.
const (
	Delivered Outcome = "delivered"
	Dropped   Outcome = "dropped"
	Onward    Outcome = "onward"  // it leaves for another zone
	Unknown   Outcome = "unknown" // ovn-trace does not tell
)

// Verdict says how a walk ended and why.
type Verdict struct {
	Outcome Outcome `json:"outcome"`
	Port    string  `json:"port,omitempty"` // of Delivered and Onward: by which it left
	Reason  string  `json:"reason"`
	// Decider is the flow that dropped it; nil for other outcomes.
	Decider *Step `json:"decider,omitempty"`
	// Subject is the logical port whose rules dropped it, where the flow is made for all
	// ports alike (port security); "" else.
	Subject string `json:"subject,omitempty"`
}

// Verdict reads the end of the walk.
func (z *Zone) Verdict() Verdict {
	if len(z.Hops) == 0 {
		return Verdict{Outcome: Unknown, Reason: "ovn-trace walked no flow: " + firstLine(z.Text)}
	}
	last := &z.Hops[len(z.Hops)-1]
	for _, o := range last.Outputs {
		switch o.Type {
		case "":
			return Verdict{Outcome: Delivered, Port: o.Port, Reason: "to port " + o.Port}
		case "localnet":
			return Verdict{Outcome: Delivered, Port: o.Port, Reason: "to the physical network, by port " + o.Port}
		case "remote":
			return Verdict{Outcome: Onward, Port: o.Port, Reason: "to another zone, by port " + o.Port}
		}
	}
	if len(last.Outputs) > 0 {
		o := last.Outputs[len(last.Outputs)-1]
		return Verdict{Outcome: Unknown, Reason: fmt.Sprintf("it left %s by port %s of type %s, and nothing follows", last.Datapath, o.Port, o.Type)}
	}
	return last.dropped()
}

// dropped finds what stopped a packet that left a datapath by no port.
func (h *Hop) dropped() Verdict {
	if len(h.Steps) == 0 {
		return Verdict{Outcome: Unknown, Reason: "no flow of " + h.Datapath + " was met"}
	}
	decider := &h.Steps[len(h.Steps)-1]
	if rule := h.refusing(); rule != nil && strings.Contains(decider.Stage, "_acl") {
		// The stage that acts is the same for all rules, and its drop is silent.
		return Verdict{Outcome: Dropped, Decider: rule, Reason: "an access rule of switch " + h.Datapath + ": " + rule.Match}
	}
	if !decider.does("drop;") && !decider.does("reject") && !decider.does("tcp_reset") && !decider.does("icmp") &&
		!slices.ContainsFunc(decider.Actions, func(a string) bool { return strings.Contains(a, "no match") }) {
		return Verdict{Outcome: Unknown, Reason: fmt.Sprintf("the walk ends in stage %s of %s without a verdict", decider.Stage, h.Datapath)}
	}
	v := Verdict{Outcome: Dropped, Decider: decider}
	switch stage := decider.Stage; {
	case strings.HasPrefix(stage, "ls_in_apply_port_sec"), strings.HasPrefix(stage, "ls_in_check_port_sec"):
		v.Subject, v.Reason = h.Inport, fmt.Sprintf("port security: the source address is not one that port %s may send from", h.Inport)
	case strings.HasPrefix(stage, "ls_out_apply_port_sec"):
		v.Reason = "port security: the destination address is not the receiving port's"
	case stage == "ls_in_l2_unknown":
		v.Reason = fmt.Sprintf("no port of switch %s has the destination: nobody answers for its address", h.Datapath)
	case stage == "lr_in_ip_routing":
		v.Reason = "router " + h.Datapath + " has no route to the destination"
	case stage == "lr_in_ip_input":
		v.Reason = "router " + h.Datapath + " takes it as meant for itself: " + decider.Match
	default:
		v.Reason = fmt.Sprintf("stage %s of %s: %s", stage, h.Datapath, decider.Match)
	}
	return v
}

// The verdicts that stages of access rules leave to the stage that acts on them
// (northd.c, REGBIT_ACL_VERDICT_DROP and _REJECT).
const (
	ruleDrops   = "reg8[17] = 1"
	ruleRejects = "reg8[18] = 1"
)

// refusing is the last access rule that has dropped or rejected; nil for none.
func (h *Hop) refusing() *Step {
	for i := len(h.Steps) - 1; i >= 0; i-- {
		if s := &h.Steps[i]; strings.Contains(s.Stage, "_acl") && (s.does(ruleDrops) || s.does(ruleRejects)) {
			return s
		}
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// Telling lists the steps that people want named: choices of routes and rules,
// translations, and what dropped the packet. The others are OVN's plumbing.
func (z *Zone) Telling() []*Step {
	var out []*Step
	for i := range z.Hops {
		for j := range z.Hops[i].Steps {
			if s := &z.Hops[i].Steps[j]; s.Decision() != "" {
				out = append(out, s)
			}
		}
	}
	if v := z.Verdict(); v.Decider != nil && !slices.Contains(out, v.Decider) {
		out = append(out, v.Decider)
	}
	return out
}

// Datapaths says on which switch or router each step is.
func (z *Zone) Datapaths() map[*Step]string {
	out := map[*Step]string{}
	for i := range z.Hops {
		for j := range z.Hops[i].Steps {
			out[&z.Hops[i].Steps[j]] = z.Hops[i].Datapath
		}
	}
	return out
}

// Decision says in a few words what the step chose; "" where it is plumbing.
func (s *Step) Decision() string {
	switch {
	case strings.Contains(s.Stage, "_acl") && strings.Contains(s.Stage, "_eval") && s.Priority > 0:
		verdict := "allow"
		if s.does(ruleDrops) {
			verdict = "drop"
		} else if s.does(ruleRejects) {
			verdict = "reject"
		}
		return verdict + " by rule " + s.Match
	case s.Stage == "lr_in_ip_routing" && s.does("ip.ttl--"):
		via := s.sets("reg0")
		if via == "ip4.dst" || via == "" {
			via = "directly"
		} else {
			via = "via " + via
		}
		return "route " + routeOf(s.Match) + " " + via + ", ttl -1"
	case s.Stage == "lr_in_policy" && s.Priority > 0 && s.sets("reg0") != "":
		return "policy: via " + s.sets("reg0")
	case strings.HasPrefix(s.Stage, "lr_out_snat"), strings.HasPrefix(s.Stage, "lr_in_dnat"):
		for _, a := range s.Actions {
			if strings.HasPrefix(a, "ct_snat") || strings.HasPrefix(a, "ct_dnat(") || strings.HasPrefix(a, "ct_lb") {
				return strings.TrimSuffix(a, ";")
			}
		}
	case s.Stage == "ls_in_lb":
		for _, a := range s.Actions {
			if strings.HasPrefix(a, "ct_lb") {
				return strings.TrimSuffix(a, ";")
			}
		}
	}
	return ""
}

// routeOf is the prefix in a routing flow's match.
func routeOf(match string) string {
	for _, part := range strings.Split(match, "&&") {
		part = strings.TrimSpace(part)
		for _, field := range []string{"ip4.dst == ", "ip6.dst == "} {
			if v, ok := strings.CutPrefix(part, field); ok {
				return v
			}
		}
		for _, field := range []string{"ip4.src == ", "ip6.src == "} {
			if v, ok := strings.CutPrefix(part, field); ok {
				return "from " + v
			}
		}
	}
	return match
}

// TTL is what is left of the packet's time to live at the end of the walk.
func (z *Zone) TTL() int {
	ttl := z.Packet.TTL
	for i := range z.Hops {
		for j := range z.Hops[i].Steps {
			if z.Hops[i].Steps[j].does("ip.ttl--") {
				ttl--
			}
		}
	}
	return ttl
}

// Next is the packet as it comes into the next zone, by the port from which it
// entered the switch that it left this one by: a switch that zones share, and its ports,
// have one name in every zone.
// ok is false where the walk does not leave the zone.
func (z *Zone) Next() (Packet, bool) {
	v := z.Verdict()
	if v.Outcome != Onward {
		return Packet{}, false
	}
	return z.after(z.Hops[len(z.Hops)-1].Inport), true
}

// wire is the port to a physical network by which the packet left; "": it did not.
func (z *Zone) wire() string {
	if len(z.Hops) == 0 {
		return ""
	}
	for _, o := range z.Hops[len(z.Hops)-1].Outputs {
		if o.Type == "localnet" {
			return o.Port
		}
	}
	return ""
}

// after is the packet as it enters another zone, by a port of the switch that it left.
func (z *Zone) after(inport string) Packet {
	p := z.Packet
	last := &z.Hops[len(z.Hops)-1]
	p.Datapath, p.Inport, p.TTL = last.Datapath, inport, z.TTL()
	for i := range z.Hops {
		for j := range z.Hops[i].Steps {
			s := &z.Hops[i].Steps[j]
			if mac := s.sets("eth.src"); mac != "" {
				p.EthSrc = mac
			}
			if mac := s.sets("eth.dst"); mac != "" {
				p.EthDst = mac
			}
		}
	}
	return p
}
