package trace

import (
	"context"
	"fmt"
	"strings"
)

// Endpoint is the path of the agent's API that walks one zone; its query is
// packet=JSON of a Packet, its answer a Zone.
const Endpoint = "/v1/ovn-trace"

// Path is a packet's way through all zones.
type Path struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Network string  `json:"network,omitempty"` // empty: the default one
	Zones   []Zone  `json:"zones"`
	Verdict Verdict `json:"verdict"`
	// Objects are those that the verdict is by: whose rule dropped the packet, or whose
	// port got it. Empty: it is by no object's.
	Objects []string `json:"objects"`
	TTL     int      `json:"ttl"` // left at the end
}

// transitPort starts the name of a node's port on the transit switch.
const transitPort = "tstor-"

// maxZones bounds a path: between two nodes there are two.
const maxZones = 4

// Ask walks a packet through the zone of a node.
type Ask func(ctx context.Context, node string, p Packet) (Zone, error)

// Start is where a packet sets out, and how it comes from one zone into another.
type Start struct {
	Node   string // in whose zone
	Packet Packet
	// Peer is the node whose zone the packet enters that has left another by a port of
	// type remote; false: nobody's. Nil: as the default network's transit switch names it.
	Peer func(port string) (node string, ok bool)
	// Beyond is the node of another zone that the packet comes to by the physical network;
	// empty: it is not followed there.
	Beyond string
}

func (s Start) peer(port string) (string, bool) {
	if s.Peer != nil {
		return s.Peer(port)
	}
	return strings.CutPrefix(port, transitPort)
}

// Follow walks a packet from a node's zone on until it ends. A zone that cannot be
// asked makes the verdict Unknown; it is an error only for the first.
func Follow(ctx context.Context, start Start, ask Ask) (Path, error) {
	node, p := start.Node, start.Packet
	path := Path{Objects: []string{}, TTL: p.TTL}
	for len(path.Zones) < maxZones {
		z, err := ask(ctx, node, p)
		if err != nil {
			if len(path.Zones) == 0 {
				return path, err
			}
			path.Verdict = Verdict{Outcome: Unknown, Reason: fmt.Sprintf("it goes on in the zone of node %s, which cannot be asked: %v", node, err)}
			return path, nil
		}
		path.Zones = append(path.Zones, z)
		path.Verdict, path.TTL = z.Verdict(), z.TTL()
		if port := z.wire(); start.Beyond != "" && port != "" {
			p = z.after(port)
			node, start.Beyond = start.Beyond, ""
			continue
		}
		next, ok := z.Next()
		if !ok {
			path.Objects = path.by(&z)
			return path, nil
		}
		peer, known := start.peer(path.Verdict.Port)
		if !known {
			path.Verdict = Verdict{Outcome: Unknown, Reason: "it leaves by port " + path.Verdict.Port + ", which is no node's"}
			return path, nil
		}
		node, p = peer, next
	}
	path.Verdict = Verdict{Outcome: Unknown, Reason: fmt.Sprintf("it is in its zone number %d and no end is seen: a loop", maxZones)}
	return path, nil
}

// by lists the objects behind the verdict.
func (p *Path) by(z *Zone) []string {
	v := p.Verdict
	var objects []string
	switch {
	case v.Decider != nil && len(v.Decider.Objects) > 0:
		objects = v.Decider.Objects
	case v.Subject != "":
		objects = z.Ports[v.Subject]
	case v.Outcome == Delivered:
		objects = z.Ports[v.Port]
	}
	if objects == nil {
		return []string{}
	}
	return objects
}

// ExitCode is the verdict for a shell: 0 delivered, 1 dropped, 2 unknown.
func (v Verdict) ExitCode() int {
	switch v.Outcome {
	case Delivered:
		return 0
	case Dropped:
		return 1
	}
	return 2
}
