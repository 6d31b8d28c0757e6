package cnitest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
)

// Networks are layer3 networks in memory, each with one definition of its name in
// namespace "shop". A pod selects them by words NAME@INTERFACE[=ADDRESS|=MAC].
type Networks struct {
	mu      sync.Mutex // guards what follows
	list    map[string]*cni.Network
	changed chan struct{}
}

// NewNetworks makes networks, each with the node's subnet.
func NewNetworks(subnets map[string]string) (*Networks, error) {
	n := &Networks{list: map[string]*cni.Network{}, changed: make(chan struct{})}
	for name, text := range subnets {
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		pool, err := alloc.NewPool(alloc.PoolConfig{Subnets: []netip.Prefix{subnet}})
		if err != nil {
			return nil, err
		}
		n.list[name] = &cni.Network{Name: name, MTU: 1400, Addresses: cni.PoolAddresses{Pool: pool, Routes: []netip.Prefix{}}}
	}
	return n, nil
}

// Change changes a network, or makes it: nil takes it away.
func (n *Networks) Change(name string, w *cni.Network) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.list[name] = w; w == nil {
		delete(n.list, name)
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// Plan implements cni.Networks.
func (n *Networks) Plan(p cni.Pod) ([]cni.Wish, error) {
	var out []cni.Wish
	times := map[string]int{}
	for _, word := range strings.Fields(p.Selection) {
		name, rest, named := strings.Cut(word, "@")
		if !named {
			return nil, fmt.Errorf("selection %q: %q names no interface", p.Selection, word)
		}
		definition := "shop/" + name
		w := cni.Wish{Pod: p, Key: cni.KeyOf(definition, times[definition])}
		times[definition]++
		var asked string
		if w.IfName, asked, named = strings.Cut(rest, "="); named {
			if mac, err := net.ParseMAC(asked); err == nil {
				w.MAC = mac
			} else if a, err := netip.ParseAddr(asked); err == nil {
				w.IPs = []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
			} else {
				w.DefaultRoute = asked == "default"
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// Attach implements cni.Networks.
func (n *Networks) Attach(w cni.Wish) (cni.Network, error) {
	name := strings.TrimPrefix(w.Definition(), "shop/")
	if found, ok := n.Named(name); ok {
		return found, nil
	}
	return cni.Network{}, &cni.PendingError{Reason: fmt.Sprintf("NetworkAttachmentDefinition %s does not exist", w.Definition())}
}

// Named implements cni.Networks.
func (n *Networks) Named(name string) (cni.Network, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w := n.list[name]; w != nil {
		return *w, true
	}
	return cni.Network{}, false
}

// All implements cni.Networks.
func (n *Networks) All() []cni.Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []cni.Network
	for _, name := range slices.Sorted(maps.Keys(n.list)) {
		out = append(out, *n.list[name])
	}
	return out
}

// Changed implements cni.Networks.
func (n *Networks) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}
