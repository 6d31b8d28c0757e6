package sriovtest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

// VFs implements sriov.Kernel.
func (k *Kernel) VFs(name string) (map[int]sriov.VFState, error) {
	err := k.begin("VFs")
	defer k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	p := k.pfs[name]
	if p == nil {
		return nil, unix.ENODEV
	}
	return maps.Clone(p.vfs), nil
}

// SetVF implements sriov.Kernel.
func (k *Kernel) SetVF(name string, index int, a sriov.Attribute, v sriov.VFState) error {
	err := k.begin("SetVF")
	p := k.pfs[name]
	switch {
	case err != nil:
	case p == nil:
		err = unix.ENODEV
	default:
		now, ok := p.vfs[index]
		if err = p.refuses(a, v, k.Stubborn); err == nil && !ok {
			err = unix.EINVAL
		}
		if err == nil {
			p.vfs[index] = with(now, a, v)
		}
	}
	return k.done("SetVF "+string(a), err)
}

// refuses says what a driver does not do.
func (p *pf) refuses(a sriov.Attribute, v sriov.VFState, stubborn bool) error {
	switch {
	case a == sriov.AttributeMAC && stubborn && v.MAC == noMAC:
		return unix.EINVAL
	case p.driver == "igb" && a == sriov.AttributeLinkState, p.driver == "igb" && a == sriov.AttributeRate && v.MinRate > 0:
		return unix.EOPNOTSUPP
	case p.driver == "igb" && a == sriov.AttributeVLAN && v.Proto != "802.1q":
		return unix.EPROTONOSUPPORT
	case p.mode == sriov.Switchdev && (a != sriov.AttributeMAC || p.driver == "ice"):
		return unix.EOPNOTSUPP
	case a == sriov.AttributeRate && v.MaxRate != 0 && v.MinRate > v.MaxRate:
		return unix.EINVAL
	}
	return nil
}

func with(now sriov.VFState, a sriov.Attribute, v sriov.VFState) sriov.VFState {
	switch a {
	case sriov.AttributeMAC:
		now.MAC = v.MAC
	case sriov.AttributeVLAN:
		now.VLAN, now.QoS, now.Proto = v.VLAN, v.QoS, v.Proto
	case sriov.AttributeSpoofchk:
		now.Spoofchk = v.Spoofchk
	case sriov.AttributeTrust:
		now.Trust = v.Trust
	case sriov.AttributeLinkState:
		now.LinkState = v.LinkState
	case sriov.AttributeRate:
		now.MinRate, now.MaxRate = v.MinRate, v.MaxRate
	}
	return now
}

// Preset makes a VF's settings what somebody else has made them.
func (k *Kernel) Preset(name string, index int, v sriov.VFState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pfs[name].vfs[index] = v
}

// FunctionMAC implements sriov.Kernel.
func (k *Kernel) FunctionMAC(p sriov.Port) (string, error) {
	err := k.begin("FunctionMAC")
	defer k.mu.Unlock()
	return cmp.Or(k.functions[p.String()], noMAC), err
}

// SetFunctionMAC implements sriov.Kernel.
func (k *Kernel) SetFunctionMAC(p sriov.Port, mac net.HardwareAddr) error {
	err := k.begin("SetFunctionMAC")
	if err == nil {
		k.functions[p.String()] = mac.String()
	}
	return k.done("SetFunctionMAC", err)
}

// RDMAExclusive implements sriov.Kernel.
func (k *Kernel) RDMAExclusive() (bool, error) { return k.Exclusive, nil }

// RDMADevices implements sriov.Kernel.
func (k *Kernel) RDMADevices(ns sriov.Namespace) ([]string, error) {
	err := k.begin("RDMADevices")
	defer k.mu.Unlock()
	var out []string
	for name, r := range k.rdma {
		if r.in == spaceOf(ns) || !k.Exclusive {
			out = append(out, name)
		}
	}
	return out, err
}

// MoveRDMA implements sriov.Kernel.
func (k *Kernel) MoveRDMA(from sriov.Namespace, name string, to sriov.Namespace) error {
	err := k.begin("MoveRDMA")
	r := k.rdma[name]
	switch {
	case err != nil:
	case !k.Exclusive:
		err = unix.EOPNOTSUPP
	case r == nil || r.in != spaceOf(from):
		err = unix.ENODEV
	default:
		r.in = spaceOf(to)
	}
	return k.done("MoveRDMA", err)
}

// Offload implements sriov.Kernel.
func (k *Kernel) Offload(name string) (bool, error) {
	err := k.begin("Offload")
	defer k.mu.Unlock()
	return err == nil, err
}

// MakeSoft implements sriov.Kernel.
func (k *Kernel) MakeSoft(netdev, representor string, o sriov.SoftOptions) error {
	err := k.begin("MakeSoft")
	if err == nil && (k.taken(k.host, netdev, nil) || k.taken(k.host, representor, nil)) {
		err = unix.EEXIST
	}
	if err == nil {
		a, b := k.end(representor, o), k.end(netdev, o)
		a.group = o.Group
		a.peer, b.peer, a.Peer, b.Peer = b, a, b.Index, a.Index
		k.refresh(a)
		k.refresh(b)
	}
	return k.done("MakeSoft", err)
}

func (k *Kernel) end(name string, o sriov.SoftOptions) *link {
	l := &link{Link: sriov.Link{Index: k.next, Name: name, MTU: cmp.Or(o.MTU, 1500), Veth: true, MAC: fmt.Sprintf("0e:00:00:00:%02x:%02x", k.next>>8, k.next&0xff)}, in: k.host}
	k.next++
	k.host.links[l.Index] = l
	return l
}

// RemoveSoft implements sriov.Kernel.
func (k *Kernel) RemoveSoft(representor string) error {
	err := k.begin("RemoveSoft")
	for _, l := range k.sorted() {
		if err == nil && l.Name == representor {
			k.destroy(l)
		}
	}
	return k.done("RemoveSoft", err)
}

// Rename by udev: whatever is up.
func (k *Kernel) Udev(from, to string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.sorted() {
		if l.Name == from {
			l.Name = to
			k.refresh(l)
			return
		}
	}
	k.m.tb.Errorf("udev finds no %s", from)
}

// Unbind takes the driver of a VF away, and its network device with it, wherever that is.
func (k *Kernel) Unbind(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m.Bind("pci", id, "")
	for _, s := range k.spaces {
		for index, l := range s.links {
			if l.Parent == id {
				delete(s.links, index)
				l.in = nil
				k.refresh(l)
			}
		}
	}
}

// Reset makes a VF anew, as a reset of its PF does: with a network device of another MAC,
// under a name of the kernel's, in the node's namespace; its PF has forgotten all settings.
func (k *Kernel) Reset(id, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.spaces {
		for index, l := range s.links {
			if l.Parent != id {
				continue
			}
			delete(s.links, index)
			l.pf.vfs[l.vf] = sriov.VFState{MAC: noMAC, Proto: "802.1q", Spoofchk: "on", Trust: "off", LinkState: "auto"}
			l.Index, l.Name, l.MAC, l.MTU, l.Up, l.AltNames, l.in = k.next, name, fmt.Sprintf("0a:00:00:00:00:%02x", k.next), 1500, false, nil, k.host
			k.next++
			k.host.links[l.Index] = l
			k.refresh(l)
			return
		}
	}
	k.m.tb.Errorf("there is no network device of %s", id)
}

// Intrude gives a sandbox a device of its own.
func (k *Kernel) Intrude(path, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.paths[path]
	s.links[k.next] = &link{Link: sriov.Link{Index: k.next, Name: name, MTU: 1500, MAC: noMAC}, in: s}
	k.next++
}

// DropLink takes a device of the node away.
func (k *Kernel) DropLink(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.sorted() {
		if l.Name == name {
			delete(k.host.links, l.Index)
			l.in = nil
			k.refresh(l)
		}
	}
}

// Snapshot is everything that the node has, as text: what was given and taken back must
// leave it as it was. Indexes are not in it: a device that was made again has another.
func (k *Kernel) Snapshot() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out strings.Builder
	for _, l := range k.sorted() {
		names := slices.Sorted(slices.Values(l.AltNames))
		fmt.Fprintf(&out, "link %s %v mac %s mtu %d up %t alias %q\n", l.Name, names, l.MAC, l.MTU, l.Up, l.Alias)
	}
	for _, name := range slices.Sorted(maps.Keys(k.pfs)) {
		for n := range len(k.pfs[name].vfs) {
			fmt.Fprintf(&out, "vf %s %d %+v\n", name, n, k.pfs[name].vfs[n])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.rdma)) {
		if k.rdma[name].in == k.host {
			fmt.Fprintf(&out, "rdma %s\n", name)
		}
	}
	for _, port := range slices.Sorted(maps.Keys(k.functions)) {
		if mac := k.functions[port]; mac != noMAC {
			fmt.Fprintf(&out, "function %s %s\n", port, mac)
		}
	}
	return out.String()
}

// In lists the names of a sandbox's devices, with MAC and MTU.
func (k *Kernel) In(path string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	if s := k.paths[path]; s != nil {
		for _, l := range s.links {
			out = append(out, fmt.Sprintf("%s %s %d up %t", l.Name, l.MAC, l.MTU, l.Up))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// ErrPlugged is of a representor that is another owner's port.
var ErrPlugged = errors.New("the representor is another's port")
