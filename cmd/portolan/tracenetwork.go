package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/reach"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/pkg/trace"
)

// medium is a network that a packet is traced on; the zero one is the default.
type medium struct {
	name        string
	topology    intent.Topology
	definitions []string
}

// mediumOf finds a network by its name, or by that of a definition, which is in the
// sender's namespace where none is given.
func mediumOf(ctx context.Context, r *reach.Reach, name, from string) (medium, error) {
	all := map[string]*networkReport{}
	if err := readNetworks(ctx, r, all); err != nil {
		return medium{}, err
	}
	var list []networkReport
	for _, n := range all {
		list = append(list, *n)
	}
	n, err := chosen(list, name)
	if err != nil && !strings.Contains(name, "/") {
		namespace, _, _ := strings.Cut(from, "/")
		if m, bad := chosen(list, namespace+"/"+name); bad == nil {
			n, err = m, nil
		}
	}
	if err != nil {
		return medium{}, err
	}
	return medium{n.Name, intent.Topology(n.Topology), n.Definitions}, nil
}

// find turns an argument into an end of a packet on the network.
func (m medium) find(ctx context.Context, r *reach.Reach, arg string) (end, error) {
	if ip, err := netip.ParseAddr(strings.Trim(strings.TrimPrefix(arg, "external:"), "[]")); err == nil {
		return end{name: ip.String(), addresses: []netip.Addr{ip}, on: m}, nil
	}
	namespace, name, ok := strings.Cut(arg, "/")
	switch {
	case !ok || name == "":
		return end{}, fmt.Errorf("%q: wanted NAMESPACE/POD or an address", arg)
	case strings.EqualFold(namespace, "node"):
		return end{}, fmt.Errorf("node %s has no interface on network %s: only pods are on it", name, m.name)
	}
	pod, err := r.Pod(ctx, namespace, name)
	if err != nil {
		return end{}, err
	}
	return m.end(pod)
}

// end is a pod's interface on the network.
func (m medium) end(pod *intent.Pod) (end, error) {
	name := pod.Namespace + "/" + pod.Name
	i := slices.IndexFunc(pod.Attachments, func(a intent.Attachment) bool {
		return a.Network != intent.DefaultNetwork && slices.Contains(m.definitions, intent.DefinitionOf(a.Network))
	})
	if i < 0 {
		has := []string{}
		for _, a := range pod.Attachments {
			has = append(has, a.Network)
		}
		return end{}, fmt.Errorf("pod %s has no interface on network %s, but on %s: portolan pod %s says what it asks for and why it has not got it",
			name, m.name, dash(strings.Join(has, ", ")), name)
	}
	att := pod.Attachments[i]
	if len(att.Addresses) == 0 {
		return end{}, fmt.Errorf("pod %s has no address on network %s, which gives none: what pods use there themselves is not known to OVN", name, m.name)
	}
	e := end{
		name: pod.Key().String(), node: pod.Node, port: rows.AttachmentPort(att.Network, pod.Namespace, pod.Name), mac: att.MAC, on: m,
	}
	for _, a := range att.Addresses {
		e.addresses = append(e.addresses, a.Addr())
	}
	if gateway, ok := rows.Nth(att.Addresses[0], 1); ok && m.topology == intent.Layer3 {
		e.gateway = rows.MAC(gateway.Addr())
	}
	return e, nil
}

// datapath is the switch that a node's pods are on.
func (m medium) datapath(node string) string {
	switch m.topology {
	case intent.Layer2:
		return rows.Layer2Switch(m.name)
	case intent.Localnet:
		return rows.LocalnetSwitch(m.name)
	}
	return rows.NodeSwitch(m.name, node)
}

// nextHop is the Ethernet address that a packet is sent to: the other pod's on one
// switch, else the router's. An address that is no pod's has the one that a pod with
// it would have: on a switch OVN knows it, or nobody does.
func (m medium) nextHop(from, to end) string {
	switch {
	case m.topology == intent.Layer3 && (to.port == "" || to.node != from.node):
		return from.gateway
	case to.port != "":
		return to.mac
	}
	return rows.MAC(to.addresses[0])
}

// startOf is where a packet sets out, and how it comes from zone to zone.
func startOf(from, to end, p trace.Packet) trace.Start {
	s := trace.Start{Node: from.node, Packet: p}
	if from.on.name == "" {
		return s
	}
	transit := "tstor-" + rows.NetworkPrefix(from.on.name)
	s.Peer = func(port string) (string, bool) {
		if port == to.port {
			return to.node, true
		}
		return strings.CutPrefix(port, transit)
	}
	if from.on.topology == intent.Localnet && to.node != from.node {
		s.Beyond = to.node
	}
	return s
}
