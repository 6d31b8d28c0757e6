package sriov

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The words of link_state, by the kernel's numbers.
func linkStates() []string { return []string{"auto", "enable", "disable"} }

// VFs implements Kernel. The library numbers VFs by their place in the answer, in which
// those are missing that the driver tells nothing of, and takes "not known" (-1) of
// spoof check and trust for "on".
func (k *NetlinkKernel) VFs(pf string) (map[int]VFState, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(pf)))
	r.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(nl.RTEXT_FILTER_VF)))
	answers, err := r.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return nil, err
	}
	out := map[int]VFState{}
	for _, a := range answers {
		if len(a) < unix.SizeofIfInfomsg {
			continue
		}
		list, err := attribute(a[unix.SizeofIfInfomsg:], unix.IFLA_VFINFO_LIST)
		if err != nil {
			return nil, err
		}
		if err := readVFs(list, out); err != nil {
			return nil, fmt.Errorf("what %s says of its VFs: %w", pf, err)
		}
	}
	return out, nil
}

func readVFs(list []byte, out map[int]VFState) error {
	entries, err := netlinkAttributes(list)
	if err != nil {
		return err
	}
	for _, e := range entries {
		parts, err := netlinkAttributes(e.Value)
		if err != nil {
			return err
		}
		v, number := VFState{Proto: defaultProtocol}, -1
		for _, p := range parts {
			if n, ok := readVF(p.Attr.Type&nl.NLA_TYPE_MASK, p.Value, &v); ok {
				number = n
			}
		}
		if number >= 0 {
			out[number] = v
		}
	}
	return nil
}

// readVF reads one part (struct ifla_vf_*, linux/if_link.h), of which most begin with
// the VF's number.
func readVF(kind uint16, b []byte, v *VFState) (number int, ok bool) {
	word := func(n int) uint32 {
		if len(b) < 4*n+4 {
			return 0
		}
		return nl.NativeEndian().Uint32(b[4*n:])
	}
	toggle := func() string {
		switch word(1) {
		case 0:
			return "off"
		case 1:
			return "on"
		}
		return "" // -1: the driver does not tell
	}
	switch kind {
	case nl.IFLA_VF_MAC:
		if len(b) >= 10 {
			v.MAC = net.HardwareAddr(b[4:10]).String()
		}
	case nl.IFLA_VF_VLAN:
		v.VLAN, v.QoS = int(word(1)), int(word(2))
	case nl.IFLA_VF_VLAN_LIST:
		if info, err := attribute(b, nl.IFLA_VF_VLAN_INFO); err == nil && len(info) >= 14 {
			if binary.BigEndian.Uint16(info[12:]) == unix.ETH_P_8021AD {
				v.Proto = "802.1ad"
			}
		}
		return 0, false
	case nl.IFLA_VF_SPOOFCHK:
		v.Spoofchk = toggle()
	case nl.IFLA_VF_TRUST:
		v.Trust = toggle()
	case nl.IFLA_VF_LINK_STATE:
		if n := int(word(1)); n < len(linkStates()) {
			v.LinkState = linkStates()[n]
		}
	case nl.IFLA_VF_RATE:
		v.MinRate, v.MaxRate = int(word(1)), int(word(2))
	default:
		return 0, false
	}
	return int(word(0)), len(b) >= 8
}

// SetVF implements Kernel.
func (k *NetlinkKernel) SetVF(pf string, index int, a Attribute, v VFState) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = pf
	l := &netlink.Device{LinkAttrs: attrs}
	switch a {
	case AttributeMAC:
		mac, err := net.ParseMAC(v.MAC)
		if err != nil {
			return err
		}
		return k.route.LinkSetVfHardwareAddr(l, index, mac)
	case AttributeVLAN:
		if v.Proto == defaultProtocol {
			return k.route.LinkSetVfVlanQos(l, index, v.VLAN, v.QoS) // all drivers know that
		}
		return k.route.LinkSetVfVlanQosProto(l, index, v.VLAN, v.QoS, unix.ETH_P_8021AD)
	case AttributeSpoofchk:
		return k.route.LinkSetVfSpoofchk(l, index, v.Spoofchk == "on")
	case AttributeTrust:
		return k.route.LinkSetVfTrust(l, index, v.Trust == "on")
	case AttributeLinkState:
		for n, word := range linkStates() {
			if word == v.LinkState {
				return k.route.LinkSetVfState(l, index, uint32(n))
			}
		}
	case AttributeRate:
		return k.route.LinkSetVfRate(l, index, v.MinRate, v.MaxRate)
	}
	return fmt.Errorf("%s of a VF cannot be set to %+v: %w", a, v.part(a), unix.EINVAL)
}
