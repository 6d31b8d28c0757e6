package rig

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ovsModules are what the kernel datapath and its TC rules need, which nothing
// asks for by itself.
func ovsModules() []string {
	return []string{"openvswitch", "vport-geneve", "geneve", "sch_ingress", "cls_flower", "act_mirred", "act_gact", "act_ct", "act_tunnel_key",
		"act_pedit", "act_csum", "act_vlan", "act_skbedit", "act_police", "nf_nat", "nf_conntrack", "veth", "bridge"}
}

// OVS is Open vSwitch on a host, with the kernel's datapath.
type OVS struct{ *Host }

// StartOVS starts ovsdb-server and ovs-vswitchd. settings go into the database's
// one row before vswitchd reads it: it takes hw-offload and tc-policy at its start only.
func (h *Host) StartOVS(settings ...string) OVS {
	h.t().Helper()
	h.PrepareOVS()
	h.Sh(`mkdir -p /var/lib/openvswitch /var/log/openvswitch
ovsdb-tool create /var/lib/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
ovsdb-server /var/lib/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --log-file -vconsole:off --detach --no-chdir
ovs-vsctl --no-wait init`)
	if len(settings) > 0 {
		h.Run(append([]string{"ovs-vsctl", "--no-wait", "set", "Open_vSwitch", "."}, settings...)...)
	}
	h.Run("ovs-vswitchd", "--pidfile", "--log-file", "-vconsole:off", "--detach", "--no-chdir")
	return OVS{h}
}

// PrepareOVS loads the modules that the kernel datapath needs, for who starts
// Open vSwitch otherwise.
func (h *Host) PrepareOVS() {
	h.t().Helper()
	Modules(h.t(), ovsModules()...)
}

// HWOffload are the settings that let flows go into TC.
func HWOffload() []string { return []string{"other_config:hw-offload=true"} }

// Vsctl runs ovs-vsctl.
func (o OVS) Vsctl(args ...string) string {
	o.t().Helper()
	return strings.TrimSpace(o.Run(append([]string{"ovs-vsctl"}, args...)...))
}

// Port adds ports to a bridge, which it makes.
func (o OVS) Port(bridge string, ports ...string) {
	o.t().Helper()
	args := []string{"--may-exist", "add-br", bridge}
	for _, p := range ports {
		args = append(args, "--", "add-port", bridge, p)
	}
	o.Vsctl(args...)
}

// Bind makes a port of br-int the place of a logical port.
func (o OVS) Bind(port, logical string) {
	o.t().Helper()
	o.Vsctl("add-port", "br-int", port, "--", "set", "Interface", port, "external_ids:iface-id="+logical)
}

// Forget takes all flows out of the datapath: packets make them anew.
func (o OVS) Forget() {
	o.t().Helper()
	o.Run("ovs-appctl", "revalidator/purge")
}

// Flow is a flow of the datapath.
type Flow struct {
	Text      string // as dpctl/dump-flows -m prints it
	InPort    string
	EthType   string // "0x0800"
	Chain     string // recirculation id; "0": the first
	Actions   string
	Datapath  string // "ovs" or "tc"
	Offloaded string // "yes", "partial"; empty: not in a driver
	Packets   int
}

func (f Flow) String() string { return f.Text }

// Flows are the datapath's flows of all kinds, but for those of IPv6.
func (o OVS) Flows() []Flow {
	o.t().Helper()
	return slices.DeleteFunc(parseFlows(o.Run("ovs-appctl", "dpctl/dump-flows", "-m")), func(f Flow) bool { return f.EthType == "0x86dd" })
}

var flowFields = map[string]*regexp.Regexp{
	"in_port": regexp.MustCompile(`\bin_port\(([^)]*)\)`), "eth_type": regexp.MustCompile(`\beth_type\(([^)/]*)`), "recirc_id": regexp.MustCompile(`\brecirc_id\(([^)/]*)`),
	"dp": regexp.MustCompile(`\bdp:(\w+)`), "offloaded": regexp.MustCompile(`\boffloaded:(\w+)`), "packets": regexp.MustCompile(`\bpackets:(\d+)`),
	"actions": regexp.MustCompile(`\bactions:(.*)$`),
}

func parseFlows(text string) []Flow {
	var out []Flow
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.Contains(line, "actions:") {
			continue
		}
		field := func(name string) string {
			if m := flowFields[name].FindStringSubmatch(line); m != nil {
				return m[1]
			}
			return ""
		}
		packets, _ := strconv.Atoi(field("packets"))
		chain := strings.TrimPrefix(field("recirc_id"), "0x")
		out = append(out, Flow{Text: line, InPort: field("in_port"), EthType: field("eth_type"), Chain: chain, Actions: field("actions"),
			Datapath: field("dp"), Offloaded: field("offloaded"), Packets: packets})
	}
	return out
}

// IPFrom are the IPv4 flows from a port.
func IPFrom(flows []Flow, port string) []Flow {
	var out []Flow
	for _, f := range flows {
		if f.InPort == port && f.EthType == "0x0800" {
			out = append(out, f)
		}
	}
	return out
}

// Is says why flows are not all of a datapath, and so far offloaded; nil: they are.
// No flow is not enough.
func Is(flows []Flow, datapath, offloaded string) error {
	if len(flows) == 0 {
		return fmt.Errorf("no flow")
	}
	for _, f := range flows {
		if f.Datapath != datapath || f.Offloaded != offloaded {
			return fmt.Errorf("want dp:%s and offloaded:%q, found dp:%s and offloaded:%q: %s", datapath, offloaded, f.Datapath, f.Offloaded, f.Text)
		}
	}
	return nil
}
