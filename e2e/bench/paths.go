package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/ovsdb"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// What part paths puts around the zone: a NIC in the gateway bridge, a router behind
// it, and a node of another zone.
const (
	nicName      = "nic0"
	wireName     = "wire0"
	nodeMAC      = "02:00:ac:12:00:02"
	nodeIP       = "172.18.0.2"
	routerIP     = "172.18.0.1"
	routerMAC    = "02:00:00:00:00:01"
	otherIP      = "172.18.0.3"
	otherNode    = "other"
	managementIP = "10.244.2.2"
	farPod       = "10.244.3.7"
)

// path is a packet that is traced through br-int and br-ex.
type path struct {
	name string
	from string // the interface that it comes in by
	flow string // of ovs-fields(7)
}

// printPaths is part paths: for the first packet of a connection on each path, how
// often the datapath takes it up again (recirculates it) and what it does each time,
// by ofproto/trace. Each time needs a flow of its own in the datapath.
func printPaths(ctx context.Context, o options, n *node, w io.Writer) error {
	if err := surround(ctx, n); err != nil {
		return err
	}
	pair, err := podPair(ctx, o, n, "east", "west")
	if err != nil {
		return err
	}
	names, err := portNames(ctx, n.zone)
	if err != nil {
		return err
	}
	for _, p := range paths(pair) {
		port, err := n.zone.output("ovs-vsctl", "--db="+n.zone.socket("ovs"), "get", "interface", p.from, "ofport")
		if err != nil {
			return err
		}
		bridge := intent.IntegrationBridge
		if p.from == nicName {
			bridge = gatewayBridge
		}
		out, err := n.zone.output("ovs-appctl", "--timeout=20", "-t", filepath.Join(n.zone.dir, "vswitchd.ctl"), "ofproto/trace", bridge,
			"in_port="+strings.TrimSpace(port)+","+p.flow)
		if err != nil {
			return err
		}
		passes := passesOf(out, names)
		fmt.Fprintf(w, "%s: %d recirculations, %d datapath flows\n", p.name, len(passes)-1, len(passes))
		for _, pass := range passes {
			fmt.Fprintf(w, "    %s\n", pass)
		}
	}
	return nil
}

// paths are the packets. Port 80 and 4000 are anybody's.
func paths(pods [2]attached) []path {
	router := rows.MAC(netip.MustParseAddr("10.244.2.1"))
	tcp := func(srcMAC, dstMAC, src, dst string) string {
		return fmt.Sprintf("tcp,dl_src=%s,dl_dst=%s,nw_src=%s,nw_dst=%s,nw_ttl=64,tp_src=4000,tp_dst=80", srcMAC, dstMAC, src, dst)
	}
	east, west := pods[0], pods[1]
	return []path{
		{"pod to pod, same node", east.port, tcp(east.mac, west.mac, east.address, west.address)},
		{"pod to pod, other node", east.port, tcp(east.mac, router, east.address, farPod)},
		{"pod to outside", east.port, tcp(east.mac, router, east.address, "198.51.100.9")},
		{"pod to its node", east.port, tcp(east.mac, router, east.address, nodeIP)},
		{"node to pod", intent.ManagementPort, tcp(rows.MAC(netip.MustParseAddr(managementIP)), west.mac, managementIP, west.address)},
		{"outside to node", nicName, tcp(routerMAC, nodeMAC, "198.51.100.9", nodeIP)},
	}
}

// surround gives the node what a real one has around it.
func surround(ctx context.Context, n *node) error {
	run := func(args ...string) error {
		if out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
		return nil
	}
	n.driver.Sink().Put(&intent.Node{Name: otherNode, Zone: otherNode, ID: 3, Subnets: []netip.Prefix{netip.MustParsePrefix("10.244.3.0/24")},
		Chassis: otherNode, EncapIPs: []netip.Addr{netip.MustParseAddr(otherIP)}})
	z := n.zone
	err := errors.Join(
		run("link", "add", nicName, "type", "veth", "peer", "name", wireName), run("link", "set", nicName, "up"), run("link", "set", wireName, "up"),
		z.vsctl(ctx, "add-port", gatewayBridge, nicName),
		run("link", "set", gatewayBridge, "address", nodeMAC, "up"), run("addr", "replace", nodeIP+"/24", "dev", gatewayBridge),
		z.tool(ctx, "ovs-appctl", "-t", filepath.Join(z.dir, "vswitchd.ctl"), "tnl/arp/set", gatewayBridge, otherIP, "02:00:ac:12:00:03"),
		z.nbctl(ctx, "static-mac-binding-add", "rtoe-GR_"+nodeName, routerIP, routerMAC),
		n.driver.Wait(ctx, "node/"+otherNode, ovsdb.Committed),
		z.nbctl(ctx, "--wait=hv", "sync"),
	)
	if err != nil {
		return err
	}
	ports := map[string]int{nicName: 0, host.PatchPort(gatewayBridge, nodeName): 0}
	for name := range ports {
		if err := z.vsctl(ctx, "wait-until", "interface", name, "ofport>0"); err != nil {
			return err
		}
		out, err := z.output("ovs-vsctl", "--db="+z.socket("ovs"), "get", "interface", name, "ofport")
		if err != nil {
			return err
		}
		var number int
		if _, err := fmt.Sscan(out, &number); err != nil {
			return fmt.Errorf("ofport of %s: %w", name, err)
		}
		ports[name] = number
	}
	flows := host.GatewayFlows{NIC: ports[nicName], OVN: ports[host.PatchPort(gatewayBridge, nodeName)], MAC: nodeMAC,
		Addresses: []netip.Addr{netip.MustParseAddr(nodeIP)}, Zone: host.GatewayZone}
	return z.feed(ctx, flows.Text(), "ovs-ofctl", "-O", "OpenFlow15", "--bundle", "replace-flows", "unix:"+filepath.Join(z.dir, gatewayBridge+".mgmt"), "-")
}

// portNames are the datapath's port numbers, as names.
func portNames(_ context.Context, z *zone) (map[string]string, error) {
	out, err := z.output("ovs-appctl", "--timeout=20", "-t", filepath.Join(z.dir, "vswitchd.ctl"), "dpctl/show")
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s*port (\d+): (\S+)`).FindAllStringSubmatch(out, -1) {
		names[m[1]] = m[2]
	}
	return names, nil
}

// passesOf gives the datapath's actions, one line for each time that the datapath
// takes the packet up, without what differs between runs: numbers of ports, meters,
// recirculations and of connection tracking's zones.
func passesOf(trace string, names map[string]string) []string {
	var out []string
	recirc := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^Datapath actions: (.*)$`).FindAllStringSubmatch(trace, -1) {
		a := regexp.MustCompile(`(^|,|gt\(|le\(|actions\()(\d+)(,|\)|$)`).ReplaceAllStringFunc(m[1], func(s string) string {
			return regexp.MustCompile(`\d+`).ReplaceAllStringFunc(s, func(port string) string { return kindOf(names[port]) })
		})
		a = regexp.MustCompile(`userspace\(pid=\d+,controller\([^)]*\)\)`).ReplaceAllString(a, "userspace(controller)")
		a = regexp.MustCompile(`recirc\((0x[0-9a-f]+)\)`).ReplaceAllStringFunc(a, func(s string) string {
			if recirc[s] == "" {
				recirc[s] = fmt.Sprintf("recirc(%d)", len(recirc)+1)
			}
			return recirc[s]
		})
		a = regexp.MustCompile(`zone=\d+`).ReplaceAllString(a, "zone=*")
		a = regexp.MustCompile(`(meter\(|out_port\(|tnl_push\(tnl_port\()[^)]*\)`).ReplaceAllString(a, "$1*)")
		a = regexp.MustCompile(`(header\(.*,src=)[0-9a-f:]{17}(,dl_type)`).ReplaceAllString(a, "$1*$2") // vswitchd makes it up
		out = append(out, a)
	}
	return out
}

// kindOf names a port by what it is for.
func kindOf(port string) string {
	if regexp.MustCompile(`^p[0-9a-f]{12}$`).MatchString(port) {
		return "POD"
	}
	return port
}
