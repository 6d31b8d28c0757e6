package devices

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portolan-cni/portolan/pkg/api/v1alpha1"
	"github.com/portolan-cni/portolan/pkg/intent"
	"github.com/portolan-cni/portolan/sriov"
)

// deepest is how many devices are looked at that lie on one another: a NIC, its bond, a
// VLAN, a bridge.
const deepest = 4

// use tells what a NIC is for, also by what lies on its network device.
func (r *round) use(p sriov.PF) Use {
	if r.config.Uses == nil || p.Netdev == "" {
		return Use{}
	}
	known := r.config.Uses()
	var found Use
	seen := map[string]bool{}
	level := []string{p.Netdev}
	for depth := range deepest {
		var above []string
		for _, name := range level {
			if seen[name] {
				continue
			}
			seen[name] = true
			u := known[name]
			if u.Why == "" && depth > 0 {
				u.Why = name + " lies on it"
			} else if u.Why != "" && depth > 0 {
				u.Why = fmt.Sprintf("it is below %s: %s", name, u.Why)
			}
			if u.Node || found.Why == "" {
				found = Use{cmp.Or(u.Why, found.Why), u.Node || found.Node}
			}
			above = append(above, r.uppers(name)...)
		}
		level = above
	}
	return found
}

// uppers are the network devices that lie on another.
func (r *round) uppers(name string) []string {
	entries, err := os.ReadDir(filepath.Join(r.config.Sys, "class/net", name))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if upper, ok := strings.CutPrefix(e.Name(), "upper_"); ok {
			out = append(out, upper)
		}
	}
	return out
}

// encap is the address that a device's tunnels begin at; zero: the node's.
func (d *Devices) encap(p *intent.DevicePool, dev sriov.Device) (netip.Addr, error) {
	name := p.Tunnel
	if name == v1alpha1.Uplink {
		name = cmp.Or(dev.PF.Bond, dev.PF.Netdev)
	}
	if p.Tunnel == "" || d.config.Addresses == nil {
		return netip.Addr{}, nil
	}
	if name == "" {
		return netip.Addr{}, fmt.Errorf("DevicePool %s: spec.tunnelInterface: NIC %s has no network device here: look whether it was moved to another network namespace", p.Name, dev.PF.ID)
	}
	list, err := d.config.Addresses(name)
	if err == nil && len(list) == 0 {
		err = errors.New("it has no address that tunnels can begin at: give it one of the tunnels' family")
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("DevicePool %s: spec.tunnelInterface: network device %s: %w", p.Name, name, err)
	}
	return list[0], nil
}

// tunnelAddresses are those that pools ask for; a pool whose address is not there is told.
func (r *round) tunnelAddresses() []netip.Addr {
	var out []netip.Addr
	ask := func(pool *intent.DevicePool, d sriov.Device) {
		ip, err := r.encap(pool, d)
		if err != nil {
			r.states[pool.Name].blame(v1alpha1.PoolFailed, err.Error())
		} else if ip.IsValid() {
			out = append(out, ip)
		}
	}
	for _, p := range r.nics {
		for _, c := range p.claims {
			ask(c.pool, sriov.Device{PF: p.nic.PF})
		}
	}
	for _, p := range r.pools {
		if p.Soft && !p.DryRun && !unread(p) {
			ask(p, sriov.Device{Kind: sriov.Soft})
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
