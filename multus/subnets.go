package multus

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ParseSubnets reads a comma list of a topology's subnets, IPv4 first: "10.1.0.0/16",
// and of layer3 "10.1.0.0/16/24" with the length of a node's own, 24 and 64 (IPv6)
// when not given. Host bits are cleared, as OVN-Kubernetes does. The error says what
// is wrong and what to do.
func ParseSubnets(topology, text string) ([]Subnet, error) {
	var out []Subnet
	for _, item := range items(text) {
		s, err := parseSubnet(topology, item)
		if err != nil {
			return nil, err
		}
		for _, other := range out {
			if other.Prefix.Overlaps(s.Prefix) {
				return nil, fmt.Errorf("%s and %s overlap: choose another", other.Prefix, s.Prefix)
			}
			if topology != Layer3 && other.Prefix.Addr().Is4() == s.Prefix.Addr().Is4() {
				return nil, fmt.Errorf("%s and %s are of one family: give one of each, a pod gets an address of each", other.Prefix, s.Prefix)
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b Subnet) int { return a.Prefix.Compare(b.Prefix) })
	return out, nil
}

func parseSubnet(topology, item string) (Subnet, error) {
	parts := strings.Split(item, "/")
	if len(parts) == 3 && topology != Layer3 {
		return Subnet{}, fmt.Errorf("%q has a second length, which is that of a node's subnet: only layer3 has those, remove /%s", item, parts[2])
	}
	if len(parts) > 3 {
		return Subnet{}, fmt.Errorf("%q has too many slashes: write it as 10.1.0.0/16 or 10.1.0.0/16/24", item)
	}
	prefix, err := parsePrefix(strings.Join(parts[:min(2, len(parts))], "/"))
	if err != nil {
		return Subnet{}, err
	}
	bits := prefix.Addr().BitLen()
	if topology != Layer3 {
		if prefix.Bits() > bits-2 {
			return Subnet{}, fmt.Errorf("%s is too small: a subnet has room for a gateway and pods up to /%d", prefix, bits-2)
		}
		return Subnet{Prefix: prefix}, nil
	}
	host := 24
	if bits == 128 {
		host = 64
	}
	if len(parts) == 3 {
		if host, err = strconv.Atoi(parts[2]); err != nil {
			return Subnet{}, fmt.Errorf("%q: %q is not the length of a node's subnet, such as /%d", item, parts[2], host)
		}
	}
	if host <= prefix.Bits() || host > bits-2 {
		return Subnet{}, fmt.Errorf("%q: a node's subnet of /%d is not a part of %s with room for a router and pods: write /%d to /%d as the second length", item, host, prefix, prefix.Bits()+1, bits-2)
	}
	return Subnet{prefix, host}, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is no subnet such as 10.1.0.0/16", text)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q is an IPv4 address written as IPv6: write it as IPv4", text)
	case p.Addr().IsMulticast(), p.Addr().IsLoopback(), p.Addr().IsLinkLocalUnicast(), p.Bits() == 0:
		return p, fmt.Errorf("%q has no addresses that pods can have: choose another", text)
	}
	return p.Masked(), nil
}

// items splits a comma list; nothing is no items.
func items(text string) []string {
	var out []string
	if strings.TrimSpace(text) == "" {
		return nil
	}
	for item := range strings.SplitSeq(text, ",") {
		out = append(out, strings.TrimSpace(item))
	}
	return out
}

func (o *object) readSubnets(c *Config) error {
	text := ""
	if err := o.into("subnets", `a comma list such as "10.1.0.0/16,fd01::/64"`, &text); err != nil {
		return err
	}
	var err error
	if c.Subnets, err = ParseSubnets(c.Topology, text); err != nil {
		return o.wrong("subnets", quoted(text), err.Error())
	}
	if c.Topology == Layer3 && len(c.Subnets) == 0 {
		return o.wrong("subnets", "missing", `write a list such as "10.1.0.0/16/24": each node of a layer3 network has a subnet; a network without addresses is layer2 or localnet`)
	}
	return nil
}

// readParts reads what of the subnets is not handed out.
func (o *object) readParts(c *Config) error {
	if err := o.needs(c, "excludeSubnets", Layer2, Localnet); err != nil {
		return err
	}
	if err := o.needs(c, "reservedSubnets", Layer2, Localnet); err != nil {
		return err
	}
	var err error
	if c.Exclude, err = o.prefixes("excludeSubnets", partOf(c.Subnets, true)); err != nil {
		return err
	}
	c.Reserved, err = o.prefixes("reservedSubnets", partOf(c.Subnets, false))
	return err
}

// partOf judges whether a prefix is a part of a subnet; smaller, that it is not all of it.
func partOf(subnets []Subnet, smaller bool) func(netip.Prefix) error {
	return func(p netip.Prefix) error {
		for _, s := range subnets {
			if s.Prefix.Bits() > p.Bits() || !s.Prefix.Contains(p.Addr()) {
				continue
			}
			if smaller && s.Prefix == p {
				return fmt.Errorf("%s is all of a subnet, which leaves no addresses: give a part", p)
			}
			return nil
		}
		return fmt.Errorf("%s is in none of subnets: give a part of one", p)
	}
}

func anywhere(netip.Prefix) error { return nil }

// prefixes reads a comma list of prefixes, sorted and each once.
func (o *object) prefixes(field string, judge func(netip.Prefix) error) ([]netip.Prefix, error) {
	text := ""
	if err := o.into(field, `a comma list such as "10.1.0.0/28,10.1.0.64/28"`, &text); err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, item := range items(text) {
		p, err := parsePrefix(item)
		if err == nil {
			err = judge(p)
		}
		if err != nil {
			return nil, o.wrong(field, quoted(text), err.Error())
		}
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

// readPrimary reads the fields that OVN-Kubernetes' primary networks use.
func (o *object) readPrimary(c *Config) error {
	for _, field := range []string{"infrastructureSubnets", "defaultGatewayIPs", "transitSubnet"} {
		if err := o.needs(c, field, Layer2); err != nil {
			return err
		}
	}
	if err := o.needs(c, "joinSubnet", Layer3, Layer2); err != nil {
		return err
	}
	var err error
	if c.Infrastructure, err = o.prefixes("infrastructureSubnets", partOf(c.Subnets, true)); err != nil {
		return err
	}
	if c.Join, err = o.prefixes("joinSubnet", anywhere); err != nil {
		return err
	}
	if c.Transit, err = o.prefixes("transitSubnet", anywhere); err != nil {
		return err
	}
	return errors.Join(o.onePerFamily("joinSubnet", c.Join), o.onePerFamily("transitSubnet", c.Transit), o.readGateways(c))
}

func (o *object) onePerFamily(field string, list []netip.Prefix) error {
	for i := 1; i < len(list); i++ {
		if list[i].Addr().Is4() == list[i-1].Addr().Is4() {
			return o.wrong(field, list[i-1].String()+" and "+list[i].String(), "give one of each family")
		}
	}
	return nil
}

func (o *object) readGateways(c *Config) error {
	text := ""
	if err := o.into("defaultGatewayIPs", `a comma list such as "10.1.0.1,fd01::1"`, &text); err != nil {
		return err
	}
	for _, item := range items(text) {
		a, err := netip.ParseAddr(item)
		in := slices.ContainsFunc(c.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a) })
		if err != nil || !in {
			return o.wrong("defaultGatewayIPs", quoted(text), fmt.Sprintf("write addresses of subnets: %q is none", item))
		}
		if slices.ContainsFunc(c.Gateways, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			return o.wrong("defaultGatewayIPs", quoted(text), "give one of each family")
		}
		c.Gateways = append(c.Gateways, a)
	}
	slices.SortFunc(c.Gateways, netip.Addr.Compare)
	return nil
}
