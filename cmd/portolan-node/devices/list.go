package devices

import (
	"cmp"
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
	offers := slices.SortedFunc(maps.Values(d.offers), byPlace)
	d.mu.Unlock()
	out := make([]Listed, len(offers))
	for n, o := range offers {
		out[n] = Listed{Pool: o.pool.Name, Resource: o.pool.Resource, Device: o.device, Trouble: o.shown.Trouble, Holder: h.by[o.device.ID]}
	}
	return out, h.err
}

// byPlace orders devices by pool, NIC, kind and number: soft-a-10 is after soft-a-9.
func byPlace(a, b offer) int {
	x, y := a.device, b.device
	return cmp.Or(strings.Compare(a.pool.Name, b.pool.Name), strings.Compare(x.PF.ID, y.PF.ID), strings.Compare(string(x.Kind), string(y.Kind)),
		x.Index-y.Index, len(x.ID)-len(y.ID), strings.Compare(x.ID, y.ID))
}
