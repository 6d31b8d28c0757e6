package sriovtest

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	"github.com/portolan-cni/portolan/sriov"
)

// Devlink plays the kernel's.
type Devlink struct {
	// Hides tells that a device shows no e-switch now, whatever it has; nil: none does.
	Hides func(device string) bool

	mu     sync.Mutex // guards what follows
	ports  map[portKey]sriov.Port
	modes  map[[2]string]sriov.Mode
	dumps  int
	absent bool
}

type portKey struct {
	bus, device string
	index       uint32
}

// NewDevlink makes one that knows no device.
func NewDevlink() *Devlink {
	return &Devlink{ports: map[portKey]sriov.Port{}, modes: map[[2]string]sriov.Mode{}}
}

// Set makes a port, or changes it.
func (d *Devlink) Set(p sriov.Port) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ports[portKey{p.Bus, p.Device, p.Index}] = p
}

// Delete takes away the ports of a network device.
func (d *Devlink) Delete(netdev string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, p := range d.ports {
		if p.Netdev == netdev {
			delete(d.ports, k)
		}
	}
}

// SetMode makes an e-switch, or changes it.
func (d *Devlink) SetMode(bus, device string, m sriov.Mode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.modes[[2]string{bus, device}] = m
}

// Absent makes the kernel one without devlink.
func (d *Devlink) Absent() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.absent = true
}

// Dumps is how often all ports were asked for.
func (d *Devlink) Dumps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dumps
}

// Ports implements sriov.Devlink.
func (d *Devlink) Ports() ([]sriov.Port, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dumps++
	if d.absent {
		return nil, errors.ErrUnsupported
	}
	var out []sriov.Port
	for _, p := range d.ports {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b sriov.Port) int {
		return cmp.Or(cmp.Compare(a.Bus, b.Bus), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Index, b.Index))
	})
	return out, nil
}

// Mode implements sriov.Devlink.
func (d *Devlink) Mode(bus, device string) (sriov.Mode, error) {
	if d.Hides != nil && d.Hides(device) {
		return "", errors.ErrUnsupported
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.modes[[2]string{bus, device}]
	if !ok || d.absent {
		return "", errors.ErrUnsupported
	}
	return m, nil
}
