package pod

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// networks is the annotation that says what a pod was given.
const networks = "metadata.annotations[k8s.ovn.org/pod-networks]"

// Compile makes the rows of the pod "namespace/name".
func Compile(v *intent.View, key string) rows.Output {
	var out rows.Output
	p, ok := intent.Get[*intent.Pod](v, intent.Key{Kind: intent.KindPod, Name: key})
	if !ok {
		return out
	}
	plan, ok := v.Cluster()
	if !ok {
		return out
	}
	node, ok := v.Node(p.Node)
	if !ok || node.Zone != plan.Zone {
		return out
	}
	c := compiler{View: v, out: &out, plan: plan, node: node, pod: p, names: map[string]string{}}
	for _, att := range p.Attachments {
		if att.Network != intent.DefaultNetwork {
			c.secondary(att)
		} else if len(att.Addresses) > 0 {
			c.primary(att)
		}
	}
	return out
}

// compiler is one compilation.
type compiler struct {
	*intent.View
	out   *rows.Output
	plan  *intent.Cluster
	node  *intent.Node
	pod   *intent.Pod
	names map[string]string // of ports, with the attachment that has each
}

func (c *compiler) problem(field, format string, args ...any) {
	c.out.Problems = append(c.out.Problems, rows.Problem{
		Object: c.pod.Key().String(), Field: field, Severity: rows.Error, Message: fmt.Sprintf(format, args...),
	})
}

// primary adds the port on the default network.
func (c *compiler) primary(att intent.Attachment) {
	if a, ok := stray(att.Addresses, c.node.Subnets, 2); ok && c.plan.GlobalZone {
		c.problem(networks, "%s is no address that node %s gives to pods: its subnets are %s; the pod has no port until the node's agent has set the annotation back", a, c.pod.Node, c.node.Subnets)
		return
	}
	if att.Bandwidth == nil {
		att.Bandwidth = intent.Limits(c.pod.Noted().Bandwidth)
	}
	c.port(att, c.pod.Node, nil, nil)
}

// secondary adds the port on another network, once the network is here. One that
// is not yet, or cannot be, holds up nothing but this port.
func (c *compiler) secondary(att intent.Attachment) {
	n, ok := c.NetworkOf(att.Network)
	if !ok || n.Name == intent.DefaultNetwork || att.MAC == "" || len(n.Subnets) > 0 && len(att.Addresses) == 0 {
		return
	}
	if _, ok := c.Get(intent.PresenceKey(n.Name, c.pod.Node)); !ok || c.Refused(c.plan, n) != nil {
		return
	}
	if !c.welcome(att, n) {
		return
	}
	sw, options := "", map[string]string{}
	switch n.Topology {
	case intent.Layer3:
		lease, ok := c.LeaseOf(n.Name, c.pod.Node)
		if !ok {
			return
		}
		if a, ok := stray(att.Addresses, lease.Subnets, 1); ok && c.plan.GlobalZone {
			c.problem(networks, "%s is no address of network %q that node %s gives to pods: its subnets are %s; the pod has no port there until the node's agent has set the annotation back", a, n.Name, c.pod.Node, lease.Subnets)
			return
		}
		sw = rows.NodeSwitch(n.Name, c.pod.Node)
	case intent.Layer2:
		sw = rows.Layer2Switch(n.Name)
		if att.TunnelKey != 0 {
			options["requested-tnl-key"] = strconv.Itoa(att.TunnelKey)
		}
	case intent.Localnet:
		sw = rows.LocalnetSwitch(n.Name)
	}
	if n.Topology != intent.Layer3 && len(n.Subnets) > 0 && c.plan.GlobalZone && !c.leased(att) {
		c.problem(networks, "the pod says that it has %s with MAC %s on network %q, and no AddressBlock says so: it has no port there until one does", att.Addresses, att.MAC, n.Name)
		return
	}
	c.port(att, sw, options, map[string]string{
		"k8s.ovn.org/network": n.Name, "k8s.ovn.org/nad": intent.DefinitionOf(att.Network), "k8s.ovn.org/topology": string(n.Topology),
	})
}

// leased tells whether a block has the pod's interface as the pod says it is. Where
// every node is a zone its agent knows; in a global zone the pod's annotation is
// read, which more people may write than may rule the network.
func (c *compiler) leased(att intent.Attachment) bool {
	port := intent.BlockEntry{Pod: c.pod.Namespace + "/" + c.pod.Name, Network: att.Network}.Port()
	for o := range c.Each(intent.BlocksByPort, port) {
		for _, e := range o.(*intent.Block).Entries {
			if e.Port() == port && e.UID == c.pod.UID && e.MAC == att.MAC && slices.Equal(e.Addresses, att.Addresses) {
				return true
			}
		}
	}
	return false
}

// selection is the annotation in which a pod names definitions.
const selection = "metadata.annotations[k8s.v1.cni.cncf.io/networks]"

// welcome tells whether the pod may name the definition, the pod's namespace and the
// definition's may join the network, and the definition's may name its wire.
func (c *compiler) welcome(att intent.Attachment, n *intent.Network) bool {
	definer, _, _ := strings.Cut(att.Network, "/")
	if c.plan.Isolated && definer != c.pod.Namespace && !slices.Contains(c.plan.Shared, definer) {
		c.problem(selection, "pods of namespace %s may not name definition %s: namespaceIsolation is on, and %s is none of sharedNamespaces %v; ask the cluster's administrator", c.pod.Namespace, intent.DefinitionOf(att.Network), definer, c.plan.Shared)
		return false
	}
	for _, namespace := range []string{c.pod.Namespace, definer} {
		if !c.selected(namespace, n.Namespaces) {
			c.problem(selection, "pods and definitions of namespace %s may not join network %q: its namespaceSelector is %s; ask the cluster's administrator", namespace, n.Name, n.Namespaces)
			return false
		}
	}
	if n.Topology != intent.Localnet {
		return true
	}
	wire, ok := intent.Get[*intent.PhysicalNetwork](c.View, intent.Key{Kind: intent.KindPhysicalNetwork, Name: n.Wire()})
	if ok && !c.selected(definer, wire.Namespaces) {
		c.problem(selection, "definitions of namespace %s may not name physical network %q, as %s does: its namespaceSelector is %s; ask the cluster's administrator", definer, wire.Name, intent.DefinitionOf(att.Network), wire.Namespaces)
		return false
	}
	return ok
}

// selected tells whether a selector takes a namespace; one without requirements
// takes all, and reads none.
func (c *compiler) selected(namespace string, by intent.Labels) bool {
	if len(by) == 0 {
		return true
	}
	ns, ok := intent.Get[*intent.Namespace](c.View, intent.Key{Kind: intent.KindNamespace, Name: namespace})
	return ok && by.Matches(ns.Labels)
}

// port adds one logical port, and its limits.
func (c *compiler) port(att intent.Attachment, sw string, options, ids map[string]string) {
	name := rows.AttachmentPort(att.Network, c.pod.Namespace, c.pod.Name)
	if first, taken := c.names[name]; taken {
		c.problem(selection, `attachment %q cannot be told apart from %q: "-" and "/" become "." in logical names; rename one of the two definitions`, att.Network, first)
		return
	}
	c.names[name] = att.Network
	words := []string{att.MAC}
	for _, a := range att.Addresses {
		words = append(words, a.Addr().String())
	}
	columns := map[string]rows.Value{
		"name":         rows.Str(name),
		"options":      rows.Map(with(options, map[string]string{"requested-chassis": c.pod.Node, "iface-id-ver": c.pod.UID})),
		"external_ids": rows.Map(with(ids, map[string]string{"namespace": c.pod.Namespace, "pod": "true"})),
	}
	if len(att.Addresses) > 0 {
		columns["addresses"] = rows.Str(strings.Join(words, " "))
		columns["port_security"] = columns["addresses"]
	} else {
		columns["addresses"] = rows.Strings(att.MAC, "unknown")
	}
	parent := rows.Ref{Table: "NB:Logical_Switch", ID: sw}
	c.out.Add(rows.Child("NB:Logical_Switch_Port", name, parent, "ports", columns))
	b := att.Bandwidth.Value()
	c.limit(parent, name, limit{"ingress", "to-lport", rows.ToPort(name), b.IngressRate, b.IngressBurst})
	c.limit(parent, name, limit{"egress", "from-lport", rows.FromPort(name), b.EgressRate, b.EgressBurst})
}

// with adds entries to a map that may be nil.
func with(m, more map[string]string) map[string]string {
	for k, v := range m {
		more[k] = v
	}
	return more
}

// Limits of bandwidth in OVN, in kbit.
const (
	limitPriority = 200
	leastBurst    = 640 // some 50 packets: less starves a TCP connection
	mostRate      = 4294967295
)

// limit is a limit of one direction.
type limit struct {
	what, direction string
	match           rows.Match
	rate, burst     int64 // bits
}

// limit adds a limit to a port; a rate of 0 is none.
func (c *compiler) limit(sw rows.Ref, port string, l limit) {
	if l.rate <= 0 {
		return
	}
	rate, burst := min(max(l.rate/1000, 1), mostRate), l.burst/1000
	if burst <= 0 {
		burst = max(rate/10, leastBurst)
	}
	c.out.Add(rows.Child("NB:QoS", port+"/"+l.what, sw, "qos_rules", map[string]rows.Value{
		"direction": rows.Str(l.direction), "priority": rows.Num(limitPriority), "match": rows.Str(l.match.String()),
		"bandwidth": rows.Nums(map[string]int64{"rate": rate, "burst": min(burst, mostRate)}),
	}).Using(l.match.Uses()...))
}

// stray finds an address that a node does not give to pods: one of no subnet of its
// own, or of the first that are kept: the router's, and on the default network the
// management port's. Where every node is a zone its agent
// knows what it gave; in a global zone this is read from an annotation, which more
// people may write than may rule the network.
func stray(addresses, subnets []netip.Prefix, kept int) (netip.Addr, bool) {
	for _, a := range addresses {
		given := slices.ContainsFunc(subnets, func(s netip.Prefix) bool {
			for n := range kept {
				if own, _ := rows.Nth(s, n+1); own.Addr() == a.Addr() {
					return false
				}
			}
			return s.Contains(a.Addr())
		})
		if !given && len(subnets) > 0 {
			return a.Addr(), true
		}
	}
	return netip.Addr{}, false
}
