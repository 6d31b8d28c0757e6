package assign

import (
	"net/netip"
	"slices"
	"time"

	"github.com/portolan-cni/portolan/pkg/alloc"
)

// Rest is what a deleted node had, and nobody gets yet.
type Rest struct {
	Node    string         `json:"node"`
	ID      int            `json:"id,omitempty"`
	Subnets []netip.Prefix `json:"subnets,omitempty"`
	Since   time.Time      `json:"since"`
}

// Record is what a leader leaves to the next one. It is written before a node is
// given anything that the record does not cover.
type Record struct {
	Rests []Rest `json:"rests,omitempty"`
	// How far ids and node subnets were ever given, as alloc counts it. A node that
	// is deleted while nobody leads leaves no rest; what it had is below these.
	ID      uint64   `json:"id,omitempty"`
	Subnets []uint64 `json:"subnets,omitempty"`
}

// Covers reports whether nothing has been given since r that r does not know of.
func (r Record) Covers(now Record) bool {
	if now.ID > r.ID || len(now.Subnets) > len(r.Subnets) {
		return false
	}
	for i, n := range now.Subnets {
		if n > r.Subnets[i] {
			return false
		}
	}
	return true
}

// Record is what the next leader has to know.
func (a *Assigner) Record() Record {
	return Record{Rests: slices.Clone(a.Rests()), ID: a.ids.High(), Subnets: a.subnets.High()}
}

// Rests lists what has not rested long enough.
func (a *Assigner) Rests() []Rest {
	a.rests = slices.DeleteFunc(a.rests, func(r Rest) bool { return a.now().Sub(r.Since) >= alloc.DefaultRest })
	return a.rests
}

// Resume puts to rest again what an earlier leader did: for the whole time, since
// its clock may differ. What a node has is not touched.
func (a *Assigner) Resume(list []Rest) {
	for _, r := range list {
		if a.now().Sub(r.Since) >= alloc.DefaultRest {
			continue
		}
		owner := "resting/" + r.Node // no node's name has a slash
		if r.ID != 0 && a.ids.Reserve(owner, r.ID) == nil {
			a.ids.Release(owner)
		}
		if len(r.Subnets) > 0 && a.subnets.Reserve(owner, r.Subnets) == nil {
			a.subnets.Release(owner)
		}
		a.rests = append(a.rests, r)
	}
}

// giveBack gives a node that comes back under its name what it had, if that rests
// still: to everybody who has not heard of its end it is the same node, and its
// pods and its agent, if they live, go on.
func (a *Assigner) giveBack(name string) {
	s := a.of(name)
	a.rests = slices.DeleteFunc(a.Rests(), func(r Rest) bool {
		if r.Node != name {
			return false
		}
		back := false
		if s.id == 0 && r.ID != 0 && a.ids.Reserve(name, r.ID) == nil {
			s.id, back = r.ID, true
		}
		if s.subnets == nil && len(r.Subnets) > 0 && a.subnets.Reserve(name, r.Subnets) == nil {
			s.subnets, s.foreign, back = r.Subnets, nil, true
		}
		return back
	})
}
