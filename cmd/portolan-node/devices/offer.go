package devices

import (
	"fmt"
	"maps"
	"slices"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
	"github.com/portolan-cni/portolan/sriov/nic"
	"github.com/portolan-cni/portolan/sriov/plugin"
)

// offer lists the devices of all pools, each with why nobody can be given it.
func (r *round) offer() {
	for _, p := range r.pools {
		if s := r.states[p.Name]; p.Soft && !p.DryRun {
			for _, id := range s.devices {
				r.offerSoft(p, id)
			}
		} else if p.Soft {
			s.devices = nil
		}
	}
	for _, p := range r.nics {
		if p.running || len(p.nic.VFs) == 0 && p.err != nil {
			r.offerAsBefore(p)
			continue
		}
		for _, vf := range slices.Sorted(maps.Keys(p.nic.VFs)) {
			r.offerFunction(p, p.nic.VFs[vf])
		}
		for _, d := range r.scalable[p.nic.PF.ID] {
			r.offerFunction(p, d)
		}
	}
}

// put adds an offer; a device that another pool has offered is its.
func (r *round) put(o offer) {
	id := o.device.ID
	if _, taken := r.offers[id]; taken {
		return
	}
	if !r.verified {
		o.shown.Trouble = notVerified
	}
	if r.reserved[id] {
		o.shown.Trouble = isReserved
	}
	r.offers[id] = o
}

func (r *round) offerSoft(p *intent.DevicePool, id string) {
	d, err := r.config.Inventory.Resolve(id)
	d.ID, d.Kind = id, sriov.Soft
	o := offer{p, d, plugin.Device{ID: id, NUMA: -1, Info: map[string]map[string]string{"generic": {"deviceID": id, "kind": "soft"}}}}
	switch _, recorded := r.holders.records[id]; {
	case err != nil:
		o.shown.Trouble = err.Error()
	case d.Netdev == "" && !recorded:
		o.shown.Trouble = "its end for pods is in a network namespace that no record tells of"
	}
	r.put(o)
}

// offerAsBefore offers what a NIC had when it could be looked at last, to nobody.
func (r *round) offerAsBefore(p *planned) {
	r.mu.Lock()
	before := maps.Clone(r.Devices.offers)
	r.mu.Unlock()
	why := "its NIC is being configured"
	if p.err != nil {
		why = "its NIC cannot be looked at: " + p.err.Error()
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		o := before[id]
		if o.device.PF.ID != p.nic.PF.ID || r.states[o.pool.Name] == nil {
			continue
		}
		s := r.states[o.pool.Name]
		o.pool, o.shown.Trouble = s.pool, why
		s.devices = append(s.devices, id)
		r.put(o)
	}
}

// offerFunction offers a function by the first pool that it is of.
func (r *round) offerFunction(p *planned, d sriov.Device) {
	vf := deviceOf(d)
	for _, c := range p.claims {
		if vf < 0 && c.vfs != nil || vf >= 0 && !c.vfs.has(vf) {
			continue
		}
		s := r.states[c.pool.Name]
		s.devices = append(s.devices, d.ID)
		o := offer{c.pool, d, plugin.Device{ID: d.ID, NUMA: d.NUMA, PF: d.PF.ID}}
		files, err := r.config.Inventory.Files(d)
		o.shown.Info = info(d, files)
		o.shown.Files = wantedFiles(files, c.pool.RDMA)
		if o.shown.Trouble = r.trouble(p, c.pool, d); err != nil && o.shown.Trouble == "" {
			o.shown.Trouble = "its device files: " + err.Error()
		}
		r.put(o)
		return
	}
}

// trouble says why nobody can be given a function; "" it is well.
func (r *round) trouble(p *planned, pool *intent.DevicePool, d sriov.Device) string {
	s := pool
	_, recorded := r.holders.records[d.ID]
	here := d.Netdev != "" || d.Userspace() || d.Bus == "netdevsim" && d.Mode == sriov.Legacy
	switch {
	case p.takes(deviceOf(d)):
		return "its NIC is to be configured: " + p.steps[0].String()
	case d.Fault() != nil:
		return d.Fault().Error()
	case s.Mode != "" && d.Mode != sriov.Mode(s.Mode):
		return fmt.Sprintf("its NIC is in %s mode, and the pool asks for %s", d.Mode, s.Mode)
	case s.Driver == nic.OwnDriver && d.Userspace() || s.Driver != "" && s.Driver != nic.OwnDriver && d.Driver != s.Driver:
		return fmt.Sprintf("its driver is %s, and the pool asks for %s", d.Driver, s.Driver)
	case s.RDMA && len(d.RDMA) == 0 && !recorded:
		return "it has no RDMA device, and the pool asks for them: load the driver's RDMA module, or take rdma out"
	case len(d.VDPA) > 0:
		return fmt.Sprintf("a vDPA device was made of it (%s): remove it with vdpa dev del", d.VDPA[0])
	case d.PF.Netdev == "":
		return "its NIC has no network device here: look whether that was moved to another network namespace"
	case !d.PF.Carrier:
		return "its NIC " + nameOf(d.PF) + " has no link"
	case !here && !recorded && r.holders.by[d.ID] == "":
		return "its network device is in a network namespace that no record tells of: look who has it"
	}
	return ""
}

// info is what programs are told of a function, by topic.
func info(d sriov.Device, files map[string]string) map[string]map[string]string {
	out := map[string]map[string]string{"generic": {"deviceID": d.ID}}
	if d.PF.ID != "" {
		out["generic"]["pf"] = d.PF.ID
	}
	if d.Representor != "" {
		out["generic"]["representor"] = d.Representor
	}
	if files["group"] != "" {
		out["vfio"] = map[string]string{"mount": files["vfio"], "dev-mount": files["group"]}
	}
	if len(d.RDMA) > 0 {
		rdma := map[string]string{}
		for kind, path := range files {
			if kind != "vfio" && kind != "group" {
				rdma[kind] = path
			}
		}
		out["rdma"] = rdma
	}
	return out
}

// wantedFiles are those that a container gets: what vfio needs, and of RDMA where the
// pool says so.
func wantedFiles(files map[string]string, rdma bool) []plugin.File {
	var out []plugin.File
	for _, kind := range slices.Sorted(maps.Keys(files)) {
		if kind == "vfio" || kind == "group" || rdma {
			out = append(out, plugin.File{Host: files[kind]})
		}
	}
	return out
}

// declare tells the kubelet, and what looks devices up.
func (r *round) declare() {
	byResource := map[string][]plugin.Device{}
	for _, p := range r.pools {
		if !p.DryRun && !unread(p) {
			byResource[p.Resource] = nil
			r.known[p.Resource] = true
		}
	}
	names := map[string]bool{}
	for _, p := range r.nics {
		names[p.nic.PF.Netdev] = true
	}
	if err := r.writeCDI(); err != nil {
		r.log.Warn("the CDI file cannot be written: devices that need files are unwell", "err", err)
		for id, o := range r.offers {
			if o.shown.CDI != "" {
				o.shown.Trouble = "its CDI file: " + err.Error()
				r.offers[id] = o
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.offers)) {
		o := r.offers[id]
		byResource[o.pool.Resource] = append(byResource[o.pool.Resource], o.shown)
		names[o.device.Netdev], names[o.device.Representor] = true, true
	}
	delete(names, "")
	leaving := r.leaving()
	r.mu.Lock()
	r.Devices.offers, r.Devices.seen, r.Devices.leaving = r.offers, names, leaving
	r.mu.Unlock()
	r.cleanInfo()
	if r.plugins == nil {
		r.settle(r.reserved)
		return
	}
	list := make([]plugin.Resource, 0, len(byResource))
	for _, name := range slices.Sorted(maps.Keys(byResource)) {
		list = append(list, plugin.Resource{Name: name, Devices: byResource[name]})
	}
	if err := r.plugins.Declare(list); err != nil {
		r.log.Error("resources cannot be declared", "err", err)
		for _, s := range r.states {
			s.blame(v1alpha1.PoolFailed, err.Error())
		}
		r.settle(nil)
		return
	}
	r.settle(r.reserved)
}

// settle says that it is known what pools offer, and of which devices the kubelet has been
// told that they are the node's.
func (r *round) settle(kept map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept, r.looked = kept, r.verified
}

// leaving are the devices that are to be taken away, or given another driver.
func (r *round) leaving() map[string]bool {
	out := map[string]bool{}
	for _, id := range r.remove {
		out[id] = true
	}
	for _, p := range r.nics {
		for vf, d := range p.nic.VFs {
			out[d.ID] = p.takes(vf)
		}
		for _, d := range r.scalable[p.nic.PF.ID] {
			out[d.ID] = p.takes(deviceOf(d))
		}
	}
	return out
}
