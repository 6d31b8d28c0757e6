package sriov

import (
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func words(n ...uint32) []byte {
	var out []byte
	for _, w := range n {
		out = binary.NativeEndian.AppendUint32(out, w)
	}
	return out
}

// TestReadVFs: a list in which VF 1 is missing, as of a driver that tells nothing of it, and
// in which VF 2 has no spoof check.
func TestReadVFs(t *testing.T) {
	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST, nil)
	const unknown = ^uint32(0)
	for _, v := range []struct{ number, spoofchk, trust uint32 }{{0, 1, 0}, {2, unknown, unknown}} {
		vf := list.AddRtAttr(nl.IFLA_VF_INFO, nil)
		mac := make([]byte, 36)
		nl.NativeEndian().PutUint32(mac, v.number)
		copy(mac[4:], []byte{2, 0, 0, 0, 0, byte(v.number)})
		vf.AddRtAttr(nl.IFLA_VF_MAC, mac)
		vf.AddRtAttr(nl.IFLA_VF_VLAN, words(v.number, 100, 3))
		vlans := vf.AddRtAttr(nl.IFLA_VF_VLAN_LIST, nil)
		info := append(words(v.number, 100, 3), 0, 0)
		binary.BigEndian.PutUint16(info[12:], unix.ETH_P_8021AD)
		vlans.AddRtAttr(nl.IFLA_VF_VLAN_INFO, info)
		vf.AddRtAttr(nl.IFLA_VF_SPOOFCHK, words(v.number, v.spoofchk))
		vf.AddRtAttr(nl.IFLA_VF_TRUST, words(v.number, v.trust))
		vf.AddRtAttr(nl.IFLA_VF_LINK_STATE, words(v.number, 2))
		vf.AddRtAttr(nl.IFLA_VF_TX_RATE, words(v.number, 900))
		vf.AddRtAttr(nl.IFLA_VF_RATE, words(v.number, 10, 900))
		vf.AddRtAttr(nl.IFLA_VF_STATS, nil)
	}
	got := map[int]VFState{}
	if err := readVFs(list.Serialize()[4:], got); err != nil {
		t.Fatal(err)
	}
	first := VFState{MAC: "02:00:00:00:00:00", VLAN: 100, QoS: 3, Proto: "802.1ad", Spoofchk: "on", Trust: "off", LinkState: "disable", MinRate: 10, MaxRate: 900}
	second := first
	second.MAC, second.Spoofchk, second.Trust = "02:00:00:00:00:02", "", ""
	if diff := cmp.Diff(map[int]VFState{0: first, 2: second}, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzReadVFs: whatever a driver says, it is read or refused.
func FuzzReadVFs(f *testing.F) {
	f.Add([]byte{})
	f.Add(words(12<<16|1, 0, 0))
	f.Fuzz(func(_ *testing.T, b []byte) { _ = readVFs(b, map[int]VFState{}) })
}
