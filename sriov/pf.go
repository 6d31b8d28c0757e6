package sriov

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// pf reads a physical function.
func (i *Inventory) pf(bus, id string) (PF, error) {
	dir := device(bus, id)
	if !i.sys.exists(dir) {
		return PF{}, i.missing(bus, id)
	}
	p := PF{ID: id, Bus: bus, Driver: i.sys.link(dir, "driver"), Vendor: i.sys.optional(dir, "vendor"), Product: i.sys.optional(dir, "device"),
		NUMA: i.sys.number(-1, dir, "numa_node"), VFs: i.sys.number(0, dir, "sriov_numvfs"), MaxVFs: i.sys.number(-1, dir, "sriov_totalvfs")}
	p.RDMA, _ = i.sys.names(dir, "infiniband")
	if product := i.sys.optional(dir, "sriov_vf_device"); product != "" {
		p.VFProduct = "0x" + product
	}
	if routing, ok := routingID(id); ok && bus == "pci" {
		p.Number = routing & 7
	}
	if bus == "netdevsim" && p.Driver == "" {
		p.Driver = "netdevsim"
	}
	var err error
	if p.Netdev, err = i.uplink(dir, id); err != nil {
		return PF{}, err
	}
	if p.Netdev != "" {
		net := netdev(p.Netdev)
		p.SwitchID, p.MTU = i.sys.switchID(p.Netdev), i.sys.number(0, net, "mtu")
		p.Carrier = i.sys.optional(net, "carrier") == "1"
		p.Up, p.LinkType = i.up(p.Netdev), linkTypes()[i.sys.optional(net, "type")]
		if master := i.sys.link(net, "master"); i.sys.exists(netdev(master), "bonding") && master != "" {
			p.Bond = master
			p.BondMode, _, _ = strings.Cut(i.sys.optional(netdev(master), "bonding", "mode"), " ")
		}
	}
	p.Mode, p.ESwitch, err = i.mode(p)
	return p, err
}

// linkTypes are ARP hardware types (include/uapi/linux/if_arp.h) of NICs that have VFs.
func linkTypes() map[string]string { return map[string]string{"1": "ether", "32": "infiniband"} }

// up reports whether IFF_UP is set.
func (i *Inventory) up(name string) bool {
	flags, err := strconv.ParseUint(strings.TrimPrefix(i.sys.optional(netdev(name), "flags"), "0x"), 16, 32)
	return err == nil && flags&1 != 0
}

// mode of a PF's e-switch, and whether devlink has one. Where it knows none, the function
// is switched by the NIC alone, unless its device says that it is a port of a switch.
func (i *Inventory) mode(p PF) (m Mode, known bool, err error) {
	mode, err := i.devlink.Mode(p.Bus, p.ID)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		if p.SwitchID != "" && portName.MatchString(i.sys.optional(netdev(p.Netdev), "phys_port_name")) {
			return Switchdev, false, nil
		}
		return Legacy, false, nil
	case err != nil:
		return "", false, &DeviceError{p.ID, "devlink eswitch", err.Error(), "look at devlink dev eswitch show " + p.Bus + "/" + p.ID + ", and at the kernel's log", err}
	}
	return mode, true, nil
}

// functionPort is the port name of a representor: "pf0vf3", of another host's "c1pf0vf3".
var functionPort = regexp.MustCompile(`^(?:c\d+)?pf\d`)

// uplink finds a PF's own network device among those of its representors; "" where it
// is not here.
func (i *Inventory) uplink(dir, id string) (string, error) {
	t, err := i.ports.get()
	if err != nil {
		return "", err
	}
	if name := t.uplinks[id]; name != "" && i.sys.exists(dir, "net", name) {
		return name, nil
	}
	names, err := i.sys.names(dir, "net")
	if err != nil {
		return "", err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return functionPort.MatchString(i.sys.optional(netdev(n), "phys_port_name")) })
	if len(names) == 1 {
		return names[0], nil
	}
	var found []string
	for _, n := range names {
		if port := i.sys.optional(netdev(n), "phys_port_name"); port == "" || strings.HasPrefix(port, "p") {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", &DeviceError{id, i.sys.path(dir, "net"), "several network devices of its own: " + strings.Join(found, ", "),
		"use a NIC with one port a function", nil}
}

// PF reads one physical function.
func (i *Inventory) PF(bus, id string) (PF, error) { return i.pf(bus, id) }

// VFs are the ids of a PF's virtual functions that are there, by number.
func (i *Inventory) VFs(p PF) (map[int]string, error) {
	out := map[int]string{}
	if p.Bus != "pci" {
		for n := range p.VFs {
			out[n] = fmt.Sprintf("%s.vf%d", p.ID, n)
		}
		return out, nil
	}
	names, err := i.sys.names(device("pci", p.ID))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		number, ok := strings.CutPrefix(name, "virtfn")
		if n, err := strconv.Atoi(number); ok && err == nil {
			out[n] = i.sys.link(device("pci", p.ID), name)
		}
	}
	return out, nil
}

// PFs lists the physical functions that can have virtual or scalable ones, by bus and id.
func (i *Inventory) PFs() ([]PF, error) {
	var out []PF
	var errs []error
	for _, bus := range []string{"pci", "netdevsim"} {
		ids, err := i.sys.names("bus", bus, "devices")
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if !i.isPF(bus, id) {
				continue
			}
			p, err := i.pf(bus, id)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			out = append(out, p)
		}
	}
	return out, errors.Join(errs...)
}

// isPF: a NIC that can have VFs, or has an e-switch without any (a DPU's own side).
func (i *Inventory) isPF(bus, id string) bool {
	dir := device(bus, id)
	if i.sys.exists(dir, "physfn") {
		return false
	}
	if bus == "netdevsim" {
		return true
	}
	// Class 0x02: network controllers. Other devices have VFs, too.
	return strings.HasPrefix(i.sys.optional(dir, "class"), "0x02") && (i.sys.exists(dir, "sriov_totalvfs") || i.hasPorts(id))
}

func (i *Inventory) hasPorts(id string) bool {
	t, err := i.ports.get()
	return err == nil && len(t.byOwner[instance{"pci", id}]) > 0
}

// Devices lists every function there is: the VFs of each PF in their order, then
// scalable functions, then soft devices. Devices that cannot be read are in the error,
// and do not keep others from being listed.
func (i *Inventory) Devices() ([]Device, error) {
	pfs, err := i.PFs()
	errs := []error{err}
	var ids []string
	for _, p := range pfs {
		for n := range p.VFs {
			id := fmt.Sprintf("%s.vf%d", p.ID, n)
			if p.Bus == "pci" {
				id = i.sys.link(device("pci", p.ID), "virtfn"+strconv.Itoa(n))
			}
			if id != "" {
				ids = append(ids, id)
			}
		}
	}
	sfs, err := i.sys.names("bus", "auxiliary", "devices")
	errs = append(errs, err)
	for _, id := range sfs {
		if i.sys.exists(device("auxiliary", id), "sfnum") {
			ids = append(ids, id)
		}
	}
	soft, err := i.softIDs()
	errs = append(errs, err)
	var out []Device
	for _, id := range slices.Concat(ids, soft) {
		d, err := i.Resolve(id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, d)
	}
	return out, errors.Join(errs...)
}
