package host

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/portolan-cni/portolan/pkg/intent"
)

// The fields of a PhysicalNetwork that are judged.
const (
	wireName   = "metadata.name"
	wireNIC    = "spec.nic"
	wireBridge = "spec.bridge"
)

// judge says whether a physical network gets what it asks for.
func (w *Wires) judge(sw Switch, list []Wire, wire Wire) WireState {
	s := WireState{Network: wire.Network, Field: wireBridge}
	if wire.NIC != "" {
		s.Field = wireNIC
	}
	switch {
	case wire.Network == intent.GatewayNetwork:
		s.Field, s.Message = wireName, "the name "+wire.Network+" is the cluster's own, for the bridge of the nodes' addresses: give the physical network another"
	case wire.NIC != "":
		w.judgeNIC(&s, sw, list, wire)
	default:
		w.judgeBridge(&s, sw, wire)
	}
	if s.Bridge == "" || s.gone {
		return s
	}
	if s.Ready = mapped(sw, wire, s.Bridge); !s.Ready && s.Message == "" {
		s.pending, s.Message = true, "bridge "+s.Bridge+" is being made and mapped"
	}
	return s
}

// mapped reports whether Open vSwitch has all that a physical network needs.
func mapped(sw Switch, wire Wire, bridge string) bool {
	return slices.Contains(sw.Mappings, wire.Network+":"+bridge) && (wire.NIC == "" || sw.Bridges[bridge].Ports[wire.NIC].Number > 0)
}

// judgeNIC asks what must hold of a NIC before it is taken; of one that is taken
// only what keeps it from working.
func (w *Wires) judgeNIC(s *WireState, sw Switch, list []Wire, wire Wire) {
	bridge := intent.PhysicalBridgeName(wire.Network)
	l, err := w.cfg.Kernel.nl.LinkByName(wire.NIC)
	if port, ours := sw.Bridges[bridge].Ports[wire.NIC]; ours && sw.Bridges[bridge].Ours {
		s.Bridge = bridge
		switch {
		case err != nil:
			s.gone = true
			s.Message = fmt.Sprintf("NIC %s has gone from this machine: its bridge %s waits for it", wire.NIC, bridge)
		case port.Error != "":
			s.Message = fmt.Sprintf("ovs-vswitchd cannot open NIC %s: %s", wire.NIC, port.Error)
		case w.addressed(l) != "":
			s.Message = fmt.Sprintf("NIC %s has been given the address %s since it was taken, where nothing reaches it: remove it", wire.NIC, w.addressed(l))
		}
		return
	}
	if err != nil {
		s.Message = fmt.Sprintf("this machine has no NIC %s: it is taken when it comes; there are %s", wire.NIC, w.cfg.Kernel.candidates())
		return
	}
	if s.Message = w.claimed(sw, list, wire); s.Message == "" {
		s.Message = w.refuse(sw, l)
	}
	if s.Message == "" {
		s.Bridge = bridge
	}
}

// claimed says that another physical network wants the same NIC, or has it.
func (w *Wires) claimed(sw Switch, list []Wire, wire Wire) string {
	var others []string
	for _, o := range list {
		if o.NIC != wire.NIC || o.Network == wire.Network {
			continue
		}
		if _, has := sw.Bridges[intent.PhysicalBridgeName(o.Network)].Ports[wire.NIC]; has {
			return fmt.Sprintf("NIC %s is PhysicalNetwork %s's already: a NIC is on one wire; let localnets name that one", wire.NIC, o.Network)
		}
		others = append(others, o.Network)
	}
	if len(others) == 0 {
		return ""
	}
	return fmt.Sprintf("NIC %s is asked for by PhysicalNetwork %s too, and neither has it: a NIC is on one wire; remove one of them, or let their nodeSelectors not overlap", wire.NIC, strings.Join(others, ", "))
}

// refuse says why a NIC is not taken; "": it may be.
func (w *Wires) refuse(sw Switch, l netlink.Link) string {
	a := l.Attrs()
	no := func(reason, do string) string { return fmt.Sprintf("NIC %s is not taken: %s; %s", a.Name, reason, do) }
	const another = "name another NIC"
	if a.Name == w.cfg.Gateway.NIC || a.Name == w.cfg.Gateway.Bridge {
		return no("the node's own address is on it (gateway bridge "+w.cfg.Gateway.Bridge+")", another)
	}
	for _, name := range sortedBridges(sw) {
		if _, has := sw.Bridges[name].Ports[a.Name]; !has {
			continue
		}
		if sw.Bridges[name].Ours {
			return no("it is a port of Portolan's bridge "+name, another)
		}
		return no("it is in the OVS bridge "+name, "name that as spec.bridge in place of spec.nic")
	}
	switch {
	case a.EncapType != "ether":
		return no("it is no Ethernet device but "+a.EncapType, another)
	case a.Group == intent.AttachmentGroup:
		return no("it is a pod's", another)
	case l.Type() == "openvswitch", l.Type() == "tuntap":
		return no("it is a virtual port of its own ("+l.Type()+")", another)
	case l.Type() == "bridge":
		return no("it is a Linux bridge, which OVS cannot take in", "name the bridge's NIC, once it is out of the bridge")
	case l.Type() == "vrf":
		return no("it is a VRF", another)
	case a.MasterIndex != 0:
		return no("it is a port of "+w.master(a.MasterIndex), "take it out there, or name that if it is a bond")
	}
	if addr := w.addressed(l); addr != "" {
		return no("it has the address "+addr+", which would be cut off", "remove its addresses, here and where they are configured, if nothing uses them")
	}
	if daemon := w.managed(a.Index); daemon != "" {
		return no(daemon+" manages it, and would give it addresses", "make it unmanaged there")
	}
	return w.virtualFunction(a.Name)
}

func sortedBridges(sw Switch) []string {
	names := make([]string, 0, len(sw.Bridges))
	for name := range sw.Bridges {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// addressed is an address of a link, "" when it has none but link-local ones.
func (w *Wires) addressed(l netlink.Link) string {
	if as, err := w.cfg.Kernel.addresses(l); err == nil && len(as) > 0 {
		return as[0].String()
	}
	return ""
}

// master names the device that a link is a port of.
func (w *Wires) master(index int) string {
	if m, err := w.cfg.Kernel.nl.LinkByIndex(index); err == nil {
		return m.Type() + " " + m.Attrs().Name
	}
	return fmt.Sprintf("the device with index %d", index)
}

// managed is the daemon that configures a link, "" for none.
func (w *Wires) managed(index int) string {
	run := w.cfg.RunDir
	if run == "" {
		run = "/run"
	}
	if state(filepath.Join(run, "NetworkManager/devices", fmt.Sprint(index)), "managed") == "true" {
		return "NetworkManager"
	}
	switch state(filepath.Join(run, "systemd/netif/links", fmt.Sprint(index)), "ADMIN_STATE") {
	case "", "unmanaged":
		return ""
	}
	return "systemd-networkd"
}

// virtualFunction refuses an SR-IOV virtual function that has no representor: the
// NIC hands it frames for its own MAC alone, so a bridge behind it is deaf.
func (w *Wires) virtualFunction(nic string) string {
	sys := w.cfg.SysDir
	if sys == "" {
		sys = "/sys"
	}
	class := filepath.Join(sys, "class/net")
	device, err := filepath.EvalSymlinks(filepath.Join(class, nic, "device"))
	if err != nil {
		return "" // a device without hardware
	}
	pf, err := filepath.EvalSymlinks(filepath.Join(device, "physfn"))
	if err != nil {
		return "" // no virtual function
	}
	index := ""
	functions, _ := filepath.Glob(filepath.Join(pf, "virtfn*"))
	for _, f := range functions {
		if target, err := filepath.EvalSymlinks(f); err == nil && target == device {
			index = strings.TrimPrefix(filepath.Base(f), "virtfn")
		}
	}
	ports, _ := filepath.Glob(filepath.Join(pf, "net/*/phys_port_name"))
	for _, p := range ports {
		if b, err := os.ReadFile(p); err == nil && index != "" && strings.HasSuffix(strings.TrimSpace(string(b)), "vf"+index) {
			return ""
		}
	}
	return fmt.Sprintf("NIC %s is not taken: it is a virtual function without a representor, which hears frames for its own MAC alone; name its physical function, or switch that to switchdev mode", nic)
}

// judgeBridge asks what must hold of a bridge that is there.
func (w *Wires) judgeBridge(s *WireState, sw Switch, wire Wire) {
	b, found := sw.Bridges[wire.Bridge]
	switch {
	case wire.Bridge == w.cfg.Gateway.Bridge:
		s.Message = fmt.Sprintf("bridge %s has the node's addresses, and passes what is the node's or the cluster's alone: name a bridge with a NIC of its own, or spec.nic", wire.Bridge)
	case found && b.Ours:
		s.Message = fmt.Sprintf("bridge %s is Portolan's own: name a bridge of another's, or spec.nic", wire.Bridge)
	case !found:
		s.Message = fmt.Sprintf("Open vSwitch has no bridge %s on this node: make it (ovs-vsctl add-br), or name a NIC as spec.nic and have one made", wire.Bridge)
	case b.Datapath != w.cfg.Datapath:
		s.Message = fmt.Sprintf("bridge %s has datapath %q and the node's br-int %q, and nothing crosses between them: set its datapath_type", wire.Bridge, b.Datapath, w.cfg.Datapath)
	default:
		s.Bridge = wire.Bridge
	}
}
