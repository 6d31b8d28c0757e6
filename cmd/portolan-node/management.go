package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/devices"
	"github.com/portolan-cni/portolan/pkg/host"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/pkg/rows"
	"github.com/portolan-cni/portolan/sriov"
)

// How often the management port's device is looked at: now and then, and while a switch
// from one port to the other is under way.
const (
	managementEvery = 2 * time.Second
	managementSoon  = 50 * time.Millisecond
)

// management has the node's management port be a function of a NIC where the plan names
// one, or the resource of pools that have one, and Open vSwitch's own port where it names
// none or no device can be it. It switches in an order in which the name is never on two
// links: the port leaves br-int, the function takes its name, or gives it back, and the
// other port comes.
type management struct {
	plan     intent.ManagementDevice
	node     string
	kernel   managementKernel
	pools    managementPools
	resolve  func(id string) (sriov.Device, error)
	selected func(intent.Labels) bool
	known    func() bool                 // the node's labels are
	port     func(host.ManagementDevice) // what is the port now; zero: Open vSwitch's own

	mu      sync.Mutex // guards the rest
	now     host.ManagementDevice
	picked  string // of the plan's resource, until it is now, or another is picked; "": none
	problem string
}

// managementKernel is *host.Kernel.
type managementKernel interface {
	ManagementDevice() (host.ManagementDevice, bool, error)
	ManagementHeld(host.ManagementDevice) bool
	TakeManagement(host.ManagementDevice) (bool, error)
	ReturnManagement() error
}

// devices are those that pods must not be given.
func (m *management) devices() devices.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := devices.Node{Taken: m.now.Device}
	for _, id := range []string{m.now.Device, m.picked, m.plan.Device} {
		if id != "" && (id != m.plan.Device || m.wanted()) {
			out.Reserved = append(out.Reserved, id)
		}
	}
	return out
}

// wanted reports whether this node's port is to be a device.
func (m *management) wanted() bool {
	return m.plan.Device+m.plan.Resource != "" && m.known() && m.selected(m.plan.Nodes)
}

func (m *management) problems() []rows.Problem {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.problem == "" {
		return nil
	}
	return []rows.Problem{{Object: "Node/" + m.node, Field: "spec.managementPort", Severity: rows.Error, Message: m.problem}}
}

// resume takes up what an earlier run has made, so that a restart changes nothing.
func (m *management) resume() error {
	d, found, err := m.kernel.ManagementDevice()
	if err != nil || !found || !m.kernel.ManagementHeld(d) {
		return err
	}
	m.now = d
	return nil
}

// run keeps the port until ctx ends.
func (m *management) run(ctx context.Context) error {
	for {
		pause := managementEvery
		done, err := m.look(ctx)
		m.say(err)
		if !done && err == nil {
			pause = managementSoon
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// say keeps what is wrong, and logs what is new.
func (m *management) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if text != m.problem && text != "" {
		slog.Warn("management port is not as spec.managementPort asks for", "err", err)
	}
	m.problem = text
}

// look does the next step towards what the plan says; false: another is to come.
func (m *management) look(ctx context.Context) (bool, error) {
	if !m.known() || m.plan.Resource != "" && !m.pools.Settled() {
		return true, nil
	}
	had, found, err := m.kernel.ManagementDevice()
	if err != nil {
		return true, err
	}
	want, wrong := host.ManagementDevice{}, error(nil)
	if m.wanted() {
		var soon bool
		if want, soon, wrong = m.choose(ctx, had); soon {
			return false, nil
		}
	}
	if found && had.Device != want.Device {
		if err := m.kernel.ReturnManagement(); err != nil {
			return true, err
		}
	}
	m.set(want)
	m.pick("")
	if want.Device == "" {
		return true, wrong
	}
	return m.kernel.TakeManagement(want)
}

// choose is the device that is to be the port; had is what is taken. Of an error none is.
// soon: it is not decided yet, and what is the port stays it meanwhile.
func (m *management) choose(ctx context.Context, had host.ManagementDevice) (d host.ManagementDevice, soon bool, err error) {
	if m.plan.Resource != "" {
		d, soon, err = m.ofPools(ctx, had)
	} else if d, err = m.find(m.plan.Device, had); err == nil && m.pools.Leaving(d.Device) {
		err = fmt.Errorf("device %s: its DevicePool takes it away, or has its NIC changed, as soon as nobody uses it", d.Device)
	}
	if err != nil {
		return host.ManagementDevice{}, soon, fmt.Errorf("%w; the management port is Open vSwitch's own meanwhile", err)
	}
	return d, soon, nil
}

// set has the port be a device's, or Open vSwitch's own.
func (m *management) set(d host.ManagementDevice) {
	m.mu.Lock()
	same := m.now.Device == d.Device && m.now.Representor == d.Representor
	m.now = d
	m.mu.Unlock()
	if !same {
		slog.Info("management port", "device", d.Device, "representor", d.Representor)
		m.port(d)
		m.pools.Look()
	}
}

// find is a device, fit to be the port. had is what is taken.
func (m *management) find(id string, had host.ManagementDevice) (host.ManagementDevice, error) {
	d, err := m.resolve(id)
	if err == nil {
		err = d.Fault()
	}
	if err != nil {
		return host.ManagementDevice{}, err
	}
	out := host.ManagementDevice{Device: d.ID, Netdev: d.Netdev, Representor: d.Representor, Virtual: d.Kind == sriov.Soft}
	if had.Device == d.ID && m.kernel.ManagementHeld(had) {
		out.Netdev = had.Netdev
	}
	switch {
	case out.Representor == "":
		return host.ManagementDevice{}, fmt.Errorf("device %s has no representor, which would be a port of br-int: have its NIC in switchdev mode", d.ID)
	case out.Netdev == "":
		return host.ManagementDevice{}, fmt.Errorf("device %s has no network device on the node: a pod has it, or its driver (%s) makes none; name a device that no pod has, bound to its NIC's driver", d.ID, d.Driver)
	}
	return out, nil
}

// current is what is the port now; zero: Open vSwitch's own.
func (m *management) current() host.ManagementDevice {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// newManagement makes the management port's keeper.
func (a *agent) newManagement() (*management, error) {
	m := &management{
		plan: a.facts.plan.Management, node: a.cfg.Node, kernel: a.kernel, port: a.switchManagement,
		selected: a.physical.selected, known: a.physical.labelled, pools: a.devices,
		resolve: a.devices.inventory.Resolve,
	}
	return m, m.resume()
}

// switchManagement has br-int have a device's representor, or a port of its own.
func (a *agent) switchManagement(d host.ManagementDevice) {
	a.machine.change(func(h *intent.Host) { h.Management = d.Representor })
	a.hosted.Lock()
	subnets, mac := a.hosted.subnets, a.hosted.mac
	a.hosted.Unlock()
	a.declareHost(subnets, mac)
}

// hosted is what the host's side was declared with last.
type hosted struct {
	sync.Mutex
	subnets []netip.Prefix
	mac     string // of the management port; "": of its address
}
