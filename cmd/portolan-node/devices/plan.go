package devices

import (
	"fmt"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
)

// claim is a pool's on a NIC.
type claim struct {
	pool *intent.DevicePool
	vfs  numbers
}

// combine is what pools ask of a NIC together: of VFs the most. A conflict says which two
// contradict each other, and in what.
func combine(p sriov.PF, claims []claim) (w nic.Wanted, conflict string) {
	w = nic.Wanted{VFs: -1, Drivers: map[int]string{}}
	var mode, mtu *intent.DevicePool
	contradicts := func(a, b *intent.DevicePool, what string, x, y any) string {
		return fmt.Sprintf("DevicePools %s and %s contradict each other on NIC %s: %s %v and %v; it is left as it is: say the same in both, or choose different NICs",
			a.Name, b.Name, nameOf(p), what, x, y)
	}
	for _, c := range claims {
		s := c.pool
		w.VFs = max(w.VFs, s.VFs)
		switch {
		case s.Mode == "":
		case mode == nil:
			mode, w.Mode = c.pool, sriov.Mode(s.Mode)
		case w.Mode != sriov.Mode(s.Mode):
			return w, contradicts(mode, c.pool, "mode", w.Mode, s.Mode)
		}
		switch {
		case s.MTU == 0:
		case mtu == nil:
			mtu, w.MTU = c.pool, s.MTU
		case w.MTU != s.MTU:
			return w, contradicts(mtu, c.pool, "mtu", w.MTU, s.MTU)
		}
	}
	return w, functions(p, &w, claims, contradicts)
}

// functions says which driver each VF is to have, and that no VF is of two resources.
func functions(p sriov.PF, w *nic.Wanted, claims []claim, contradicts func(a, b *intent.DevicePool, what string, x, y any) string) string {
	count := w.VFs
	if count < 0 {
		count = p.VFs
	}
	for vf := range count {
		var owner, by *intent.DevicePool
		for _, c := range claims {
			s := c.pool
			if !c.vfs.has(vf) {
				continue
			}
			if owner != nil && owner.Resource != s.Resource {
				return contradicts(owner, c.pool, fmt.Sprintf("VF %d is of resource", vf), owner.Resource, s.Resource)
			}
			owner = c.pool
			if s.Driver == "" {
				continue
			}
			if by != nil && by.Driver != s.Driver {
				return contradicts(by, c.pool, fmt.Sprintf("driver of VF %d", vf), by.Driver, s.Driver)
			}
			by, w.Drivers[vf] = c.pool, s.Driver
		}
	}
	return ""
}

// mend gives functions their own driver back that a change which was killed has left
// without: old mlx5 takes a mode only while functions have none.
func mend(n nic.NIC, w *nic.Wanted) {
	if n.PF.Driver != "mlx5_core" || n.PF.Mode != sriov.Switchdev {
		return
	}
	for vf, d := range n.VFs {
		if d.Driver == "" && w.Drivers[vf] == "" {
			w.Drivers[vf] = nic.OwnDriver
		}
	}
}

func nameOf(p sriov.PF) string {
	if p.Netdev == "" {
		return p.ID
	}
	return p.Netdev + " (" + p.ID + ")"
}

// Use is what a network device is for on this node.
type Use struct {
	Why  string // "it is the node's gateway NIC"
	Node bool   // the node itself is reached by it
}

// refuse says why a step is not done to a NIC that is in use; "" where it may.
func (u Use) refuse(p sriov.PF, s nic.Step) string {
	var why string
	switch s.Op {
	case nic.SetMode:
		why = "drivers make its network device anew for that, and what uses it would lose it"
	case nic.SetVFs, nic.SetMTU:
		if u.Node {
			why = "drivers may take its link down for that, and the node would be lost if it does not come back"
		}
	}
	if why == "" || u.Why == "" {
		return ""
	}
	return fmt.Sprintf("NIC %s: %s, so that Portolan does not %s: %s; do it before Portolan starts, as by a unit of the machine, and take it out of the pool; or choose another NIC", nameOf(p), u.Why, s, why)
}

// texts are steps as they are shown, at most as many as a status has.
func texts(steps []nic.Step) []string {
	const most = 32
	var out []string
	for _, s := range steps[:min(len(steps), most)] {
		out = append(out, s.String())
	}
	return out
}

// joined lists names, a few of many.
func joined(list []string) string {
	const some = 5
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:some], ", "), len(list)-some)
	}
	return strings.Join(list, ", ")
}
