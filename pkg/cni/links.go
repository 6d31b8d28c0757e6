package cni

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"regexp"
)

// Device is the veth pair of one making of an attachment.
type Device struct {
	Host   string // the node's end: "p" and 12 hex digits
	Parked string // the pod's end while it waits in the node: "q" and the same digits
	MAC    net.HardwareAddr
	MTU    int
	Alias  string // shown by ip link: whose it is
}

// deviceOf names the pair after pod UID, interface and generation. A pair that is
// made anew gets new names, so that nothing which is still known under the old
// ones (an open device in vswitchd, an nft chain) is taken for the new.
func deviceOf(uid, ifName string, generation int) Device {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", uid, ifName, generation))
	digits := hex.EncodeToString(sum[:6])
	return Device{Host: "p" + digits, Parked: "q" + digits}
}

// isHost recognises the node's ends by name, to find orphans; a function so that
// nothing mutable is global.
func isHost() *regexp.Regexp { return regexp.MustCompile(`^p[0-9a-f]{12}$`) }

// Endpoint is where a peer goes, and what it is there.
type Endpoint struct {
	Netns     string // path of the sandbox's network namespace
	IfName    string
	Addresses []netip.Prefix
	Gateways  []netip.Addr
}

// Links is the kernel's side of attachments. Veths implements it.
type Links interface {
	// Create makes the pair: peer parked and down, host's end up. What is left of
	// an earlier attempt under these names is replaced.
	Create(d Device) error
	// Parked reports whether the pair is there and its peer waits in the node.
	Parked(d Device) (bool, error)
	// Attach moves the parked peer into the endpoint, names, configures and
	// announces it. It calls enter before each of the three; its error ends Attach.
	Attach(d Device, e Endpoint, enter func(stage string) error) error
	// Detach takes the peer back from the endpoint and parks it, without addresses.
	Detach(d Device, e Endpoint) error
	// Verify reports what an attached endpoint lacks, nil when nothing.
	Verify(d Device, e Endpoint) error
	// Delete removes the pair by its host's end; nothing when it is gone. It returns
	// when neither namespace has an end of it.
	Delete(host string) error
	// List returns the host's ends of all pairs of ours.
	List() ([]string, error)
}

// Concealer hides host's ends from the kernel's own stack. On the userspace
// datapath vswitchd reads devices through packet sockets, so the kernel sees
// every packet too and would answer a pod that speaks to the veth's own MAC.
type Concealer interface {
	Conceal(ctx context.Context, device string) error
	// Reveal removes what Conceal made for devices; nothing when it is gone.
	Reveal(ctx context.Context, devices []string) error
	// Sweep removes it for every device that is not in keep.
	Sweep(ctx context.Context, keep []string) error
}
