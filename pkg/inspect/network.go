package inspect

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/engine"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
)

// Network is a network beside the default one, as a process knows it.
type Network struct {
	Name            string   `json:"name"`
	ID              int      `json:"id"`
	Topology        string   `json:"topology"`
	Subnets         []string `json:"subnets,omitempty"` // a layer3 network's with the length of a node's
	MTU             int      `json:"mtu,omitempty"`     // 0: the cluster's
	VLAN            int      `json:"vlan,omitempty"`
	PhysicalNetwork string   `json:"physicalNetwork,omitempty"`
	Definitions     []string `json:"definitions,omitempty"`
	// Nodes of this process's zone that the network is rendered for.
	Nodes []string `json:"nodes,omitempty"`
	// Rows are those that the network has in this zone, its pods' ports not counted;
	// Pending is that not all of them are known to be written.
	Rows     int            `json:"rows"`
	Pending  bool           `json:"pending,omitempty"`
	Ports    []NetworkPort  `json:"ports,omitempty"` // of the pods that this process knows
	Blocks   []NetworkBlock `json:"blocks,omitempty"`
	Problems []Problem      `json:"problems,omitempty"`
}

// NetworkPort is one interface of a pod.
type NetworkPort struct {
	Pod        string   `json:"pod"`
	Node       string   `json:"node"`
	Attachment string   `json:"attachment"` // "namespace/definition[/index]"
	Addresses  []string `json:"addresses,omitempty"`
	MAC        string   `json:"mac,omitempty"`
	TunnelKey  int      `json:"tunnelKey,omitempty"`
}

// NetworkBlock is a node's lease of a part of the network.
type NetworkBlock struct {
	Slot    int      `json:"slot"`
	Node    string   `json:"node,omitempty"`
	Subnets []string `json:"subnets,omitempty"` // of a layer3 network
	Entries int      `json:"entries"`
}

// Networks lists the networks beside the default one, by name.
func (s *Server) Networks(ctx context.Context) ([]Network, error) {
	all := map[string]*Network{}
	err := s.src.Driver.Do(ctx, func() {
		e := s.src.Engine
		claims := map[string]*Network{}
		var pods []*intent.Pod
		var blocks []*intent.Block
		for _, k := range e.Store().Keys() {
			o, _ := e.Object(k)
			switch o := o.(type) {
			case *intent.Network:
				if o.Name == intent.DefaultNetwork {
					continue
				}
				n := networkOf(o)
				all[o.Name] = n
				for _, d := range o.Definitions {
					claims[d] = n
				}
			case *intent.Pod:
				pods = append(pods, o)
			case *intent.Block:
				blocks = append(blocks, o)
			case *intent.Presence:
				if n := all[o.Network]; n != nil { // kinds are in order: networks come first
					n.Nodes = append(n.Nodes, o.Node)
				}
			}
		}
		for _, p := range pods {
			for _, a := range p.Attachments {
				if n := claims[intent.DefinitionOf(a.Network)]; n != nil && a.Network != intent.DefaultNetwork {
					n.Ports = append(n.Ports, NetworkPort{p.Namespace + "/" + p.Name, p.Node, a.Network, texts(a.Addresses), a.MAC, a.TunnelKey})
				}
			}
		}
		for _, b := range blocks {
			if n := all[b.Network]; n != nil {
				n.Blocks = append(n.Blocks, NetworkBlock{b.Slot, b.Node, texts(b.Subnets), len(b.Entries)})
			}
		}
		countRows(e, all)
		for _, p := range e.Problems() {
			if n := all[strings.TrimPrefix(p.Object, string(intent.KindNetwork)+"/")]; n != nil {
				n.Problems = append(n.Problems, problemOf(p))
			}
		}
	})
	out := []Network{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n := all[name]
		slices.SortFunc(n.Blocks, func(a, b NetworkBlock) int { return cmp.Compare(a.Slot, b.Slot) })
		out = append(out, *n)
	}
	return out, err
}

func networkOf(o *intent.Network) *Network {
	n := &Network{Name: o.Name, ID: o.ID, Topology: string(o.Topology), MTU: o.MTU, VLAN: o.VLAN, Definitions: o.Definitions}
	if o.Topology == intent.Localnet {
		n.PhysicalNetwork = o.Wire()
	}
	for _, s := range o.Subnets {
		n.Subnets = append(n.Subnets, SubnetText(s))
	}
	return n
}

// SubnetText is a network's subnet as definitions write it.
func SubnetText(s intent.NetworkSubnet) string {
	if s.HostPrefix == 0 {
		return s.Prefix.String()
	}
	return s.Prefix.String() + "/" + strconv.Itoa(s.HostPrefix)
}

// countRows counts what networks have, their pods' ports not counted. A network's
// units have its name as the last part of their keys.
func countRows(e *engine.Engine, all map[string]*Network) {
	for _, u := range e.UnitInfos() {
		name := u.Unit.Key
		switch u.Unit.Kind {
		case "network":
		case "presence", "block":
			_, name, _ = strings.Cut(name, "/")
		default:
			continue
		}
		n := all[name]
		if n == nil || u.Rows == 0 {
			continue
		}
		n.Rows += u.Rows
		if committed, _ := e.Marks(u.Group); !committed {
			n.Pending = true
		}
	}
}

func texts(list []netip.Prefix) []string {
	out := make([]string, 0, len(list))
	for _, p := range list {
		out = append(out, p.String())
	}
	return out
}

// switchOf is the logical switch of a row that has a parent.
func switchOf(r rows.Row) string { return r.Parent.Row.ID }
