package devices

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/sriov"
)

// Listed is a device that a pool offers, as of the last round.
type Listed struct {
	Pool, Resource string
	Device         sriov.Device
	Trouble        string // why nobody can be given it; "": it is well
	Holder         string // "pod demo/web"; "": nobody has it
}

// List lists what pools offer, by pool and device. Its error is that it is not known who
// has them: the list is whole all the same.
func (d *Devices) List(ctx context.Context) ([]Listed, error) {
	h := d.holders(ctx)
	d.mu.Lock()
	offers := maps.Clone(d.offers)
	d.mu.Unlock()
	out := make([]Listed, 0, len(offers))
	for id, o := range offers {
		out = append(out, Listed{Pool: o.pool.Name, Resource: o.pool.Resource, Device: o.device, Trouble: o.shown.Trouble, Holder: h.by[id]})
	}
	slices.SortFunc(out, func(a, b Listed) int {
		if c := strings.Compare(a.Pool, b.Pool); c != 0 {
			return c
		}
		if a.Device.PF.ID == b.Device.PF.ID && a.Device.Index != b.Device.Index {
			return a.Device.Index - b.Device.Index
		}
		return strings.Compare(a.Device.PF.ID+" "+a.Device.ID, b.Device.PF.ID+" "+b.Device.ID)
	})
	return out, h.err
}
