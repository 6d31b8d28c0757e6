package offload

import (
	"fmt"
	"net"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TCCount is what the filters at a device's ingress have done: vswitchd prints the sum
// of what hardware and software did, and these are told apart.
type TCCount struct {
	Filters    int `json:"filters"`    // flower's
	InHardware int `json:"inHardware"` // that a driver has accepted
	Refused    int `json:"refused"`    // not_in_hw
	// Packets of the filters' last actions, by who moved them. The kernel counts
	// bytes without the Ethernet header, so they are not told.
	HardwarePackets uint64 `json:"hardwarePackets"`
	SoftwarePackets uint64 `json:"softwarePackets"`
}

// What of the kernel's headers package nl has no names for.
const (
	clsactParent     = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
	ingressParent    = 0xffff0000 // of the ingress qdisc, which vswitchd makes
	flowerInHW       = 1 << 2     // TCA_CLS_FLAGS_IN_HW
	flowerNotInHW    = 1 << 3     // TCA_CLS_FLAGS_NOT_IN_HW
	tcHeader         = 20         // bytes of struct tcmsg
	attrTypeMask     = 0x3fff     // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	basicPacketsFrom = 8          // bytes of struct gnet_stats_basic before the packets
)

// TCCounts asks for the filters at a device's ingress, in every chain.
func TCCounts(device string) (TCCount, error) {
	var c TCCount
	link, err := net.InterfaceByName(device)
	if err != nil {
		return c, fmt.Errorf("filters of %s: %w", device, err)
	}
	for _, parent := range []uint32{ingressParent, clsactParent} {
		msgs, err := dumpFilters(link.Index, parent)
		if err != nil {
			return c, fmt.Errorf("filters of %s: %w", device, err)
		}
		for _, m := range msgs {
			if err := c.add(m); err != nil {
				return c, fmt.Errorf("filters of %s: %w", device, err)
			}
		}
		if c.Filters > 0 {
			break // the two parents are one qdisc's ingress by two names
		}
	}
	return c, nil
}

func dumpFilters(index int, parent uint32) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETTFILTER, unix.NLM_F_DUMP)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(index), Parent: parent})
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWTFILTER)
	if absent(err) {
		return nil, nil // no such qdisc, so no filters
	}
	return msgs, err
}

// add reads one filter's message.
func (c *TCCount) add(msg []byte) error {
	if len(msg) < tcHeader {
		return fmt.Errorf("message of %d bytes", len(msg))
	}
	attrs, err := attributes(msg[tcHeader:])
	if err != nil {
		return err
	}
	kind, options := "", []byte(nil)
	for _, a := range attrs {
		switch a.Attr.Type & attrTypeMask {
		case nl.TCA_KIND:
			kind = unix.ByteSliceToString(a.Value)
		case nl.TCA_OPTIONS:
			options = a.Value
		}
	}
	if kind != "flower" || len(options) == 0 {
		return nil
	}
	inner, err := attributes(options)
	if err != nil {
		return err
	}
	rule := false
	for _, a := range inner {
		switch a.Attr.Type & attrTypeMask {
		case nl.TCA_FLOWER_FLAGS:
			if len(a.Value) < 4 {
				return fmt.Errorf("flags of %d bytes", len(a.Value))
			}
			flags := nl.NativeEndian().Uint32(a.Value)
			if flags&flowerInHW != 0 {
				c.InHardware++
			}
			if flags&flowerNotInHW != 0 {
				c.Refused++
			}
			rule = true
		case nl.TCA_FLOWER_ACT:
			if err := c.actions(a.Value); err != nil {
				return err
			}
			rule = true
		}
	}
	if rule { // a chain's or a template's message has neither
		c.Filters++
	}
	return nil
}

// actions reads the statistics of the last of a filter's actions: each counts the
// packets that came to it.
func (c *TCCount) actions(list []byte) error {
	actions, err := attributes(list)
	if err != nil || len(actions) == 0 {
		return err
	}
	parts, err := attributes(actions[len(actions)-1].Value)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.Attr.Type&attrTypeMask != nl.TCA_ACT_STATS {
			continue
		}
		stats, err := attributes(p.Value)
		if err != nil {
			return err
		}
		var all, hardware uint64
		for _, s := range stats {
			if len(s.Value) < basicPacketsFrom+4 {
				continue
			}
			n := uint64(packetsOf(s.Value))
			switch s.Attr.Type & attrTypeMask {
			case nl.TCA_STATS_BASIC:
				all = n
			case nl.TCA_STATS_BASIC_HW:
				hardware = n
			}
		}
		c.HardwarePackets += hardware
		c.SoftwarePackets += all - min(all, hardware)
	}
	return nil
}

// attributes parses a list of netlink attributes. The kernel pads each to four bytes, and
// package nl takes it for granted.
func attributes(list []byte) ([]syscall.NetlinkRouteAttr, error) {
	if over := len(list) % unix.NLA_ALIGNTO; over != 0 {
		list = append(slices.Clip(list), make([]byte, unix.NLA_ALIGNTO-over)...)
	}
	return nl.ParseRouteAttr(list)
}

func packetsOf(basic []byte) uint32 {
	return nl.NativeEndian().Uint32(basic[basicPacketsFrom:])
}
