package devices

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// longestBase leaves four bytes of a label for "-255".
const longestBase = 8

// plain reports whether a label can begin with a text.
func plain(text string) bool { _, err := sriov.SoftID(text); return err == nil }

// softBase is what the labels of a pool's soft devices begin with: its name, or what is
// made of one that is too long for names of network devices.
func softBase(pool string) string {
	if len(pool) <= longestBase && plain(pool) {
		return pool
	}
	sum := sha256.Sum256([]byte(pool))
	first := pool[:min(len(pool), 3)]
	if !plain(first) {
		first = "p"
	}
	return first + hex.EncodeToString(sum[:])[:longestBase-len(first)]
}

// baseOf is what a soft device's label begins with.
func baseOf(id string) string {
	label := strings.TrimPrefix(id, "soft-")
	return label[:max(strings.LastIndexByte(label, '-'), 0)]
}

// soft makes the soft devices that are missing, and finds those that are too many.
func (r *round) soft() {
	wanted := map[string]bool{}
	bases, keep := map[string]*intent.DevicePool{}, map[string]bool{} // keep: a pool of that name may have them
	for _, p := range r.pools {
		s, base := r.states[p.Name], softBase(p.Name)
		if unread(p) {
			keep[base] = true
		}
		if !p.Soft {
			continue
		}
		if other := bases[base]; other != nil {
			s.blame(v1alpha1.PoolConflict, fmt.Sprintf("DevicePools %s and %s would both name their devices %s-N: give one another name", other.Name, p.Name, base))
			continue
		}
		bases[base] = p
		for n := range int(p.Count) {
			id, err := sriov.SoftID(base + "-" + strconv.Itoa(n))
			if err == nil {
				wanted[id] = true
				err = r.keepSoft(s, id)
			}
			if err != nil {
				s.blame(v1alpha1.PoolFailed, "soft device "+id+": "+err.Error())
			}
		}
	}
	if !r.verified {
		return
	}
	there, err := r.config.Inventory.SoftDevices(r.config.Soft.Group)
	if err != nil {
		r.log.Warn("soft devices cannot be listed", "err", err)
	}
	for _, id := range there {
		if !wanted[id] && !keep[baseOf(id)] {
			r.remove = append(r.remove, id)
		}
	}
}

// keepSoft makes a soft device what it is to be, as far as nobody has it.
func (r *round) keepSoft(s *state, id string) error {
	function, representor, err := sriov.SoftNames(id)
	if err != nil {
		return err
	}
	s.devices = append(s.devices, id)
	d, err := r.config.Inventory.Resolve(id)
	missing := sriov.IsNotFound(err)
	if err != nil && !missing {
		return err
	}
	_, recorded := r.holders.records[id]
	free := r.verified && !recorded && r.who(r.holders, id) == ""
	mtu := s.pool.MTU
	switch {
	case s.pool.DryRun && missing:
		s.steps = append(s.steps, "make soft device "+id)
		return nil
	case s.pool.DryRun || !r.verified || recorded:
		return nil
	case missing: // whoever the kubelet may have given it to: there is nothing to lose
	case d.Netdev == "" && free:
		// Its function's end is in a namespace that nobody has said anything of.
		if err := r.config.Kernel.RemoveSoft(representor); err != nil {
			return fmt.Errorf("removing what is left of it: %w", err)
		}
	case free && mtu > 0:
		return r.setMTU(mtu, function, representor)
	default:
		return nil
	}
	options := r.config.Soft
	options.MTU = mtu
	if err := r.config.Kernel.MakeSoft(function, representor, options); err != nil {
		return fmt.Errorf("making it: %w", err)
	}
	if err := r.config.Kernel.Mute(representor); err != nil {
		return errors.Join(fmt.Errorf("keeping the node from speaking on %s: %w", representor, err), r.config.Kernel.RemoveSoft(representor))
	}
	r.log.Info("soft device made", "device", id, "pool", s.pool.Name)
	return nil
}

// setMTU sets that of both ends.
func (r *round) setMTU(mtu int, ends ...string) error {
	host := r.config.Kernel.Host()
	for _, name := range ends {
		l, err := r.config.Kernel.Link(host, name)
		if err == nil && l.MTU != mtu {
			err = r.config.Kernel.Set(host, l.Index, sriov.Change{MTU: mtu})
		}
		if err != nil && !errors.Is(err, sriov.ErrNoLink) {
			return fmt.Errorf("setting the MTU of %s to %d: %w", name, mtu, err)
		}
	}
	return nil
}

// removeSoft takes those away that no pool has any more, and nobody else.
func (r *round) removeSoft() {
	for _, id := range r.remove {
		_, representor, err := sriov.SoftNames(id)
		if err != nil {
			continue
		}
		if holder := r.who(r.holders, id); holder != "" {
			r.keepLonger(id, holder)
			continue
		}
		if err := r.config.Kernel.RemoveSoft(representor); err != nil {
			r.log.Warn("a soft device that no pool has cannot be removed", "device", id, "err", err)
			continue
		}
		r.log.Info("soft device removed", "device", id)
	}
}

// keepLonger tells of a device that is one too many, and is somebody's.
func (r *round) keepLonger(id, holder string) {
	for _, p := range r.pools {
		if s := r.states[p.Name]; p.Soft && softBase(p.Name) == baseOf(id) {
			s.steps = append(s.steps, "remove soft device "+id)
			s.blame(v1alpha1.PoolWaiting, fmt.Sprintf("soft device %s is one too many: it goes when it is not in use any more by %s", id, holder))
		}
	}
}
