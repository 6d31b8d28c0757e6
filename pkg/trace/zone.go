package trace

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Step is one logical flow that the packet met.
type Step struct {
	Pipeline string   `json:"pipeline"` // ingress, egress
	Table    int      `json:"table"`    // within the pipeline
	Stage    string   `json:"stage"`    // ls_in_acl_eval
	Match    string   `json:"match"`
	Priority int      `json:"priority"`
	UUID     string   `json:"uuid"` // first eight digits of the southbound row's
	Actions  []string `json:"actions"`
	// Row is the northbound row that the flow was made from, Unit who says the row, and
	// Objects what they were made for; empty where northd makes the flow by itself, or
	// the row is not Portolan's.
	Row     string   `json:"row,omitempty"`
	Unit    string   `json:"unit,omitempty"`
	Objects []string `json:"objects,omitempty"`
}

// does reports whether one of the step's actions begins so.
func (s *Step) does(action string) bool {
	return slices.ContainsFunc(s.Actions, func(a string) bool { return strings.HasPrefix(a, action) })
}

// sets is the value that an action gives a field; "" if none does.
func (s *Step) sets(field string) string {
	for _, a := range s.Actions {
		if v, ok := strings.CutPrefix(a, field+" = "); ok {
			return strings.Trim(strings.TrimSuffix(v, ";"), `"`)
		}
	}
	return ""
}

// Output is a port that the packet left a datapath by.
type Output struct {
	Port string `json:"port"`
	Type string `json:"type"` // "": somebody's interface; patch, l3gateway, localnet, remote …
}

// Hop is one logical switch or router on the way.
type Hop struct {
	Datapath string   `json:"datapath"`
	Inport   string   `json:"inport"`
	Steps    []Step   `json:"steps"`
	Outputs  []Output `json:"outputs"`
}

// Zone is the walk through one zone.
type Zone struct {
	Name   string `json:"zone"`
	Packet Packet `json:"packet"` // as it came in
	Hops   []Hop  `json:"hops"`
	// Ports says whose the logical ports on the way are, where they are of ours.
	Ports map[string][]string `json:"ports,omitempty"`
	Text  string              `json:"text"` // ovn-trace's own
}

var (
	heading = regexp.MustCompile(`^( *)(ingress|egress|multicast)\(dp="([^"]*)"(?:, inport="([^"]*)")?`)
	step    = regexp.MustCompile(`^ *(\d+)\. (\w+) \([^)]*\): (.*), priority (\d+), uuid ([0-9a-f]{8})$`)
	leaving = regexp.MustCompile(`/\* output to "([^"]+)"(?:, type "([^"]*)")? \*/`)
)

// Parse reads ovn-trace's text. Packets that OVN makes on the way, such as an ARP
// request for a next hop, are left out: the path is the packet's own.
func Parse(text string) []Hop {
	p := parser{aside: -1}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		next := ""
		if i+1 < len(lines) {
			next = lines[i+1]
		}
		p.line(strings.TrimRight(line, " "), strings.TrimSpace(next))
	}
	return p.hops
}

// parser is between two lines.
type parser struct {
	hops     []Hop
	pipeline string
	aside    int // indentation of the heading of a packet that OVN makes; -1: in none
}

func (p *parser) line(line, next string) {
	content := strings.TrimSpace(line)
	indent := len(line) - len(strings.TrimLeft(line, " "))
	if content == "" || strings.Trim(content, "-") == "" || p.aside >= 0 && indent > p.aside {
		return
	}
	p.aside = -1
	underlined := next != "" && strings.Trim(next, "-") == ""
	if underlined && made(content) {
		p.aside = indent
		return
	}
	if m := heading.FindStringSubmatch(line); m != nil {
		p.enter(m[2], m[3], m[4])
		return
	}
	if underlined || len(p.hops) == 0 {
		return // ct_next, ct_snat: the same hop goes on
	}
	hop := &p.hops[len(p.hops)-1]
	if m := leaving.FindStringSubmatch(content); m != nil {
		hop.Outputs = append(hop.Outputs, Output{m[1], m[2]})
		return
	}
	if m := step.FindStringSubmatch(line); m != nil {
		table, _ := strconv.Atoi(m[1]) // digits, by the pattern
		priority, _ := strconv.Atoi(m[4])
		hop.Steps = append(hop.Steps, Step{
			Pipeline: p.pipeline, Table: table, Stage: m[2], Match: m[3], Priority: priority, UUID: m[5], Actions: []string{},
		})
		return
	}
	if n := len(hop.Steps); n > 0 {
		hop.Steps[n-1].Actions = append(hop.Steps[n-1].Actions, content)
	}
}

// enter begins a pipeline; an ingress pipeline begins a hop.
func (p *parser) enter(pipeline, datapath, inport string) {
	if pipeline == "multicast" {
		return // the egress pipelines of its ports follow
	}
	p.pipeline = pipeline
	if pipeline == "ingress" {
		p.hops = append(p.hops, Hop{Datapath: datapath, Inport: inport, Steps: []Step{}, Outputs: []Output{}})
	}
}

// made tells the headings of packets that OVN makes itself.
func made(heading string) bool {
	return slices.Contains([]string{"arp", "nd_ns", "nd_na", "icmp4", "icmp6", "icmp4_error", "icmp6_error", "tcp_reset", "reject", "rd_na"}, heading)
}
