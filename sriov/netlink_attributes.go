package sriov

import (
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// netlinkAttributes parses a list of netlink attributes. The kernel pads each to four bytes, and
// package nl takes it for granted.
func netlinkAttributes(list []byte) ([]syscall.NetlinkRouteAttr, error) {
	if over := len(list) % unix.NLA_ALIGNTO; over != 0 {
		list = append(slices.Clip(list), make([]byte, unix.NLA_ALIGNTO-over)...)
	}
	return nl.ParseRouteAttr(list)
}
