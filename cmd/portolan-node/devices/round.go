package devices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
)

// round is one look at everything.
type round struct {
	*Devices
	pools    []*intent.DevicePool
	verified bool
	reserved map[string]bool // by the node itself
	holders  holders
	nics     []*planned
	scalable map[string][]sriov.Device // scalable functions, by NIC
	states   map[string]*state         // by pool
	offers   map[string]offer
	remove   []string // soft devices that no pool has any more
}

// state is how a pool stands.
type state struct {
	pool    *intent.DevicePool
	reason  string // "": nothing is wrong so far
	message string
	steps   []string
	nics    int
	devices []string
}

// blame notes what is wrong; what was noted first holds.
func (s *state) blame(reason, message string) {
	if s.reason == "" {
		s.reason, s.message = reason, message
	}
}

// planned is what is to become of a NIC.
type planned struct {
	nic     nic.NIC
	claims  []claim // of pools that are carried out
	dry     []claim // of those that are not
	wanted  nic.Wanted
	key     string
	steps   []nic.Step
	running bool
	err     error // it cannot be looked at, or is not made what is asked for
}

// takes reports whether what is to be done takes a function from who has it.
func (p *planned) takes(vf int) bool {
	return slices.ContainsFunc(p.steps, func(s nic.Step) bool {
		all, one := s.Takes()
		return all || one == vf && vf >= 0
	})
}

// round looks at everything, and does what there is to do.
func (d *Devices) round(ctx context.Context) {
	d.reap()
	pools, verified, listed := d.selected()
	if !listed {
		return
	}
	r := &round{Devices: d, pools: pools, verified: verified, reserved: d.reserved(), states: map[string]*state{}, offers: map[string]offer{}}
	if d.idle(pools) {
		r.settle(r.reserved)
		return
	}
	for _, p := range pools {
		r.states[p.Name] = &state{pool: p}
		if p.Invalid != "" {
			r.states[p.Name].blame(v1alpha1.PoolFailed, p.Invalid)
		}
	}
	r.holders = d.holders(ctx)
	r.look()
	r.soft()
	r.offer()
	r.declare()
	if verified && (len(r.remove) > 0 || slices.ContainsFunc(r.nics, func(p *planned) bool { return len(p.steps) > 0 })) {
		r.holders = d.holders(ctx) // whoever was given a device before it was declared unwell
		r.act(ctx)
	}
	r.tell()
}

// idle reports whether there is nothing to do for pools on this node, and never was.
func (d *Devices) idle(pools []*intent.DevicePool) bool {
	if len(pools)+len(d.known) > 0 {
		return false
	}
	left, err := d.config.Inventory.SoftDevices(d.config.Soft.Group)
	return err == nil && len(left) == 0
}

// look finds the NICs that pools are of, and what they are to be.
func (r *round) look() {
	if !slices.ContainsFunc(r.pools, func(p *intent.DevicePool) bool { return !p.Soft && !unread(p) }) {
		return
	}
	pfs, err := r.config.Inventory.PFs()
	if err != nil {
		r.log.Warn("not all NICs can be looked at", "err", err)
	}
	r.scalable = r.scalables()
	names := make([]string, len(pfs))
	for n, p := range pfs {
		names[n] = p.Netdev
	}
	for _, pf := range pfs {
		p := &planned{nic: nic.NIC{PF: pf}}
		for _, pool := range r.pools {
			s := r.states[pool.Name]
			vfs, ok := match(pool.NICs, pf, names)
			if pool.Soft || unread(pool) || !ok {
				continue
			}
			s.nics++
			if pool.DryRun {
				p.dry = append(p.dry, claim{pool, vfs})
			} else {
				p.claims = append(p.claims, claim{pool, vfs})
			}
		}
		if len(p.claims)+len(p.dry) > 0 {
			r.plan(p)
			r.nics = append(r.nics, p)
		}
	}
	for _, s := range r.states {
		if s.nics == 0 && !s.pool.Soft && !unread(s.pool) {
			text := "no NIC of this node is what spec.nics asks for: compare it with lspci -nn and ip -d link there, or choose other nodes by nodeSelector"
			if err != nil {
				text += fmt.Sprintf("; not all could be looked at: %v", err)
			}
			s.blame(v1alpha1.PoolNoNIC, text)
		}
	}
}

// plan decides what is to be done to a NIC, and tells its pools what stands against it.
func (r *round) plan(p *planned) {
	id := p.nic.PF.ID
	if p.running = r.jobs[id] != nil; p.running {
		r.blame(p.claims, v1alpha1.PoolConfiguring, "NIC "+nameOf(p.nic.PF)+" is being configured")
		return
	}
	if p.nic, p.err = r.config.NICs.Look(p.nic.PF); p.err != nil {
		r.blame(slices.Concat(p.claims, p.dry), v1alpha1.PoolFailed, p.err.Error())
		return
	}
	use := r.use(p.nic.PF)
	r.planDry(p, use)
	if len(p.claims) == 0 {
		return
	}
	var conflict string
	if p.wanted, conflict = combine(p.nic.PF, p.claims); conflict != "" {
		r.blame(p.claims, v1alpha1.PoolConflict, conflict)
		return
	}
	mend(p.nic, &p.wanted)
	p.key = keyOf(p.wanted)
	steps, err := r.config.NICs.Plan(p.nic, p.wanted)
	if err != nil {
		p.err = err
		r.blame(p.claims, v1alpha1.PoolFailed, err.Error())
		return
	}
	if len(steps) == 0 {
		delete(r.failed, id)
		return
	}
	r.steps(p.claims, steps)
	for _, s := range steps {
		if why := use.refuse(p.nic.PF, s); why != "" {
			p.err = errors.New(why)
			r.blame(p.claims, v1alpha1.PoolFailed, why)
			return
		}
	}
	// What a NIC has refused is tried again now and then, but not at the expense of
	// functions that pods have, or can be given as they are.
	if f, ok := r.failed[id]; ok && f.key == p.key && (r.config.Now().Before(f.until) || len(r.users(p, steps)) > 0) {
		p.err = f.err
		r.blame(p.claims, v1alpha1.PoolFailed, f.err.Error())
		return
	}
	p.steps = steps
}

// planDry tells pools of a dry run what would be done.
func (r *round) planDry(p *planned, use Use) {
	for n := range p.dry {
		claims := append(slices.Clone(p.claims), p.dry[n])
		slices.SortFunc(claims, func(a, b claim) int { return cmpNames(a.pool, b.pool) })
		want, conflict := combine(p.nic.PF, claims)
		steps, err := r.config.NICs.Plan(p.nic, want)
		if conflict == "" && err == nil {
			for _, s := range steps {
				if conflict = use.refuse(p.nic.PF, s); conflict != "" {
					break
				}
			}
		}
		s := r.states[p.dry[n].pool.Name]
		switch {
		case err != nil:
			s.blame(v1alpha1.PoolDryRun, "it could not be done: "+err.Error())
		case conflict != "":
			s.blame(v1alpha1.PoolDryRun, "it would not be done: "+conflict)
		}
		r.steps(p.dry[n:n+1], steps)
	}
}

// steps tells pools what is to be done to a NIC.
func (r *round) steps(claims []claim, steps []nic.Step) {
	for _, c := range claims {
		s := r.states[c.pool.Name]
		s.steps = append(s.steps, texts(steps)...)
	}
}

func (r *round) blame(claims []claim, reason, message string) {
	for _, c := range claims {
		r.states[c.pool.Name].blame(reason, message)
	}
}

// users are who has functions that steps take, each with what it has.
func (r *round) users(p *planned, steps []nic.Step) []string {
	var out []string
	probe := &planned{steps: steps}
	for _, vf := range slices.Sorted(maps.Keys(p.nic.VFs)) {
		if !probe.takes(vf) {
			continue
		}
		if who := r.who(r.holders, p.nic.VFs[vf].ID); who != "" {
			out = append(out, who+" ("+p.nic.VFs[vf].ID+")")
		}
	}
	for _, d := range r.scalable[p.nic.PF.ID] {
		if who := r.who(r.holders, d.ID); who != "" && probe.takes(deviceOf(d)) {
			out = append(out, who+" ("+d.ID+")")
		}
	}
	return out
}

// scalables are the scalable functions of the machine, by NIC.
func (d *Devices) scalables() map[string][]sriov.Device {
	all, err := d.config.Inventory.Devices()
	if err != nil {
		d.log.Warn("not all functions of NICs can be looked at", "err", err)
	}
	out := map[string][]sriov.Device{}
	for _, f := range all {
		if f.Kind == sriov.SF {
			out[f.PF.ID] = append(out[f.PF.ID], f)
		}
	}
	return out
}

// act carries out what there is to do, as far as nobody has what it takes.
func (r *round) act(ctx context.Context) {
	r.removeSoft()
	for _, p := range r.nics {
		if len(p.steps) == 0 {
			continue
		}
		users := r.users(p, p.steps)
		if len(users) > 0 && !r.without(p) {
			r.blame(p.claims, v1alpha1.PoolWaiting, fmt.Sprintf("NIC %s: to %s waits until it is not in use any more by %s; nobody new gets one of its functions meanwhile",
				nameOf(p.nic.PF), p.steps[0], joined(users)))
			continue
		}
		if len(users) > 0 {
			r.blame(p.claims, v1alpha1.PoolWaiting, fmt.Sprintf("NIC %s: other drivers wait until functions are not in use any more by %s", nameOf(p.nic.PF), joined(users)))
		} else {
			r.blame(p.claims, v1alpha1.PoolConfiguring, "NIC "+nameOf(p.nic.PF)+" is being configured")
		}
		r.start(ctx, p)
	}
}

// without leaves functions that are in use as they are, where the rest can be done: they
// are to have another driver, and nothing takes all. False: nothing is left to do.
func (r *round) without(p *planned) bool {
	for _, s := range p.steps {
		if all, _ := s.Takes(); all {
			return false
		}
	}
	w := p.wanted
	w.Drivers = maps.Clone(w.Drivers)
	for vf, d := range p.nic.VFs {
		if p.takes(vf) && r.who(r.holders, d.ID) != "" {
			delete(w.Drivers, vf)
		}
	}
	steps, err := r.config.NICs.Plan(p.nic, w)
	if err != nil || len(steps) == 0 {
		return false
	}
	p.wanted, p.key = w, keyOf(w)
	return true
}

// tell says how the pools stand.
func (r *round) tell() {
	tunnels := r.tunnelAddresses()
	registered := map[string]error{}
	if r.plugins != nil {
		for _, s := range r.plugins.States() {
			switch {
			case s.Registered:
				registered[s.Resource] = nil
			case s.Err != nil:
				registered[s.Resource] = s.Err
			default:
				registered[s.Resource] = errors.New("it is being registered with")
			}
		}
	}
	var out []v1alpha1.NodeDevicePool
	var counts []Count
	for _, p := range r.pools {
		s := r.states[p.Name]
		n := v1alpha1.NodeDevicePool{Name: p.Name, ObservedGeneration: p.Generation, Devices: int32(len(s.devices)), Steps: s.steps[:min(len(s.steps), 32)]}
		unwell := ""
		for _, id := range s.devices {
			if o := r.offers[id]; o.shown.Trouble == "" {
				n.Well++
			} else if unwell == "" {
				unwell = id + ": " + o.shown.Trouble
			}
			if r.holders.by[id] != "" {
				n.InUse++
			}
		}
		r.conclude(s, registered[p.Resource], unwell)
		n.Ready, n.Reason, n.Message = s.reason == "", s.reason, s.message
		if n.Ready && unwell != "" {
			n.Message = fmt.Sprintf("%d of %d devices are unwell: %s", n.Devices-n.Well, n.Devices, unwell)
		}
		out = append(out, n)
		if unread(p) {
			continue
		}
		for what, count := range map[string]int32{"well": n.Well, "unwell": n.Devices - n.Well, "used": n.InUse} {
			counts = append(counts, Count{p.Name, p.Resource, what, int(count)})
		}
	}
	if r.config.Figures != nil {
		r.config.Figures(counts)
	}
	r.mu.Lock()
	r.Devices.states = out
	r.mu.Unlock()
	if r.config.Tunneled != nil {
		r.config.Tunneled(tunnels)
	}
}

// conclude says what is left to say of a pool of which nothing was said yet.
func (r *round) conclude(s *state, registered error, unwell string) {
	switch {
	case s.pool.DryRun:
		if len(s.steps) == 0 {
			s.blame(v1alpha1.PoolDryRun, "nothing would be done to its NICs, and its devices would be offered")
		}
		s.blame(v1alpha1.PoolDryRun, fmt.Sprintf("%d steps would be done", len(s.steps)))
	case !r.verified:
		s.blame(v1alpha1.PoolConfiguring, notVerified)
	case registered != nil:
		s.blame(v1alpha1.PoolKubelet, registered.Error())
	case len(s.devices) > 0 && unwell != "" && !slices.ContainsFunc(s.devices, func(id string) bool { return r.offers[id].shown.Trouble == "" || r.reserved[id] }):
		s.blame(v1alpha1.PoolFailed, "no device is well: "+unwell)
	}
}

// notVerified is why nothing is done after a start.
const notVerified = "the agent has not looked through the records of devices yet"

func cmpNames(a, b *intent.DevicePool) int {
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}

// deviceOf is a function of a NIC that pods can be given: of a VF its number.
func deviceOf(d sriov.Device) int {
	if d.Kind == sriov.VF {
		return d.Index
	}
	return -1
}
