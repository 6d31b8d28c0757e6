package script

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Packet is one packet as ovn-trace takes it.
type Packet struct {
	Datapath string // the logical switch that it enters
	Flow     string // a microflow (ovn-trace(8))
}

// PacketOf makes the packet that a pod sends. from is namespace/pod, or
// namespace/pod!address with another source address; to is ADDRESS:PORT/PROTOCOL
// with an address, an IPv6 one in brackets, or a namespace/pod. With a pod as the
// target the family is that of the sender's first address. A pod may be followed by
// @namespace/definition: its interface on that network.
func (s *Shell) PacketOf(from, to string) (Packet, error) {
	name, spoofed, spoofs := strings.Cut(from, "!")
	pod, att, err := s.attached(name)
	if err != nil {
		return Packet{}, err
	}
	target, service, _ := cutLast(to, ":")
	port, protocol, ok := strings.Cut(service, "/")
	if !ok {
		return Packet{}, fmt.Errorf("%q: wanted TARGET:PORT/PROTOCOL", to)
	}
	dst, neighbour, err := s.destination(pod, att, target)
	if err != nil {
		return Packet{}, err
	}
	src, gateway, err := sender(att, dst, neighbour)
	if err != nil {
		return Packet{}, fmt.Errorf("%s: %w", from, err)
	}
	if spoofs {
		if src, err = netip.ParseAddr(spoofed); err != nil {
			return Packet{}, err
		}
	}
	mac := neighbour
	if mac == "" {
		mac = rows.MAC(gateway)
	}
	ip := "ip6"
	if dst.Is4() {
		ip = "ip4"
	}
	flow := fmt.Sprintf(`inport == %q && eth.src == %s && eth.dst == %s && %s.src == %s && %s.dst == %s && ip.ttl == 64 && %s.src == 40000 && %s.dst == %s`,
		rows.AttachmentPort(att.Network, pod.Namespace, pod.Name), att.MAC, mac, ip, src, ip, dst, protocol, protocol, port)
	sw, _ := s.switchOf(pod, att)
	return Packet{Datapath: sw, Flow: flow}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (s *Shell) attached(name string) (*intent.Pod, intent.Attachment, error) {
	name, network, other := strings.Cut(name, "@")
	if !other {
		network = intent.DefaultNetwork
	}
	pod, ok := s.objects[intent.Key{Kind: intent.KindPod, Name: name}].(*intent.Pod)
	if !ok {
		return nil, intent.Attachment{}, fmt.Errorf("no pod %q", name)
	}
	att, ok := pod.Attachment(network)
	if !ok || len(att.Addresses) == 0 {
		return nil, att, fmt.Errorf("pod %q has no address on %s", name, network)
	}
	return pod, att, nil
}

// switchOf is the logical switch of an interface, and whether pods of all nodes are
// on that one.
func (s *Shell) switchOf(pod *intent.Pod, att intent.Attachment) (name string, shared bool) {
	for _, o := range s.objects {
		n, ok := o.(*intent.Network)
		if !ok || !slices.Contains(n.Definitions, intent.DefinitionOf(att.Network)) {
			continue
		}
		switch n.Topology {
		case intent.Layer2:
			return rows.Layer2Switch(n.Name), true
		case intent.Localnet:
			return rows.LocalnetSwitch(n.Name), true
		}
		return rows.NodeSwitch(n.Name, pod.Node), false
	}
	return pod.Node, false
}

// destination is the target's address, and its MAC if it is on the sender's switch.
func (s *Shell) destination(from *intent.Pod, sender intent.Attachment, target string) (netip.Addr, string, error) {
	if ip, err := netip.ParseAddr(strings.Trim(target, "[]")); err == nil {
		return ip, "", nil
	}
	pod, att, err := s.attached(target)
	if err != nil {
		return netip.Addr{}, "", err
	}
	for _, a := range att.Addresses {
		if a.Addr().Is4() != sender.Addresses[0].Addr().Is4() {
			continue
		}
		_, shared := s.switchOf(pod, att)
		if shared || pod.Node == from.Node {
			return a.Addr(), att.MAC, nil
		}
		return a.Addr(), "", nil
	}
	return netip.Addr{}, "", fmt.Errorf("%s and %s have no family in common", from.Name, target)
}

// sender is the source address and the gateway for a destination.
func sender(att intent.Attachment, dst netip.Addr, neighbour string) (src, gateway netip.Addr, err error) {
	for _, a := range att.Addresses {
		if a.Addr().Is4() == dst.Is4() {
			src = a.Addr()
		}
	}
	// All of a switch's gateway addresses are on one router port, whose MAC is that
	// of its first network.
	if len(att.Gateways) > 0 {
		gateway = att.Gateways[0]
	}
	if !src.IsValid() || !gateway.IsValid() && neighbour == "" {
		return src, gateway, fmt.Errorf("no address or gateway to send to %s", dst)
	}
	return src, gateway, nil
}

// output finds where ovn-trace says a packet leaves the logical network.
var output = regexp.MustCompile(`output to "([^"]+)"(?:, type "([^"]*)")?`)

// Delivered reads ovn-trace's text: whether the packet leaves by a pod's port, a
// physical network, or to another zone. Packets that OVN makes on the way, such
// as an ARP request for a next hop, do not count.
func Delivered(text string) bool {
	aside := -1 // indentation of the heading of such a packet's own trace
	for line := range strings.Lines(text) {
		content := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case content == "" || strings.Trim(content, "-") == "":
			continue
		case aside >= 0 && indent > aside:
			continue
		}
		aside = -1
		if made(content) {
			aside = indent
			continue
		}
		if m := output.FindStringSubmatch(content); m != nil && leaves(m[2]) {
			return true
		}
	}
	return false
}

// leaves tells the types of ports behind which there is no logical network.
func leaves(portType string) bool {
	switch portType {
	case "", "localnet", "remote", "vtep":
		return true
	}
	return false
}

// made tells the headings of packets that OVN makes itself.
func made(heading string) bool {
	switch heading {
	case "arp", "nd_ns", "nd_na", "icmp4", "icmp6", "icmp4_error", "icmp6_error", "tcp_reset", "reject", "rd_na":
		return true
	}
	return false
}
