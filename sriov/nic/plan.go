package nic

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/portolan-cni/portolan/sriov"
)

// Wanted is what a physical function is to be.
type Wanted struct {
	VFs  int        // -1: as many as there are
	Mode sriov.Mode // "": as it is
	MTU  int        // in bytes; 0: as it is
	// Drivers of VFs by number: OwnDriver or "vfio-pci"; of others it stays.
	Drivers map[int]string
}

// OwnDriver is whichever driver the kernel has for a function itself.
const OwnDriver = "netdevice"

// Order is in which order a driver takes a change of mode and functions.
type Order string

// The orders. ModeFirst suits ice, newer mlx5 and netdevsim: no functions, mode,
// functions. FunctionsFirst suits older mlx5, which has no e-switch before there are
// functions: functions, unbound from their drivers, mode, bound again.
const (
	ModeFirst      Order = "mode-first"
	FunctionsFirst Order = "functions-first"
)

// Op is what a step does.
type Op string

// The operations.
const (
	SetVFs     Op = "functions"
	SetMode    Op = "mode"
	SetUp      Op = "up"
	SetMTU     Op = "mtu"
	SetOffload Op = "hw-tc-offload"
	Unbind     Op = "unbind"
	Bind       Op = "bind"
)

// Step is one change of a NIC.
type Step struct {
	Op     Op
	Number int    // of functions, or bytes
	VF     int    // that is bound or unbound
	Word   string // a mode, a driver, a network device
	was    string
}

// Takes reports whether a step takes functions from who has them: all of the NIC's, or
// one of them.
func (s Step) Takes() (all bool, vf int) {
	switch s.Op {
	case SetVFs, SetMode:
		return true, -1
	case Bind, Unbind:
		return false, s.VF
	}
	return false, -1
}

// String is the step as it is shown to people.
func (s Step) String() string {
	switch s.Op {
	case SetVFs:
		return fmt.Sprintf("set the number of VFs to %d (is %s)", s.Number, s.was)
	case SetMode:
		return fmt.Sprintf("set the e-switch's mode to %s (is %s)", s.Word, s.was)
	case SetUp:
		return fmt.Sprintf("bring %s up", s.Word)
	case SetMTU:
		return fmt.Sprintf("set the MTU of %s to %d (is %s)", s.Word, s.Number, s.was)
	case SetOffload:
		return fmt.Sprintf("turn hw-tc-offload of %s on", s.Word)
	case Unbind:
		return fmt.Sprintf("unbind VF %d from %s", s.VF, s.was)
	}
	return fmt.Sprintf("bind VF %d to %s (is %s)", s.VF, driverText(s.Word), s.was)
}

func driverText(word string) string {
	if word == OwnDriver {
		return "the NIC's own driver"
	}
	return word
}

// Offload is a network device's feature hw-tc-offload.
type Offload string

// The states of it.
const (
	On    Offload = "on"
	Off   Offload = "off"
	Fixed Offload = "off [fixed]" // its driver has none, or does not let it be turned on
)

// NIC is a physical function as it is found, with its VFs by number.
type NIC struct {
	PF      sriov.PF
	VFs     map[int]sriov.Device
	Offload map[string]Offload // of its network device and representors
}

// Plan lists the steps from what a NIC is to what is wanted; none when it is that. An
// error says what it can never be.
func Plan(n NIC, w Wanted, o Order) ([]Step, error) {
	p := &planner{nic: n, wanted: w, vfs: w.VFs, mode: w.Mode}
	if p.vfs < 0 {
		p.vfs = n.PF.VFs
	}
	if p.mode == "" {
		p.mode = n.PF.Mode
	}
	if n.PF.MaxVFs >= 0 && p.vfs > n.PF.MaxVFs {
		return nil, fmt.Errorf("PF %s: %d VFs are asked for, and it can have %d: ask for fewer, or raise the limit in the NIC's firmware", name(n.PF), p.vfs, n.PF.MaxVFs)
	}
	if err := n.fixed(p.mode); err != nil {
		return nil, err
	}
	switch {
	case p.mode != n.PF.Mode && o == FunctionsFirst:
		p.number(n.PF.VFs)
		if !n.PF.ESwitch {
			return p.steps, nil // once there are functions it is seen whether it has an e-switch
		}
		p.functionsFirst()
	case p.mode != n.PF.Mode:
		if n.PF.VFs > 0 {
			p.setVFs(n.PF.VFs, 0)
		}
		p.setMode()
		if p.vfs > 0 {
			p.setVFs(0, p.vfs)
		}
	default:
		p.number(n.PF.VFs)
	}
	p.finish()
	return p.steps, nil
}

// fixed says why a NIC cannot be brought to a mode, which is known before anything is
// taken from anybody: devlink has no e-switch of it. Old mlx5 has one only while there are
// functions.
func (n NIC) fixed(m sriov.Mode) error {
	pf := n.PF
	if m == pf.Mode || pf.ESwitch || pf.Driver == "mlx5_core" && pf.VFs == 0 {
		return nil
	}
	return fmt.Errorf("NIC %s, driver %s: mode %s is asked for, it is in %s mode, and devlink has no e-switch of it: nothing is changed; leave mode out, or choose other NICs (compare with devlink dev eswitch show %s/%s)",
		name(pf), pf.Driver, m, pf.Mode, pf.Bus, pf.ID)
}

func name(p sriov.PF) string {
	if p.Netdev == "" {
		return p.ID
	}
	return p.Netdev + " (" + p.ID + ")"
}

type planner struct {
	nic    NIC
	wanted Wanted
	vfs    int
	mode   sriov.Mode
	steps  []Step
	anew   bool // VFs are made anew, or their mode changes, so that nothing that is seen of them holds
}

func (p *planner) setVFs(was, n int) {
	p.steps = append(p.steps, Step{Op: SetVFs, Number: n, was: strconv.Itoa(was)})
	p.anew = true
}

func (p *planner) setMode() {
	p.steps = append(p.steps, Step{Op: SetMode, Word: string(p.mode), was: string(p.nic.PF.Mode)})
	p.anew = true
}

// number brings the number of VFs to what it is to be. A kernel takes no other number
// than 0 while there are some.
func (p *planner) number(now int) {
	if now == p.vfs {
		return
	}
	if now > 0 && p.vfs > 0 {
		p.setVFs(now, 0)
		now = 0
	}
	p.setVFs(now, p.vfs)
}

func (p *planner) functionsFirst() {
	for vf := range p.vfs {
		was := p.nic.VFs[vf].Driver
		if p.anew {
			was = "its driver"
		}
		if was != "" {
			p.steps = append(p.steps, Step{Op: Unbind, VF: vf, was: was})
		}
	}
	p.setMode()
	for vf := range p.vfs {
		word := OwnDriver
		if had := p.nic.VFs[vf]; had.Userspace() && p.nic.PF.VFs == p.vfs {
			word = had.Driver
		}
		if w := p.wanted.Drivers[vf]; w != "" {
			word = w
		}
		p.steps = append(p.steps, Step{Op: Bind, VF: vf, Word: word, was: "none"})
	}
}

// finish brings the rest to what it is to be: what needs nobody's leave first.
func (p *planner) finish() {
	pf := p.nic.PF
	if pf.Netdev != "" {
		if p.wanted.MTU > 0 && p.wanted.MTU != pf.MTU {
			p.steps = append(p.steps, Step{Op: SetMTU, Word: pf.Netdev, Number: p.wanted.MTU, was: strconv.Itoa(pf.MTU)})
		}
		if !pf.Up && p.vfs > 0 {
			p.steps = append(p.steps, Step{Op: SetUp, Word: pf.Netdev})
		}
	}
	if p.mode == sriov.Switchdev && !p.anew {
		for _, device := range slices.Sorted(maps.Keys(p.nic.Offload)) {
			if p.nic.Offload[device] == Off {
				p.steps = append(p.steps, Step{Op: SetOffload, Word: device})
			}
		}
	}
	if slices.ContainsFunc(p.steps, func(s Step) bool { return s.Op == Bind }) {
		return
	}
	for _, vf := range slices.Sorted(maps.Keys(p.wanted.Drivers)) {
		want, was := p.wanted.Drivers[vf], p.nic.VFs[vf].Driver
		switch {
		case vf >= p.vfs || want == "":
		case p.anew && want != OwnDriver:
			p.steps = append(p.steps, Step{Op: Bind, VF: vf, Word: want, was: "its own"})
		case p.anew:
		case want == OwnDriver && (was == "" || sriov.Device{Driver: was}.Userspace()) || want != OwnDriver && was != want:
			if was == "" {
				was = "none"
			}
			p.steps = append(p.steps, Step{Op: Bind, VF: vf, Word: want, was: was})
		}
	}
}
