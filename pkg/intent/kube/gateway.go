package kube

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// gatewayConfig is one network's entry of k8s.ovn.org/l3-gateway-config. Numbers
// and booleans are strings there. The lone ip-address and next-hop are what older
// releases wrote.
type gatewayConfig struct {
	Mode        string   `json:"mode"`
	BridgeID    string   `json:"bridge-id,omitempty"`
	InterfaceID string   `json:"interface-id,omitempty"` // the localnet port: <bridge>_<node>
	Uplink      string   `json:"uplink,omitempty"`       // ours: the NIC that is in the bridge
	MAC         string   `json:"mac-address,omitempty"`
	Addresses   []string `json:"ip-addresses,omitempty"`
	Address     string   `json:"ip-address,omitempty"`
	NextHops    []string `json:"next-hops,omitempty"`
	NextHop     string   `json:"next-hop,omitempty"`
	NodePort    string   `json:"node-port-enable,omitempty"`
	VLAN        string   `json:"vlan-id,omitempty"`
}

// ParseGateway parses k8s.ovn.org/l3-gateway-config and returns the default
// network's gateway; the zero Gateway when its mode is "disabled".
func ParseGateway(s string) (intent.Gateway, error) {
	var networks map[string]gatewayConfig
	if err := json.Unmarshal([]byte(s), &networks); err != nil {
		return intent.Gateway{}, fmt.Errorf(`gateway %q is not of the form {"default":{"mode":"shared","bridge-id":"br-ex",…}}: %w`, s, err)
	}
	c, ok := networks[intent.DefaultNetwork]
	if !ok {
		return intent.Gateway{}, fmt.Errorf("gateway %q has no entry %q", s, intent.DefaultNetwork)
	}
	switch c.Mode {
	case "disabled":
		return intent.Gateway{}, nil
	case "shared", "local":
	default:
		return intent.Gateway{}, fmt.Errorf(`gateway mode %q is none of "shared", "local" and "disabled"`, c.Mode)
	}
	return c.gateway()
}

// gateway validates an entry whose mode is not disabled.
func (c gatewayConfig) gateway() (intent.Gateway, error) {
	g := intent.Gateway{Bridge: c.BridgeID, Interface: c.Uplink}
	if g.Bridge == "" {
		return intent.Gateway{}, fmt.Errorf("gateway has no bridge-id")
	}
	if len(c.Addresses) == 0 && c.Address != "" {
		c.Addresses = []string{c.Address}
	}
	if len(c.NextHops) == 0 && c.NextHop != "" {
		c.NextHops = []string{c.NextHop}
	}
	var err error
	if g.MAC, err = parseMAC(c.MAC); err != nil {
		return intent.Gateway{}, fmt.Errorf("gateway mac-address %w", err)
	}
	if g.Addresses, err = parsePrefixes(c.Addresses); err != nil {
		return intent.Gateway{}, fmt.Errorf("gateway ip-addresses: %w", err)
	}
	if len(g.Addresses) == 0 {
		return intent.Gateway{}, fmt.Errorf("gateway has no ip-addresses")
	}
	if g.NextHops, err = parseAddrs(c.NextHops); err != nil {
		return intent.Gateway{}, fmt.Errorf("gateway next-hops: %w", err)
	}
	return g, nil
}

// FormatGateway is k8s.ovn.org/l3-gateway-config for a node's gateway on the
// default network; vlan is the tag of the gateway NIC, 0 for untagged. A Gateway
// without a bridge is written as disabled.
func FormatGateway(node string, g intent.Gateway, vlan int) string {
	c := gatewayConfig{Mode: "disabled"}
	if g.Bridge != "" {
		c = gatewayConfig{
			Mode: "shared", BridgeID: g.Bridge, InterfaceID: g.Bridge + "_" + node, Uplink: g.Interface,
			MAC: g.MAC, NodePort: "true", VLAN: strconv.Itoa(vlan),
		}
		for _, p := range g.Addresses {
			c.Addresses = append(c.Addresses, p.String())
		}
		for _, a := range g.NextHops {
			c.NextHops = append(c.NextHops, a.String())
		}
	}
	return encode(map[string]gatewayConfig{intent.DefaultNetwork: c})
}
