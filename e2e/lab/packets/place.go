// Package packets sends and receives real packets between the places of the lab
// (nodes, pods, the outside host) and tells what arrived, from whom and whole.
//
//	Place.Do ── a locked thread in the place's network namespace
//	  ├─ Serve    answers TCP and UDP with what it saw; notes pings
//	  ├─ TCP, UDP, Ping   ask, and compare with what was sent
//	  └─ Send, Sniff      forge frames, and look for them elsewhere
//
// A place may have an address of each family; what asks or answers uses Addr, and
// In gives the same place with the other family's.
//
// Sockets are opened inside the namespace by this process, so a probe costs
// microseconds and its claim is the kernel's, not a tool's text.
package packets

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Place is a network namespace with a name and an address.
type Place struct {
	Name  string
	Path  string // of the namespace: /proc/PID/ns/net, /run/netns/NAME
	Addr  netip.Addr
	Addrs []netip.Addr // all that it has, at most one a family; nil: Addr alone
}

// Family is an IP version.
type Family string

// The families, as a user reads them in a test's name.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// FamilyOf is an address's family.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Pick finds the address of a family; the zero Addr when there is none.
func (f Family) Pick(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if FamilyOf(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// In is the place with its address of a family in use: the zero Addr when it has none.
func (p Place) In(f Family) Place {
	p.Addr = f.Pick(p.all())
	return p
}

func (p Place) all() []netip.Addr {
	if p.Addrs == nil {
		return []netip.Addr{p.Addr}
	}
	return p.Addrs
}

// Do runs fn with its thread in the place's namespace. Sockets that fn opens
// belong to the place and may be used anywhere afterwards.
func (p Place) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() { // its thread is thrown away with it: LockOSThread is never undone
		runtime.LockOSThread()
		ns, err := os.Open(p.Path)
		if err != nil {
			done <- fmt.Errorf("%s: %w", p.Name, err)
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("%s: enter %s: %w", p.Name, p.Path, err)
			return
		}
		done <- fn()
	}()
	return <-done
}
