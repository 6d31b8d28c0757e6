package tour

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// bareMTU is the pods': a userspace datapath costs by the packet, so that a
// larger one would compare sizes and not paths.
const bareMTU = 1442

// bare is a bridge in a node's Open vSwitch that Portolan has no part in, and two
// namespaces at its ports. Its addresses are documentation's (RFC 5737), and its
// ports have none: neither the node's kernel nor OVN takes part.
type bare struct {
	node        string
	left, right packets.Place
}

const bareBridge = "br-bare"

// make makes the bridge. What make has begun, remove ends.
func (b *bare) make(ctx context.Context, g *guide) error {
	_ = b.remove(ctx, g) // of a tour that was killed
	for side, place := range map[string]*packets.Place{"l": &b.left, "r": &b.right} {
		ns := wire.Prefix + "bare-" + side
		*place = packets.Place{Name: "bare-" + side, Path: wire.Path(ns), Addr: netip.AddrFrom4([4]byte{192, 0, 2, side[0]})}
		for _, line := range []string{
			"ip netns add " + ns,
			fmt.Sprintf("ip -n %s link add bare-%s mtu %d type veth peer name eth0 mtu %d netns %s", wire.Namespace(b.node), side, bareMTU, bareMTU, ns),
			fmt.Sprintf("ip -n %s link set bare-%s addrgenmode none up", wire.Namespace(b.node), side),
			fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", ns, place.Addr),
			fmt.Sprintf("ip -n %s link set eth0 up", ns),
			// As pods have it: the userspace datapath delivers packets as they are.
			fmt.Sprintf("ip netns exec %s ethtool -K eth0 tx off", ns),
			fmt.Sprintf("ip netns exec %s ethtool -K bare-%s tx off", wire.Namespace(b.node), side),
		} {
			if err := proc.Run(ctx, strings.Fields(line)...); err != nil {
				return err
			}
		}
	}
	if _, err := g.show(ctx, "vsctl", b.node, "add-br", bareBridge, "--", "set", "bridge", bareBridge, "datapath_type=netdev",
		"--", "add-port", bareBridge, "bare-l", "--", "add-port", bareBridge, "bare-r"); err != nil {
		return err
	}
	_, err := g.show(ctx, "exec", b.node, "--", "ovs-ofctl", "--no-stats", "dump-flows", bareBridge)
	return err
}

// remove leaves nothing of it, and does not stop at the first error.
func (b *bare) remove(ctx context.Context, g *guide) error {
	_, err := g.lab(ctx, "vsctl", b.node, "--if-exists", "del-br", bareBridge)
	errs := []error{err}
	for _, side := range []string{"l", "r"} {
		ns := wire.Prefix + "bare-" + side
		if out, err := proc.Output(ctx, "ip", "netns", "list"); err != nil || !strings.Contains(out, ns) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, proc.Run(ctx, "ip", "netns", "delete", ns)) // and its veth with it
	}
	return errors.Join(errs...)
}
