// Package bare makes the path that all others are compared with: a bridge in a
// node's Open vSwitch that Portolan has no part in, with one NORMAL flow, and two
// namespaces at its ports. Its addresses are documentation's (RFC 5737) and its
// ports have none: neither the node's kernel nor OVN takes part.
package bare

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/node"
	"github.com/portolan-cni/portolan/e2e/lab/packets"
	"github.com/portolan-cni/portolan/e2e/lab/proc"
	"github.com/portolan-cni/portolan/e2e/lab/wire"
)

// mtu is the pods': a userspace datapath costs by the packet, so that a larger one
// would compare sizes and not paths.
const mtu = 1442

// Name is the bridge's.
const Name = "br-bare"

// Words are in the name of everything that a bridge is made of.
func Words() []string { return []string{Name, "bare-l", "bare-r"} }

// Bridge is one such bridge, and the places at its two ends.
type Bridge struct {
	Node        string
	Left, Right packets.Place
}

// Runner runs a program on a node and gives what it prints.
type Runner func(ctx context.Context, node string, argv ...string) (string, error)

// Make makes a bridge on a node, by commands that run runs (nil: unseen). What it
// has begun, Remove ends.
func Make(ctx context.Context, on string, run Runner) (*Bridge, error) {
	b := &Bridge{Node: on}
	if run == nil {
		run = node.Run
	}
	_ = b.Remove(ctx) // of a run that was killed
	for side, place := range map[string]*packets.Place{"l": &b.Left, "r": &b.Right} {
		ns := b.namespace(side)
		*place = packets.Place{Name: "bare-" + side, Path: wire.Path(ns), Addr: netip.AddrFrom4([4]byte{192, 0, 2, side[0]})}
		for _, line := range []string{
			"ip netns add " + ns,
			fmt.Sprintf("ip -n %s link add bare-%s mtu %d type veth peer name eth0 mtu %d netns %s", wire.Namespace(on), side, mtu, mtu, ns),
			fmt.Sprintf("ip -n %s link set bare-%s addrgenmode none up", wire.Namespace(on), side),
			fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", ns, place.Addr),
			fmt.Sprintf("ip -n %s link set eth0 up", ns),
			// As pods have it: the userspace datapath delivers packets as they are.
			fmt.Sprintf("ip netns exec %s ethtool -K eth0 tx off", ns),
			fmt.Sprintf("ip netns exec %s ethtool -K bare-%s tx off", wire.Namespace(on), side),
		} {
			if err := proc.Run(ctx, strings.Fields(line)...); err != nil {
				return b, err
			}
		}
	}
	_, err := run(ctx, on, "ovs-vsctl", "add-br", Name, "--", "set", "bridge", Name, "datapath_type=netdev",
		"--", "add-port", Name, "bare-l", "--", "add-port", Name, "bare-r")
	if err != nil {
		return b, err
	}
	_, err = run(ctx, on, "ovs-ofctl", "--no-stats", "dump-flows", Name)
	return b, err
}

func (b *Bridge) namespace(side string) string { return wire.Namespace("bare-" + side + "-" + b.Node) }

// Remove leaves nothing of it, and does not stop at the first error.
func (b *Bridge) Remove(ctx context.Context) error {
	_, err := node.Run(ctx, b.Node, "ovs-vsctl", "--if-exists", "del-br", Name)
	errs := []error{err}
	for _, side := range []string{"l", "r"} {
		if port := "bare-" + side; proc.Run(ctx, "ip", "-n", wire.Namespace(b.Node), "link", "show", port) == nil {
			errs = append(errs, proc.Run(ctx, "ip", "-n", wire.Namespace(b.Node), "link", "delete", port))
		}
		ns := b.namespace(side)
		if _, err := os.Stat(wire.Path(ns)); errors.Is(err, os.ErrNotExist) {
			continue
		}
		errs = append(errs, proc.Run(ctx, "ip", "netns", "delete", ns))
	}
	return errors.Join(errs...)
}
