package cni

import (
	"context"
	"net/netip"
)

// Devices chooses which function of a NIC an interface gets. Its methods may be called
// from anywhere.
type Devices interface {
	// Choose answers for one interface; a Choice without a device is a veth pair. Its error
	// refuses the interface, a *PendingError only as long as nothing has changed.
	Choose(ctx context.Context, w DeviceWish) (Choice, error)
	// Trusts reports whether a definition of a namespace may have trust on, and spoof check
	// off, for a device.
	Trusts(device, namespace string) bool
	// Given is what devices the kubelet has given a pod, for people: "0000:03:00.2 of
	// portolan.io/fast", "no device", or why that is not known.
	Given(ctx context.Context, p Pod) string
}

// DeviceWish is what is known of an interface when its device is chosen.
type DeviceWish struct {
	Wish     Wish
	Resource string // that the definition names; "": none
	Offload  string // multus.OffloadRequire, OffloadPrefer or OffloadOff
	// Named is the device by the caller (deviceID), or by the definition; "": none. One
	// that the kubelet has given to no container of the pod is refused where the kubelet
	// can be asked.
	Named string
	// Has lists the devices of the pod's other interfaces, by key, in their order.
	Has map[string]string
}

// Choice is an interface's device.
type Choice struct {
	Device   string     // its id; "": a veth pair
	Resource string     // that it is of; "": not known
	Encap    netip.Addr // of the tunnels that its packets leave by; zero: the node's
	// Fallback says why the device is none of hardware where the definition prefers one;
	// "": it is, or nobody asked.
	Fallback string
}
