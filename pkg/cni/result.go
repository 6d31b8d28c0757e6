package cni

import (
	"encoding/json"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Result is what a successful ADD says; it is rendered in the version asked for.
type Result struct {
	Host ResultInterface // the node's end
	// Pod is the sandbox's end, also of a function that a program drives: of what has no
	// interface here network-status would have no MAC, and with Multus no entry.
	Pod       ResultInterface
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	Routes    []Route
}

// ResultInterface is one end of the pair.
type ResultInterface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac,omitempty"`
	MTU     int    `json:"mtu,omitempty"` // from CNI 1.1.0 on
	Sandbox string `json:"sandbox,omitempty"`
	PCI     string `json:"pciID,omitempty"` // of a function; from CNI 1.1.0 on
}

type resultIP struct {
	Version   string       `json:"version,omitempty"` // "4" or "6", up to CNI 0.4.0
	Address   netip.Prefix `json:"address"`
	Gateway   *netip.Addr  `json:"gateway,omitempty"`
	Interface *int         `json:"interface,omitempty"`
}

type resultRoute struct {
	Dst netip.Prefix `json:"dst"`
	GW  netip.Addr   `json:"gw,omitzero"`
}

// DefaultVersion is of a configuration that names none: the specification's is 0.1.0,
// which nobody means.
const DefaultVersion = "0.4.0"

// Encode renders the result as JSON of a CNI version (specification, section 5).
func (r *Result) Encode(version string) ([]byte, error) {
	out := struct {
		CNIVersion string            `json:"cniVersion"`
		Interfaces []ResultInterface `json:"interfaces"`
		IPs        []resultIP        `json:"ips"`
		Routes     []resultRoute     `json:"routes,omitempty"`
		DNS        struct{}          `json:"dns"`
	}{CNIVersion: version, Interfaces: []ResultInterface{r.Host, r.Pod}}
	pod := len(out.Interfaces) - 1
	if version == "" {
		out.CNIVersion = DefaultVersion
	}
	if version != "1.1.0" {
		for n := range out.Interfaces {
			out.Interfaces[n].MTU, out.Interfaces[n].PCI = 0, ""
		}
	}
	for _, a := range r.Addresses {
		ip := resultIP{Address: a, Interface: &pod}
		if strings.HasPrefix(out.CNIVersion, "0.") {
			ip.Version = "6"
			if a.Addr().Is4() {
				ip.Version = "4"
			}
		}
		if gw, ok := gatewayOf(a, r.Gateways); ok {
			ip.Gateway = &gw
		}
		out.IPs = append(out.IPs, ip)
	}
	for _, gw := range r.Gateways {
		out.Routes = append(out.Routes, resultRoute{Dst: defaultRoute(gw), GW: gw})
	}
	for _, route := range r.Routes {
		out.Routes = append(out.Routes, resultRoute{Dst: route.Destination, GW: route.Gateway})
	}
	return json.Marshal(out)
}

// types is the result as the field's library has it.
func (r *Result) types() *types100.Result {
	text, err := r.Encode("1.1.0")
	if err == nil {
		var out types.Result
		if out, err = types100.NewResult(text); err == nil {
			return out.(*types100.Result)
		}
	}
	panic(err) // it was written a line ago
}

func gatewayOf(a netip.Prefix, gateways []netip.Addr) (netip.Addr, bool) {
	for _, gw := range gateways {
		if gw.Is4() == a.Addr().Is4() {
			return gw, true
		}
	}
	return netip.Addr{}, false
}

// defaultRoute is the destination of everything in gw's family.
func defaultRoute(gw netip.Addr) netip.Prefix {
	if gw.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
