package multus

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ParseAsked reads an entry of ips: the address, and the length of its prefix, or
// -1 where none is written.
func ParseAsked(text string) (netip.Addr, int, error) {
	bits := -1
	addr, err := netip.ParseAddr(text)
	if p, asPrefix := netip.ParsePrefix(text); asPrefix == nil {
		addr, bits = p.Addr(), p.Bits()
	} else if err != nil {
		return addr, bits, fmt.Errorf("%q is no address such as 10.1.0.5 or 10.1.0.5/24", text)
	}
	if !unicast(addr) {
		return addr, bits, fmt.Errorf("%q is no address that an interface can have", text)
	}
	return addr, bits, nil
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (o *object) readIPs(s *Selection) error {
	const want = `a list of addresses, such as ["10.1.0.5"]`
	if err := o.into("ips", want, &s.IPs); err != nil {
		return err
	}
	if _, ok := o.fields["ips"]; ok && len(s.IPs) == 0 {
		return o.wrong("ips", "[]", "write "+want+", or leave it out")
	}
	seen := map[netip.Addr]bool{}
	for _, text := range s.IPs {
		a, _, err := ParseAsked(text)
		if err == nil && seen[a] {
			err = fmt.Errorf("%s is there twice", a)
		}
		if err != nil {
			return o.wrong("ips", string(truncated(o.fields["ips"])), "write "+want+": "+err.Error())
		}
		seen[a] = true
	}
	return nil
}

func (o *object) readHardware(s *Selection) error {
	const mac, guid = "six bytes, such as 0a:00:00:00:00:01", "eight bytes, such as c2:11:22:33:44:55:66:77"
	var err error
	if s.MAC, err = o.hardware("mac", mac, 6); err != nil {
		return err
	}
	if s.MAC != "" {
		// The parser took it a moment ago.
		if first, _ := net.ParseMAC(s.MAC); first[0]&1 == 1 {
			return o.wrong("mac", quoted(s.MAC), "write an even first byte: this is a multicast address")
		}
	}
	s.InfinibandGUID, err = o.hardware("infiniband-guid", guid, 8)
	return err
}

func (o *object) hardware(field, want string, size int) (string, error) {
	text := ""
	if err := o.into(field, want, &text); err != nil || text == "" {
		return "", err
	}
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != size || !slices.ContainsFunc(mac, func(b byte) bool { return b != 0 }) {
		return "", o.wrong(field, quoted(text), "write "+want)
	}
	return mac.String(), nil
}

func (o *object) readPorts(s *Selection) error {
	const want = `a list such as [{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`
	var list []json.RawMessage
	if err := o.into("portMappings", want, &list); err != nil {
		return err
	}
	seen := map[PortMapping]bool{}
	for i, text := range list {
		p, err := o.port(i, text)
		if err != nil {
			return err
		}
		host := PortMapping{HostPort: p.HostPort, Protocol: p.Protocol, HostIP: p.HostIP}
		if seen[host] {
			return o.wrong("portMappings", string(truncated(o.fields["portMappings"])), fmt.Sprintf("give %s port %d of the host once", p.Protocol, p.HostPort))
		}
		seen[host] = true
		s.PortMappings = append(s.PortMappings, p)
	}
	return nil
}

func (o *object) port(i int, text json.RawMessage) (PortMapping, error) {
	p := PortMapping{Protocol: "tcp"}
	e, err := readObject(fmt.Sprintf("%s: portMappings[%d]", o.name, i), text)
	if err != nil {
		return p, err
	}
	if err := e.only([]string{"hostPort", "containerPort", "protocol", "hostIP"}); err != nil {
		return p, err
	}
	for _, port := range []struct {
		field string
		at    *int
	}{{"hostPort", &p.HostPort}, {"containerPort", &p.ContainerPort}} {
		if err := e.into(port.field, "a port, 1 to 65535", port.at); err != nil {
			return p, err
		}
		if *port.at < 1 || *port.at > 65535 {
			return p, e.wrong(port.field, fmt.Sprint(*port.at), "write a port, 1 to 65535")
		}
	}
	if err := e.into("protocol", `"tcp", "udp" or "sctp"`, &p.Protocol); err != nil {
		return p, err
	}
	p.Protocol = strings.ToLower(p.Protocol)
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, p.Protocol) {
		return p, e.wrong("protocol", quoted(p.Protocol), `write "tcp", "udp" or "sctp"`)
	}
	if err := e.into("hostIP", "an address of the host", &p.HostIP); err != nil {
		return p, err
	}
	if _, err := netip.ParseAddr(p.HostIP); p.HostIP != "" && err != nil {
		return p, e.wrong("hostIP", quoted(p.HostIP), "write an address of the host")
	}
	return p, nil
}

func (o *object) readBandwidth(s *Selection) error {
	raw, ok := o.fields["bandwidth"]
	if !ok {
		return nil
	}
	e, err := readObject(o.name+": bandwidth", raw)
	if err != nil {
		return err
	}
	if err := e.only([]string{"ingressRate", "ingressBurst", "egressRate", "egressBurst"}); err != nil {
		return err
	}
	b := &Bandwidth{}
	for _, way := range []struct {
		name        string
		rate, burst *int64
	}{{"ingress", &b.IngressRate, &b.IngressBurst}, {"egress", &b.EgressRate, &b.EgressBurst}} {
		for _, f := range []struct {
			field, want string
			at          *int64
		}{{way.name + "Rate", "bits a second, 1 or more", way.rate}, {way.name + "Burst", "bits, 1 or more", way.burst}} {
			if err := e.into(f.field, f.want, f.at); err != nil {
				return err
			}
			if *f.at < 0 {
				return e.wrong(f.field, fmt.Sprint(*f.at), "write "+f.want)
			}
		}
		if *way.burst > 0 && *way.rate == 0 {
			return e.wrong(way.name+"Burst", fmt.Sprint(*way.burst), "give "+way.name+"Rate too: a burst is over a rate")
		}
	}
	if *b != (Bandwidth{}) {
		s.Bandwidth = b
	}
	return nil
}

func (o *object) readRoute(s *Selection) error {
	const want = `a list of gateways such as ["10.1.0.1"], or [] for the configuration's own`
	_, s.DefaultRoute = o.fields["default-route"]
	var list []string
	if err := o.into("default-route", want, &list); err != nil {
		return err
	}
	for _, text := range list {
		a, err := netip.ParseAddr(text)
		if err != nil || !unicast(a) {
			return o.wrong("default-route", string(truncated(o.fields["default-route"])), "write "+want)
		}
		s.Gateways = append(s.Gateways, a)
	}
	return nil
}

func (o *object) readRest(s *Selection) error {
	if err := o.into("cni-args", "an object", &s.CNIArgs); err != nil {
		return err
	}
	if err := o.into("deviceID", "a device's id", &s.DeviceID); err != nil {
		return err
	}
	if err := o.into("ipam-claim-reference", "the name of an IPAMClaim", &s.Claim); err != nil {
		return err
	}
	if s.Claim == "" {
		return nil
	}
	if len(s.Claim) > 253 || !subdomain.MatchString(s.Claim) {
		return o.wrong("ipam-claim-reference", quoted(s.Claim), "write the name of an IPAMClaim in the pod's namespace")
	}
	if len(s.IPs) > 0 {
		return o.wrong("ipam-claim-reference", quoted(s.Claim), "remove it or ips: a claim's addresses are its own")
	}
	return nil
}
