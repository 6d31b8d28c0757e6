package nic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-cni/portolan/sriov"
)

// Machine is every change of a NIC, one to a method. NewKernel and nictest.NewMachine
// make one. Errors are the kernel's own, with what the driver says.
type Machine interface {
	// SetVFs writes the number of virtual functions.
	SetVFs(bus, pf string, n int) error
	// SetMode changes the e-switch's mode.
	SetMode(bus, pf string, m sriov.Mode) error
	// Unbind takes a function from its driver.
	Unbind(bus, id string) error
	// Bind gives a function to a driver, from whichever it has: a name, or OwnDriver.
	Bind(bus, id, driver string) error
	SetUp(netdev string) error
	SetMTU(netdev string, mtu int) error
	// Offload tells of the feature hw-tc-offload, and SetOffload turns it on.
	Offload(netdev string) (Offload, error)
	SetOffload(netdev string) error
}

// Config is what a Configurer needs. Inventory and Machine are required.
type Config struct {
	Inventory *sriov.Inventory
	Machine   Machine
	// Patience is how long functions are waited for after a step: this, and a second for
	// each. 0: 30 s.
	Patience time.Duration
	Log      *slog.Logger // nil: slog.Default
}

// Configurer changes NICs. Its methods may be called from anywhere, for one NIC one at
// a time.
type Configurer struct {
	config Config
	log    *slog.Logger

	mu     sync.Mutex // guards orders
	orders map[string]Order
}

// New makes a Configurer.
func New(c Config) *Configurer {
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Configurer{config: c, log: c.Log, orders: map[string]Order{}}
}

// Look finds a NIC with its functions.
func (c *Configurer) Look(pf sriov.PF) (NIC, error) {
	n := NIC{PF: pf, VFs: map[int]sriov.Device{}, Offload: map[string]Offload{}}
	ids, err := c.config.Inventory.VFs(pf)
	if err != nil {
		return n, err
	}
	for vf, id := range ids {
		d, err := c.config.Inventory.Resolve(id)
		if err != nil {
			return n, err
		}
		n.VFs[vf] = d
	}
	if pf.Mode != sriov.Switchdev {
		return n, nil
	}
	devices := []string{pf.Netdev}
	for _, d := range n.VFs {
		devices = append(devices, d.Representor)
	}
	for _, device := range devices {
		if device == "" {
			continue
		}
		if n.Offload[device], err = c.config.Machine.Offload(device); err != nil {
			return n, fmt.Errorf("PF %s: asking for hw-tc-offload of %s: %w", name(pf), device, err)
		}
	}
	return n, nil
}

// Plan lists the steps that Apply would take.
func (c *Configurer) Plan(n NIC, w Wanted) ([]Step, error) { return Plan(n, w, c.order(n.PF)) }

// order is what a NIC has been found to need.
func (c *Configurer) order(p sriov.PF) Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.orders[p.ID]; o != "" {
		return o
	}
	return ModeFirst
}

func (c *Configurer) setOrder(p sriov.PF, o Order) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.orders[p.ID] = o
}

// rounds is how often what was done is looked at and, where it is not all, gone on with:
// making functions shows devices that have features and drivers of their own.
const rounds = 5

// Apply makes a NIC what is wanted. may is asked before each step, and ends all by its
// error: the step may take functions from who has them. nil: all may be done.
func (c *Configurer) Apply(ctx context.Context, bus, id string, w Wanted, may func(Step) error) error {
	var last []Step
	for range rounds {
		pf, err := c.config.Inventory.PF(bus, id)
		if err != nil {
			return err
		}
		n, err := c.Look(pf)
		if err != nil {
			return err
		}
		steps, err := c.Plan(n, w)
		if err != nil || len(steps) == 0 {
			return err
		}
		last = steps
		for _, s := range steps {
			if may != nil {
				if err := may(s); err != nil {
					return err
				}
			}
			err := c.step(ctx, pf, s)
			if err != nil && c.turn(pf, s, err) {
				break // the next round goes the other way
			}
			if err != nil {
				refused := &StepError{PF: name(pf), Driver: pf.Driver, Step: s, Err: err}
				return errors.Join(refused, c.putBack(ctx, n.PF, s))
			}
		}
	}
	return fmt.Errorf("PF %s: it does not stay as it is asked for: after %d rounds there is still to %s; look whether something else configures it, and at the kernel's log", id, rounds, last[0])
}

// putBack makes as many functions as a NIC had before a mode that its driver has refused:
// they were taken for that mode alone.
func (c *Configurer) putBack(ctx context.Context, had sriov.PF, refused Step) error {
	now, err := c.config.Inventory.PF(had.Bus, had.ID)
	if refused.Op != SetMode || had.VFs == 0 || err == nil && (now.VFs > 0 || now.Mode != had.Mode) {
		return nil
	}
	s := Step{Op: SetVFs, Number: had.VFs, was: "0"}
	if err == nil {
		err = c.step(ctx, now, s)
	}
	if err != nil {
		return fmt.Errorf("and its functions, which were removed for that, are not there again: %w", &StepError{PF: name(had), Driver: had.Driver, Step: s, Err: err})
	}
	return nil
}

// turn takes the other order for a driver that has no e-switch before there are
// functions: it says so by refusing the mode.
func (c *Configurer) turn(p sriov.PF, s Step, err error) bool {
	if s.Op != SetMode || p.Driver != "mlx5_core" || c.order(p) != ModeFirst || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
		return false
	}
	c.log.Info("the driver refuses the mode before there are functions: making them first", "pf", p.ID, "err", err)
	c.setOrder(p, FunctionsFirst)
	return true
}

// StepError is of a step that the kernel or the driver has refused, or whose effect has
// not come.
type StepError struct {
	PF, Driver string
	Step       Step
	Err        error
}

// Error names the NIC, the step, and what was answered.
func (e *StepError) Error() string {
	text := fmt.Sprintf("PF %s, driver %s: to %s: %v", e.PF, e.Driver, e.Step, e.Err)
	switch {
	case errors.Is(e.Err, errPatience):
		return text
	case e.Step.Op == SetMode && errors.Is(e.Err, errors.ErrUnsupported): // also where devlink knows no such NIC
		return text + "; this NIC or its driver has no such mode: leave mode out, or choose other NICs"
	case errors.Is(e.Err, unix.EBUSY):
		return text + "; something uses the functions: look for virtual machines, and programs outside pods"
	}
	return text + "; look at the kernel's log for what the driver says"
}

func (e *StepError) Unwrap() error { return e.Err }

func (c *Configurer) step(ctx context.Context, pf sriov.PF, s Step) error {
	c.log.Info("configuring a NIC", "pf", pf.ID, "step", s.String())
	if err := c.do(pf, s); err != nil {
		return err
	}
	if s.Op != SetUp && s.Op != SetMTU && s.Op != SetOffload {
		c.config.Inventory.Invalidate()
		return c.wait(ctx, pf, s)
	}
	return nil
}

func (c *Configurer) do(pf sriov.PF, s Step) error {
	m := c.config.Machine
	switch s.Op {
	case SetVFs:
		return m.SetVFs(pf.Bus, pf.ID, s.Number)
	case SetMode:
		return m.SetMode(pf.Bus, pf.ID, sriov.Mode(s.Word))
	case SetUp, SetMTU:
		// A change of mode may have made another network device.
		now, err := c.config.Inventory.PF(pf.Bus, pf.ID)
		if err != nil {
			return err
		}
		if s.Op == SetUp {
			return m.SetUp(now.Netdev)
		}
		return m.SetMTU(now.Netdev, s.Number)
	case SetOffload:
		return m.SetOffload(s.Word)
	}
	ids, err := c.config.Inventory.VFs(pf)
	if err != nil {
		return err
	}
	id, ok := ids[s.VF]
	if !ok {
		return fmt.Errorf("there is no VF %d", s.VF)
	}
	if s.Op == Unbind {
		d, err := c.config.Inventory.Resolve(id)
		if err != nil || d.Driver == "" {
			return err
		}
		return m.Unbind(pf.Bus, id)
	}
	return m.Bind(pf.Bus, id, s.Word)
}
