package multus

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// StatusAnnotation tells a pod's interfaces. Multus writes it where it is the
// caller, else portolan-node, and nobody both.
const StatusAnnotation = "k8s.v1.cni.cncf.io/network-status"

// Status is one attachment in the annotation (specification v1, section 5.3), with
// the keys that the NetworkAttachmentDefinition client v1.7.7 writes: mtu besides,
// and the default route's gateways as gateway.
type Status struct {
	Name       string      `json:"name"` // "namespace/name" of the definition; of the default network its own
	Interface  string      `json:"interface,omitempty"`
	IPs        []string    `json:"ips,omitempty"` // without prefixes
	MAC        string      `json:"mac,omitempty"`
	MTU        int         `json:"mtu,omitempty"`
	Default    bool        `json:"default,omitempty"`
	DNS        StatusDNS   `json:"dns"`
	DeviceInfo *DeviceInfo `json:"device-info,omitempty"`
	Gateway    []string    `json:"gateway,omitempty"`
}

// StatusDNS is what an attachment's plugin says of DNS; {} where it says nothing.
type StatusDNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// StatusOf tells one attachment by its plugin's result: the first interface with a
// sandbox, and the addresses that are indexed to it or to none (section 5.3.3.1).
// Without such an interface it is only the name and the addresses without an index.
// It is not the default network's until FormatStatus says so. device may be nil.
func StatusOf(name string, result *types100.Result, device *DeviceInfo) Status {
	s := Status{Name: name, DeviceInfo: device, DNS: StatusDNS{
		Nameservers: result.DNS.Nameservers, Domain: result.DNS.Domain, Search: result.DNS.Search, Options: result.DNS.Options,
	}}
	at := slices.IndexFunc(result.Interfaces, func(i *types100.Interface) bool { return i != nil && i.Sandbox != "" })
	if at >= 0 {
		s.Interface, s.MAC, s.MTU = result.Interfaces[at].Name, result.Interfaces[at].Mac, result.Interfaces[at].Mtu
	}
	for _, ip := range result.IPs {
		if ip == nil {
			continue
		}
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface == at {
			s.IPs = append(s.IPs, ip.Address.IP.String())
		}
	}
	for _, r := range result.Routes {
		if r != nil && r.GW != nil && defaultRoute(r) {
			s.Gateway = append(s.Gateway, r.GW.String())
		}
	}
	return s
}

func defaultRoute(r *types.Route) bool {
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && (r.Dst.IP == nil || r.Dst.IP.IsUnspecified())
}

// FormatStatus writes the annotation: the default network's status first and it
// alone with default set, then the others in the order of their attachments.
func FormatStatus(first Status, others []Status) (string, error) {
	first.Default = true
	texts := make([]string, 0, 1+len(others))
	for i, s := range slices.Concat([]Status{first}, others) {
		if s.Default = i == 0; s.Name == "" {
			return "", &FieldError{"annotation " + StatusAnnotation, "name", "missing", fmt.Sprintf("name the network of interface %q", s.Interface)}
		}
		text, err := json.MarshalIndent(s, "", "    ")
		if err != nil {
			return "", err
		}
		texts = append(texts, string(text))
	}
	return "[" + strings.Join(texts, ",") + "]", nil
}

// ParseStatus reads the annotation as anybody may have written it: keys that are
// not known are skipped, for others may add theirs (section 5.3). It checks what
// section 5.3 demands: names, addresses, one default at most.
func ParseStatus(annotation string) ([]Status, error) {
	object := "annotation " + StatusAnnotation
	if strings.TrimSpace(annotation) == "" {
		return nil, nil
	}
	var list []Status
	if err := json.Unmarshal([]byte(annotation), &list); err != nil {
		return nil, &FieldError{object, "", fmt.Sprintf("%s is no list of statuses (%v)", quoted(annotation), err), "remove the annotation: it is written again"}
	}
	first := -1
	for i, s := range list {
		entry := fmt.Sprintf("%s, entry %d", object, i)
		switch {
		case s.Name == "":
			return nil, &FieldError{entry, "name", "missing", "name the network"}
		case s.MAC != "" && s.Interface == "":
			return nil, &FieldError{entry, "interface", "missing", "name the interface that has the MAC " + s.MAC}
		case s.Default && first >= 0:
			return nil, &FieldError{entry, "default", "true", fmt.Sprintf("set it once: entry %d is the default network's", first)}
		case s.Default:
			first = i
		}
		for _, ip := range s.IPs {
			if _, err := netip.ParseAddr(ip); err != nil {
				if _, err := netip.ParsePrefix(ip); err != nil { // the specification's own examples have one
					return nil, &FieldError{entry, "ips", quoted(ip), "write an address"}
				}
			}
		}
	}
	return list, nil
}
