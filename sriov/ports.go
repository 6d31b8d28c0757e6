package sriov

import (
	"errors"
	"regexp"
	"strconv"
	"sync"
)

// instance is what devlink calls a device.
type instance struct{ bus, device string }

// function is by what a port names the function that it is of.
type function struct {
	flavour Flavour
	pf, n   int
}

// table is one dump of ports, indexed.
type table struct {
	all      []Port
	byOwner  map[instance]map[function][]Port
	bySwitch map[string][]instance // by switch id
	uplinks  map[string]string     // netdev of a physical port, by the device that it is of
}

// portCache keeps the last dump. It is dropped by whoever finds it wrong.
type portCache struct {
	sys     sysfs
	devlink Devlink

	mu      sync.Mutex // guards what follows; held while the kernel is asked, so that many ask once
	current *table
}

// get returns the dump, which is made when there is none.
func (c *portCache) get() (*table, error) { return c.after(nil) }

// after returns a dump that is another than one that was found wrong.
func (c *portCache) after(wrong *table) (*table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && c.current != wrong {
		return c.current, nil
	}
	ports, err := c.devlink.Ports()
	if errors.Is(err, errors.ErrUnsupported) {
		ports, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &table{byOwner: map[instance]map[function][]Port{}, bySwitch: map[string][]instance{}, uplinks: map[string]string{}}
	for _, p := range ports {
		t.add(c.sys, p)
	}
	if err := c.addSysfs(t); err != nil {
		return nil, err
	}
	c.current = t
	return t, nil
}

func (c *portCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current = nil
}

func (t *table) add(sys sysfs, p Port) {
	t.all = append(t.all, p)
	if p.Flavour == Physical && p.Netdev != "" {
		// The instance may be an auxiliary device of the PF's (mlx5_core.eth.0).
		if of := sys.link(netdev(p.Netdev), "device"); of != "" {
			t.uplinks[of] = p.Netdev
		}
	}
	of := instance{p.Bus, p.Device}
	functions := t.byOwner[of]
	if functions == nil {
		functions = map[function][]Port{}
		t.byOwner[of] = functions
		if id := sys.switchID(p.Netdev); p.Netdev != "" && id != "" {
			t.bySwitch[id] = append(t.bySwitch[id], of)
		}
	}
	if p.External || p.Controller > 0 {
		return // another host's
	}
	f := function{p.Flavour, p.PF, p.VF}
	if p.Flavour == PCISF {
		f.n = p.SF
	}
	functions[f] = append(functions[f], p)
}

var portName = regexp.MustCompile(`^(?:p(\d+)|pf(\d+)(vf|sf)(\d+))$`)

// addSysfs adds the ports of drivers that say nothing to devlink, or of kernels without
// it, by the names that they give their devices: "p0", "pf0vf3", "pf0sf88". Those of
// other hosts ("c1pf0vf3") are not ours.
func (c *portCache) addSysfs(t *table) error {
	known := map[string]bool{}
	for _, p := range t.all {
		known[p.Netdev] = true
	}
	names, err := c.sys.names("class", "net")
	if err != nil {
		return err
	}
	for _, name := range names {
		of := c.sys.link(netdev(name), "device")
		if of == "" || known[name] {
			continue // a device that is no NIC's
		}
		m := portName.FindStringSubmatch(c.sys.optional(netdev(name), "phys_port_name"))
		if m == nil || c.sys.switchID(name) == "" {
			continue
		}
		p := Port{Bus: c.sys.link(netdev(name), "device", "subsystem"), Device: of, Netdev: name, Number: -1, PF: -1, VF: -1, SF: -1,
			IfIndex: c.sys.number(0, netdev(name), "ifindex")}
		n, _ := strconv.Atoi(m[1] + m[4])
		switch m[3] {
		case "vf":
			p.Flavour, p.VF = PCIVF, n
		case "sf":
			p.Flavour, p.SF = PCISF, n
		default:
			p.Flavour, p.Number = Physical, n
		}
		if m[2] != "" {
			p.PF, _ = strconv.Atoi(m[2])
		}
		t.add(c.sys, p)
	}
	return nil
}

// find lists the ports of a function of a PF: of the PF's own instance, else of those
// on the same e-switch, which may be another PF's.
func (t *table) find(pf PF, f function) []Port {
	own := t.byOwner[instance{pf.Bus, pf.ID}]
	if pf.Bus != "pci" { // its number is its own
		for number := range own {
			if number.flavour == f.flavour && number.n == f.n {
				return own[number]
			}
		}
		return nil
	}
	if found := own[f]; len(found) > 0 {
		return found
	}
	var out []Port
	if pf.SwitchID == "" {
		return nil
	}
	for _, of := range t.bySwitch[pf.SwitchID] {
		if of != (instance{pf.Bus, pf.ID}) {
			out = append(out, t.byOwner[of][f]...)
		}
	}
	return out
}

// holds reports whether a port's network device is still the one that the dump named.
func (c *portCache) holds(p Port) bool {
	return p.Netdev != "" && (p.IfIndex == 0 || c.sys.number(-1, netdev(p.Netdev), "ifindex") == p.IfIndex)
}
