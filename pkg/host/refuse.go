package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/pkg/host/dump"
)

// Refusal is a NIC that is not taken over, and what to do about it. It is the
// user's to act on.
type Refusal struct {
	NIC    string
	Reason string // why, as a clause
	File   string // to write; "" when no file helps
	Text   string // what to write into File
	Hint   string // what else to do
}

// Error says it all, over several lines when there is a file to write.
func (r *Refusal) Error() string {
	s := fmt.Sprintf("NIC %s is not taken over: %s.", r.NIC, r.Reason)
	if r.File != "" {
		s += fmt.Sprintf(" Write %s:\n%s", r.File, r.Text)
	}
	return s + " " + r.Hint
}

const forceHint = "Then start the agent again; or set spec.gateway.takeover to force in the Cluster file to take the NIC as it is."

// refuse finds out whether somebody else would put back what we take from a NIC.
func (k *Kernel) refuse(l netlink.Link, runDir string) error {
	if runDir == "" {
		runDir = "/run"
	}
	nic, index := l.Attrs().Name, l.Attrs().Index
	if state(filepath.Join(runDir, "NetworkManager/devices", fmt.Sprint(index)), "managed") == "true" {
		return &Refusal{NIC: nic, Reason: "NetworkManager manages it, and would put its addresses back",
			File: "/etc/NetworkManager/conf.d/05-portolan.conf",
			Text: "[keyfile]\nunmanaged-devices=interface-name:" + nic + ";interface-name:br-ex;interface-name:br-int;interface-name:ovn-k8s-mp0\n",
			Hint: "Give the NIC its address at boot by other means (ifupdown, or a oneshot unit). " + forceHint}
	}
	switch state(filepath.Join(runDir, "systemd/netif/links", fmt.Sprint(index)), "ADMIN_STATE") {
	case "", "unmanaged":
	default:
		return &Refusal{NIC: nic, Reason: "systemd-networkd manages it, and would put its addresses back",
			File: "/etc/systemd/network/05-portolan.network",
			Text: "[Match]\nName=" + nic + " br-ex br-int ovn-k8s-mp0\n[Link]\nUnmanaged=yes\n",
			Hint: "Give the NIC its address at boot by other means (ifupdown, or a oneshot unit). " + forceHint}
	}
	return k.refuseLease(l)
}

// refuseLease finds addresses that somebody has to renew. How long they have left is
// not said: a reason that reads otherwise at each start would be told each time.
func (k *Kernel) refuseLease(l netlink.Link) error {
	nic := l.Attrs().Name
	as, err := dump.Whole(func() ([]netlink.Addr, error) { return k.nl.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	for _, a := range as {
		p, ok := prefixOf(a.IPNet)
		if !ok || a.Flags&unix.IFA_F_PERMANENT != 0 || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		if p.Addr().Is6() {
			return &Refusal{NIC: nic, Reason: fmt.Sprintf("its address %s is from router advertisements or DHCPv6, and expires", p),
				File: "/etc/network/interfaces.d/" + nic, Text: fmt.Sprintf("iface %s inet6 static\n  address %s\n  accept_ra 0\n", nic, p),
				Hint: forceHint}
		}
		return &Refusal{NIC: nic, Reason: fmt.Sprintf("its address %s is a DHCP lease, which ends", p),
			File: "/etc/network/interfaces.d/" + nic, Text: fmt.Sprintf("auto %s\niface %s inet static\n  address %s\n", nic, nic, p) + gatewayLine(k, l),
			Hint: forceHint}
	}
	return nil
}

func gatewayLine(k *Kernel, l netlink.Link) string {
	g, err := k.describe(l)
	if err != nil {
		return ""
	}
	for _, hop := range g.NextHops() {
		if hop.Is4() {
			return "  gateway " + hop.String() + "\n"
		}
	}
	return ""
}

// unfit refuses links that cannot be a port of an OVS bridge. VLAN devices and
// bonds can: to OVS they are Ethernet devices like any other.
func unfit(l netlink.Link) error {
	a := l.Attrs()
	switch {
	case a.EncapType != "ether":
		return &Refusal{NIC: a.Name, Reason: "it is no Ethernet device but " + a.EncapType, Hint: "Name another as spec.gateway.interface in the Cluster file."}
	case l.Type() == "openvswitch", l.Type() == "tuntap":
		return &Refusal{NIC: a.Name, Reason: "it is a virtual port of its own (" + l.Type() + ") in no OVS bridge with a NIC",
			Hint: "Name the NIC as spec.gateway.interface in the Cluster file."}
	case l.Type() == "bridge":
		return &Refusal{NIC: a.Name, Reason: "it is a Linux bridge, which OVS cannot take in",
			Hint: "Move the address to the bridge's NIC, or to an OVS bridge, which would be used as it is."}
	case a.MasterIndex != 0:
		return &Refusal{NIC: a.Name, Reason: "it is a port of another device (bond, bridge or VRF)",
			Hint: "Name that device as spec.gateway.interface in the Cluster file if it is a bond; else take the NIC out of it."}
	}
	return nil
}

// state reads one key of a daemon's KEY=VALUE state file; "" when there is none.
func state(path, key string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && k == key {
			return v
		}
	}
	return ""
}
