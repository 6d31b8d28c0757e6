// Package nictest plays machines whose NICs can be configured. Input: a machine of
// sriovtest, and what its drivers are like. Output: nic.Machine, which keeps the
// machine's sysfs and devlink true to what is done, and refuses what those drivers refuse.
package nictest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/sriovtest"
)

// Machine plays the drivers of a machine's NICs.
type Machine struct {
	*sriovtest.Machine

	// OldMlx5 has no e-switch before there are functions, as kernels before 5.x.
	OldMlx5 bool
	// Busy functions keep their number and their mode from being changed.
	Busy bool
	// Fails makes an operation fail.
	Fails map[nic.Op]error
	// Driverless: the kernel has no driver for functions.
	Driverless bool
	// After is called after each operation.
	After func(what string)

	mu      sync.Mutex // guards what follows
	nics    map[string]*sriovtest.NIC
	done    []string
	offload map[string]nic.Offload
}

// New plays the drivers of a machine that is made of NICs.
func New(tree *sriovtest.Tree, nics ...sriovtest.NIC) *Machine {
	m := &Machine{Machine: sriovtest.NewMachine(tree, nics...), nics: map[string]*sriovtest.NIC{}, Fails: map[nic.Op]error{}, offload: map[string]nic.Offload{}}
	m.Devlink.Hides = m.hides
	for n := range nics {
		m.nics[nics[n].Address] = &nics[n]
		m.Write("class/net/"+nics[n].Netdev+"/flags", "0x1002")
		m.Write("class/net/"+nics[n].Netdev+"/type", "1")
		m.Write("bus/pci/devices/"+nics[n].Address+"/sriov_vf_device", strings.TrimPrefix(nics[n].VF, "0x"))
	}
	return m
}

// Done lists what was done, in order.
func (m *Machine) Done() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.done)
}

// hides reports whether a NIC's driver shows no e-switch.
func (m *Machine) hides(device string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.nics[device]
	return n != nil && m.OldMlx5 && n.Driver == "mlx5_core" && n.VFs == 0
}

func (m *Machine) begin(op nic.Op, format string, args ...any) (func(error) error, error) {
	m.mu.Lock()
	if err := m.Fails[op]; err != nil {
		m.mu.Unlock()
		return nil, err
	}
	return func(err error) error {
		if err == nil {
			m.done = append(m.done, fmt.Sprintf(format, args...))
		}
		m.mu.Unlock()
		if err == nil && m.After != nil {
			m.After(fmt.Sprintf(format, args...))
		}
		return err
	}, nil
}

// SetVFs implements nic.Machine.
func (m *Machine) SetVFs(_, pf string, count int) error {
	end, err := m.begin(nic.SetVFs, "%s: %d VFs", pf, count)
	if err != nil {
		return err
	}
	n := m.nics[pf]
	switch {
	case n == nil:
		return end(unix.ENODEV)
	case count > n.MaxVFs:
		return end(unix.ERANGE)
	case count > 0 && n.VFs > 0 || m.Busy:
		return end(unix.EBUSY)
	}
	m.remake(n, count, n.Mode)
	return end(nil)
}

// remake makes a NIC's functions anew.
func (m *Machine) remake(n *sriovtest.NIC, count int, mode sriov.Mode) {
	m.DropVFs(*n)
	if n.Mode != mode {
		n.Mode = mode
		m.SwitchNIC(*n)
	}
	n.VFs = count
	made := *n
	if m.Driverless {
		made.VFDriver = ""
	}
	m.MakeVFs(made)
}

// SetMode implements nic.Machine.
func (m *Machine) SetMode(_, pf string, mode sriov.Mode) error {
	end, err := m.begin(nic.SetMode, "%s: %s", pf, mode)
	if err != nil {
		return err
	}
	n := m.nics[pf]
	if n == nil {
		return end(unix.ENODEV)
	}
	drivers := make([]string, n.VFs)
	for vf := range drivers {
		drivers[vf] = m.VFDriverOf(*n, vf)
	}
	bound := slices.ContainsFunc(drivers, func(d string) bool { return d != "" })
	switch {
	case n.Silent:
		return end(fmt.Errorf("changing the e-switch: %w", unix.EOPNOTSUPP))
	case n.Driver == "ice" && n.VFs > 0:
		return end(fmt.Errorf("%w: Changing eswitch mode is allowed only if there is no VF created", unix.EOPNOTSUPP))
	case n.Driver == "mlx5_core" && m.OldMlx5 && n.VFs == 0:
		return end(fmt.Errorf("%w: no e-switch without VFs", unix.EOPNOTSUPP))
	case n.Driver == "mlx5_core" && bound, m.Busy:
		return end(unix.EBUSY)
	}
	m.remake(n, n.VFs, mode)
	for vf, d := range drivers {
		m.BindVF(*n, vf, d)
	}
	return end(nil)
}

// Unbind implements nic.Machine.
func (m *Machine) Unbind(_, id string) error {
	end, err := m.begin(nic.Unbind, "%s: unbound", id)
	if err != nil {
		return err
	}
	n, vf := m.find(id)
	if n == nil {
		return end(unix.ENODEV)
	}
	m.BindVF(*n, vf, "")
	return end(nil)
}

// Bind implements nic.Machine.
func (m *Machine) Bind(_, id, driver string) error {
	end, err := m.begin(nic.Bind, "%s: bound to %s", id, driver)
	if err != nil {
		return err
	}
	n, vf := m.find(id)
	if n == nil {
		return end(unix.ENODEV)
	}
	if driver == nic.OwnDriver {
		if driver = n.VFDriver; m.Driverless {
			driver = ""
		}
	}
	m.BindVF(*n, vf, driver)
	return end(nil)
}

func (m *Machine) find(id string) (*sriovtest.NIC, int) {
	for _, n := range m.nics {
		for vf := range n.VFs {
			if n.VFAddress(vf) == id {
				return n, vf
			}
		}
	}
	return nil, 0
}

// SetUp implements nic.Machine.
func (m *Machine) SetUp(netdev string) error {
	end, err := m.begin(nic.SetUp, "%s: up", netdev)
	if err != nil {
		return err
	}
	m.Write("class/net/"+netdev+"/flags", "0x1003")
	m.Write("class/net/"+netdev+"/carrier", "1")
	return end(nil)
}

// SetMTU implements nic.Machine.
func (m *Machine) SetMTU(netdev string, mtu int) error {
	end, err := m.begin(nic.SetMTU, "%s: MTU %d", netdev, mtu)
	if err != nil {
		return err
	}
	if mtu > 9978 {
		return end(unix.EINVAL)
	}
	m.Write("class/net/"+netdev+"/mtu", strconv.Itoa(mtu))
	return end(nil)
}

// Offload implements nic.Machine.
func (m *Machine) Offload(netdev string) (nic.Offload, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o := m.offload[netdev]; o != "" {
		return o, nil
	}
	return nic.Off, nil
}

// Fix has a network device without the feature.
func (m *Machine) Fix(netdev string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.offload[netdev] = nic.Fixed
}

// SetOffload implements nic.Machine.
func (m *Machine) SetOffload(netdev string) error {
	end, err := m.begin(nic.SetOffload, "%s: hw-tc-offload", netdev)
	if err != nil {
		return err
	}
	if m.offload[netdev] == nic.Fixed {
		return end(unix.EINVAL)
	}
	m.offload[netdev] = nic.On
	return end(nil)
}
