package devices

import (
	"context"
	"slices"

	"github.com/portolan-cni/portolan/sriov"
)

// Node is what the node itself has of devices, by their ids.
type Node struct {
	Reserved []string // pods are given none of these
	Taken    string   // the one of them that is in use; "": none
}

// theNode is who has a device that is in use by the node itself.
const theNode = "the node's management port"

// Candidate is a device that pools offer, for the node itself to choose from.
type Candidate struct {
	ID, Pool string
	Trouble  string // why it is unwell; "": it is well, or Kept, which is all that is known then
	Kept     bool   // reserved, and the kubelet has been told that no pod is to have it
	Leaving  bool   // it is to be taken away, or given another driver, as soon as nobody has it
}

// Candidates lists the devices of a resource in an order that stays as long as they do:
// by pool, NIC, kind and number.
func (d *Devices) Candidates(resource string) []Candidate {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []offer
	for _, o := range d.offers {
		if o.pool.Resource == resource {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, byPlace)
	out := make([]Candidate, len(list))
	for n, o := range list {
		out[n] = Candidate{ID: o.device.ID, Pool: o.pool.Name, Trouble: o.shown.Trouble, Kept: d.kept[o.device.ID], Leaving: d.leaving[o.device.ID]}
		if out[n].Kept {
			out[n].Trouble = ""
		}
	}
	return out
}

// Settled reports whether it is known what pools offer, and who has it.
func (d *Devices) Settled() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.looked
}

// Leaving reports whether a device is to be taken away as soon as nobody has it.
func (d *Devices) Leaving(device string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leaving[device]
}

// Holders tells who has devices now; "" nobody, or the node itself.
func (d *Devices) Holders(ctx context.Context) func(device string) string {
	h := d.holders(ctx)
	return func(device string) string {
		if who := d.who(h, device); who != theNode {
			return who
		}
		return ""
	}
}

// reserved are the devices that the node itself has, or is about to take.
func (d *Devices) reserved() map[string]bool {
	out := map[string]bool{}
	if d.config.Node == nil {
		return out
	}
	for _, name := range d.config.Node().Reserved {
		if id, err := sriov.CanonicalID(name); err == nil {
			out[id] = true
		}
	}
	return out
}

// taken is the device that the node itself uses; "": none.
func (d *Devices) taken() string {
	if d.config.Node == nil {
		return ""
	}
	id, err := sriov.CanonicalID(d.config.Node().Taken)
	if err != nil {
		return ""
	}
	return id
}

// isReserved is why no pod is given a device of the node's.
const isReserved = "it is " + theNode + ", by spec.managementPort of the Cluster file"

// Look has pools looked at soon: something of them has changed that no link tells.
func (d *Devices) Look() { d.ring() }
