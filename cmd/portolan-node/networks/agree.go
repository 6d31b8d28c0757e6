package networks

import (
	"fmt"
	"slices"

	"github.com/portolan-cni/portolan/multus"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/places"
)

// agrees has a pod wait while a definition says something else than its network, and
// nobody uses the network: then portolan-manager is about to take the edit over, and
// what would be given now would not be the network's any more. While a network is used
// an edit is without effect (ADR 32), and pods get what is accepted. n.mu is held.
func (n *Networks) agrees(a *multus.Attachment, w *network, spec *intent.Network) error {
	if n.cfg.Local || !w.unused() {
		return nil
	}
	if field, said, accepted := differs(a.Config, spec); field != "" {
		return &cni.PendingError{Reason: fmt.Sprintf("NetworkAttachmentDefinition %s was edited: %s is %s, and %s in network %s, which nobody uses: waiting for portolan-manager, which takes over the edit, or says in the Network's conditions why not",
			a.Key, field, shown(said), shown(accepted), spec.Name)}
	}
	return nil
}

// unused reports whether no node has a part of the network: no pod is on it then.
func (w *network) unused() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.blocks) == 0 && w.lost == nil
}

// differs is the first field in which a definition is not what was accepted, of those
// that may not change while pods use the network; "": there is none.
func differs(c *multus.Config, spec *intent.Network) (field, said, accepted string) {
	subnets := make([]multus.Subnet, 0, len(spec.Subnets))
	for _, s := range spec.Subnets {
		subnets = append(subnets, multus.Subnet{Prefix: s.Prefix, HostPrefix: s.HostPrefix})
	}
	wire := ""
	if spec.Topology == intent.Localnet {
		wire = spec.Wire()
	}
	for _, f := range []struct{ name, said, accepted string }{
		{"topology", c.Topology, string(spec.Topology)},
		{"subnets", joined(c.Subnets), joined(subnets)},
		{"mtu", number(c.MTU), number(spec.MTU)},
		{"vlanID", number(c.VLAN), number(spec.VLAN)},
		{"physicalNetworkName", c.PhysicalNetwork, wire},
	} {
		if f.said != f.accepted {
			return f.name, f.said, f.accepted
		}
	}
	return "", "", ""
}

func joined(list []multus.Subnet) string {
	out := ""
	for i, s := range list {
		if i > 0 {
			out += ","
		}
		out += s.String()
	}
	return out
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func shown(text string) string {
	if text == "" {
		return "not given"
	}
	return text
}

// moved refuses what was leased of other subnets than the network has now: an edit was
// taken over at the very moment of the first lease. w.mu is held.
func (w *network) moved() error {
	b, spec := w.blocks[w.slot], w.spec
	if b == nil || spec == nil || slices.Equal(b.Subnets, subnetsOf(spec, b.Slot)) {
		return nil
	}
	return fmt.Errorf("node %s has leased %v of network %s, which has %s now: delete the pods that are on this network on the node, and two minutes later it leases anew",
		b.Node, b.Subnets, spec.Name, prefixes(spec))
}

// movedAway is moved for an interface on a shared network.
func (w *network) movedAway(e intent.BlockEntry) error {
	spec := w.specOf()
	if spec == nil || slices.Equal(e.Addresses, places.Addresses(spec, e.Key-1)) {
		return nil
	}
	return fmt.Errorf("the interface was given %v of network %s, which has %s now: delete the pod", e.Addresses, spec.Name, prefixes(spec))
}
