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
	Host  string // the node's end: "p" and 12 hex digits
	MAC   net.HardwareAddr
	MTU   int
	Alias string // shown by ip link: whose it is
	Given bool   // a function of a NIC, or a soft device, which was there before: Host is its representor
}

// deviceOf names the node's end after pod UID, interface and generation. A pair
// that is made anew gets a new name, so that a device which vswitchd still holds
// open under the old one is not taken for the new.
func deviceOf(uid, ifName string, generation int) Device {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d", uid, ifName, generation))
	return Device{Host: "p" + hex.EncodeToString(sum[:6])}
}

// isHost recognises the node's ends by name, to find orphans; a function so that
// nothing mutable is global.
func isHost() *regexp.Regexp { return regexp.MustCompile(`^p[0-9a-f]{12}$`) }

// Endpoint is the pod's end: where it is, and what it is there.
type Endpoint struct {
	Netns     string // path of the sandbox's network namespace
	IfName    string
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	Routes    []Route
	// Physical: of the physical network, which may tell it addresses and routes besides.
	Physical bool
	// Rank is how many interfaces of the pod are on the same network and come before: from
	// 1 on, what has this one's addresses leaves by it, and nothing else does.
	Rank int
}

// Pair is a veth pair with both its ends, or a device's.
type Pair struct {
	Device
	Endpoint
}

// Links is the kernel's side of attachments. Veths implements it. Several pairs in one
// call are of one sandbox; the first error ends it.
type Links interface {
	// Create makes pairs, the pod's end in its place and under its name from the
	// start, and down; the host's end complete, and up. What is left of an earlier
	// attempt is replaced.
	Create(list ...Pair) error
	// Configure gives the pods' ends what they need and brings them up.
	Configure(list ...Pair) error
	// Announce tells the links whose the addresses are now.
	Announce(list ...Pair) error
	// Route makes an interface that plugins of others made the sandbox's way out: it has a
	// default route via each of the gateways, and no other interface has any.
	Route(e Endpoint) error
	// Verify reports what a configured pair lacks, nil when nothing.
	Verify(d Device, e Endpoint) error
	// Delete removes pairs by their host's ends; nothing when they are gone. It returns
	// when neither namespace has an end of them. It tries all.
	Delete(hosts ...string) error
	// Lives reports whether a path is a network namespace's.
	Lives(netns string) bool
	// List returns the host's ends of all pairs of ours.
	List() ([]string, error)
}

// Connections is what connection tracking remembers of addresses. A connection
// outlives the pod that it was of; it must not outlive the address's rest, or the
// next owner gets what was meant for the last (decision 32).
type Connections interface {
	// Flush forgets every connection of the addresses.
	Flush(ctx context.Context, addresses []netip.Addr) error
	// Sweep forgets those of all addresses in subnets but the ones to keep.
	Sweep(ctx context.Context, subnets []netip.Prefix, keep []netip.Addr) error
}
