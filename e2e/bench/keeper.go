package main

import (
	"context"
	"path/filepath"

	"github.com/portolan-cni/portolan/sriov"
)

// keeper is what the agent does with a device itself: the same changes as moves, with
// records in memory, a lock, a look at everything before it is changed, and no switch.
type keeper struct {
	*sriov.Keeper
	soft softPair
}

func newKeeper(n *node, p softPair) (*keeper, error) {
	made, err := n.devices.keeper(filepath.Join(n.zone.dir, "devices", "alone"), nowhere{})
	return &keeper{made, p}, err
}

func (k *keeper) name() string                         { return "the device alone" }
func (k *keeper) bind(context.Context, sandbox) error  { return nil }
func (k *keeper) clear(context.Context, sandbox) error { return nil }

func (k *keeper) owner(s sandbox) sriov.Owner {
	return sriov.Owner{Sandbox: s.id, Pod: "ptb/" + s.pod, UID: uidOf(s), NAD: "ptb/soft", IfName: deviceIfName, Netns: s.netns}
}

func (k *keeper) add(ctx context.Context, s sandbox) error {
	_, err := k.Attach(ctx, sriov.Attachment{Device: k.soft.id, Owner: k.owner(s), MAC: softMAC, MTU: mtu, Alias: s.pod})
	return err
}

func (k *keeper) del(ctx context.Context, s sandbox) error {
	return k.Release(ctx, k.soft.id, k.owner(s))
}

// nowhere is a switch that costs nothing.
type nowhere struct{}

func (nowhere) Plug(context.Context, string, sriov.Plugged) error { return nil }
func (nowhere) Unplug(context.Context, string, sriov.Owner) (func(context.Context), error) {
	return nil, nil
}
func (nowhere) WaitInstalled(context.Context, string) error { return nil }
