package nic

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/portolan-cni/portolan/sriov"
)

// errPatience is of what has not come in time.
var errPatience = errors.New("it has not come in time")

// pause is how often what a step is for is looked at: drivers make functions one after
// another, in up to half a second each.
const pause = 50 * time.Millisecond

// wait returns when what a step is for is there. That functions have no driver or no
// network device after all that time is no error: the kernel may have no driver for them,
// and their faults say so.
func (c *Configurer) wait(ctx context.Context, pf sriov.PF, s Step) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Patience+time.Duration(max(s.Number, pf.VFs))*time.Second)
	defer cancel()
	again := time.NewTicker(pause)
	defer again.Stop()
	for {
		missing, hard, err := c.missing(pf, s)
		if err == nil && missing == "" {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			switch {
			case err != nil:
				return err
			case !hard:
				c.log.Warn("a NIC's functions are not complete", "pf", pf.ID, "missing", missing)
				return nil
			}
			return fmt.Errorf("%w: %s", errPatience, missing)
		}
	}
}

// missing is what a step's effect still lacks; hard, where nothing can be done without.
func (c *Configurer) missing(was sriov.PF, s Step) (what string, hard bool, err error) {
	pf, err := c.config.Inventory.PF(was.Bus, was.ID)
	if err != nil {
		return "", true, err
	}
	vfs, err := c.config.Inventory.VFs(pf)
	if err != nil {
		return "", true, err
	}
	switch s.Op {
	case SetVFs:
		if len(vfs) != s.Number {
			return fmt.Sprintf("there are %d VFs", len(vfs)), true, nil
		}
		return c.incomplete(vfs)
	case SetMode:
		if pf.Mode != sriov.Mode(s.Word) {
			return fmt.Sprintf("its mode is %s", pf.Mode), true, nil
		}
		if pf.Netdev == "" {
			return "it has no network device", false, nil
		}
		for n, id := range vfs {
			d, err := c.config.Inventory.Resolve(id)
			if err != nil {
				return "", true, err
			}
			if pf.Mode == sriov.Switchdev && d.Representor == "" {
				return fmt.Sprintf("VF %d (%s) has no representor", n, id), true, nil
			}
		}
	case Bind, Unbind:
		d, err := c.config.Inventory.Resolve(vfs[s.VF])
		if err != nil {
			return "", true, err
		}
		switch {
		case s.Op == Unbind && d.Driver != "":
			return fmt.Sprintf("its driver is %s", d.Driver), true, nil
		case s.Op == Bind && s.Word != OwnDriver && d.Driver != s.Word:
			return fmt.Sprintf("its driver is %q", d.Driver), true, nil
		case s.Op == Bind && s.Word == OwnDriver && d.Netdev == "":
			return "it has no network device", false, nil
		}
	}
	return "", false, nil
}

// incomplete is what new functions lack.
func (c *Configurer) incomplete(vfs map[int]string) (string, bool, error) {
	for n, id := range vfs {
		d, err := c.config.Inventory.Resolve(id)
		if err != nil {
			return "", true, err
		}
		switch {
		case d.Mode == sriov.Switchdev && d.Representor == "":
			return fmt.Sprintf("VF %d (%s) has no representor", n, id), true, nil
		case d.Driver == "":
			return fmt.Sprintf("VF %d (%s) has no driver", n, id), false, nil
		case d.Netdev == "" && !d.Userspace() && d.Bus == "pci":
			return fmt.Sprintf("VF %d (%s) has no network device", n, id), false, nil
		}
	}
	return "", false, nil
}
