package networks_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-cni/portolan/cmd/portolan-node/networks"
	"github.com/portolan-cni/portolan/pkg/alloc"
	"github.com/portolan-cni/portolan/pkg/cni"
	"github.com/portolan-cni/portolan/pkg/intent"
)

func layer2(name string, subnets ...string) *intent.Network {
	n := &intent.Network{Name: name, ID: 4, Topology: intent.Layer2, Definitions: []string{"shop/" + name}}
	for _, s := range subnets {
		n.Subnets = append(n.Subnets, intent.NetworkSubnet{Prefix: netip.MustParsePrefix(s)})
	}
	return n
}

// wire makes a node that knows a network.
func onNetwork(t *testing.T, s *server, node string, n *intent.Network) *machine {
	t.Helper()
	m := newMachine(t, s, node, func(c *networks.Config) { c.Alive = func(string, string) bool { return true } })
	m.accept(n)
	return m
}

// wishOf is an interface of a pod on a network.
func wishOf(network, pod string) cni.Wish {
	return cni.Wish{Pod: cni.Pod{Namespace: "shop", Name: pod, UID: "uid-" + pod}, Key: "shop/" + network}
}

// give asks for what a pod of a name gets.
func (m *machine) give(t *testing.T, network, pod string, ips ...string) (cni.Grant, error) {
	t.Helper()
	w := wishOf(network, pod)
	for _, a := range ips {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			p = netip.PrefixFrom(netip.MustParseAddr(a), netip.MustParseAddr(a).BitLen())
		}
		w.IPs = append(w.IPs, p)
	}
	n, err := m.networks.Attach(w)
	if err != nil {
		t.Fatal(err)
	}
	return n.Addresses.Give(t.Context(), w)
}

// ask is give for an interface of several, or one that an IPAMClaim holds.
func (m *machine) ask(t *testing.T, pod, key, claim string) (cni.Grant, error) {
	t.Helper()
	w := cni.Wish{Pod: cni.Pod{Namespace: "shop", Name: pod, UID: "uid-" + pod}, Key: key, Claim: claim}
	n, err := m.networks.Attach(w)
	if err != nil {
		return cni.Grant{}, err
	}
	return n.Addresses.Give(t.Context(), w)
}

// hold has portolan-manager give IPAMClaims the places of a network that they hold.
func (s *server) hold(network string, places map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, claim := range slices.Sorted(maps.Keys(places)) {
		n, k := places[claim], s.key(network, places[claim]/64)
		if s.blocks[k] == nil {
			s.blocks[k] = &intent.Block{Network: network, Slot: n / 64}
		}
		s.blocks[k].Entries = append(s.blocks[k].Entries, intent.BlockEntry{
			Key: n + 1, Addresses: prefixes(fmt.Sprintf("10.2.0.%d/28", n)), Claim: "shop/" + claim,
		})
	}
}

func prefixes(s string) []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix(s)} }

func TestSharedAddresses(t *testing.T) {
	s := newServer()
	net := layer2("flat", "10.2.0.0/24", "fd02::/64")
	net.Exclude = []netip.Prefix{netip.MustParsePrefix("10.2.0.2/32")}
	net.Reserved = []netip.Prefix{netip.MustParsePrefix("10.2.0.3/32")}
	one, two := onNetwork(t, s, "one", net), onNetwork(t, s, "two", net)
	for _, c := range []struct {
		m    *machine
		pod  string
		ips  []string
		want string // addresses and key, or an error
	}{
		{one, "a", nil, "[10.2.0.1/24 fd02::1/64] key 2"},
		{one, "a", nil, "[10.2.0.1/24 fd02::1/64] key 2"},
		{one, "b", nil, "[10.2.0.4/24 fd02::4/64] key 5"},
		{two, "c", nil, "[10.2.0.64/24 fd02::40/64] key 65"},
		{two, "d", []string{"10.2.0.3"}, "[10.2.0.3/24 fd02::3/64] key 4"},           // reserved, in the other's block
		{two, "e", []string{"10.2.0.200/24"}, "[10.2.0.200/24 fd02::c8/64] key 201"}, // in nobody's block
		{two, "f", []string{"fd02::5"}, "[10.2.0.5/24 fd02::5/64] key 6"},
		{one, "g", []string{"10.2.0.5"}, "held by pod shop/f"},
		{one, "g", []string{"10.2.0.2"}, "is excluded"},
		{one, "g", []string{"10.3.0.2"}, "outside network flat's subnets (10.2.0.0/24, fd02::/64)"},
		{one, "g", []string{"10.2.0.7/16"}, "leave the length out"},
		{one, "g", []string{"10.2.0.7", "fd02::8"}, "not at the same place"},
		{one, "g", []string{"fd02::ffff:1"}, "not one of the first 32767"},
	} {
		g, err := c.m.give(t, "flat", c.pod, c.ips...)
		got := fmt.Sprintf("%v key %d", g.Addresses, g.TunnelKey)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s asks for %v: %s, want %s", c.pod, c.ips, got, c.want)
		}
	}
}

// TestSharedTunnelAddress: the tunnel address of an interface is in its block's entry,
// follows the interface to another NIC, and goes with the pod.
func TestSharedTunnelAddress(t *testing.T) {
	s := newServer()
	m := onNetwork(t, s, "one", layer2("flat", "10.2.0.0/24"))
	for _, encap := range []string{"", "172.19.0.3", "172.19.0.3", "172.20.0.3", ""} {
		w := wishOf("flat", "a")
		if encap != "" {
			w.Encap = netip.MustParseAddr(encap)
		}
		n, err := m.networks.Attach(w)
		if err != nil {
			t.Fatal(err)
		}
		g, err := n.Addresses.Give(t.Context(), w)
		if err != nil || g.Encap != w.Encap || g.TunnelKey != 2 {
			t.Errorf("with tunnel address %q: %+v, %v", encap, g, err)
		}
		e := s.blocks[s.key("flat", 0)].Entries[0]
		if e.Encap != w.Encap || e.Pod != "shop/a" {
			t.Errorf("with tunnel address %q the block says %+v", encap, e)
		}
	}
}

func TestSharedSmallAndWithoutAddresses(t *testing.T) {
	s := newServer()
	net := layer2("tiny", "10.2.0.0/29")
	one, two := onNetwork(t, s, "one", net), onNetwork(t, s, "two", net)
	var got []string
	for i := range 6 {
		m := one
		if i%2 == 1 {
			m = two
		}
		g, err := m.give(t, "tiny", fmt.Sprint("p", i))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, g.Addresses[0].String())
	}
	if slices.Sort(got); len(slices.Compact(got)) != 6 {
		t.Errorf("two of %v are one", got)
	}
	_, err := two.give(t, "tiny", "p7")
	if _, full := errors.AsType[*alloc.ExhaustedError](err); !full || !strings.Contains(err.Error(), "6 of 8 in use") {
		t.Error(err)
	}
	bare := layer2("bare")
	one, two = onNetwork(t, s, "one", bare), onNetwork(t, s, "two", bare)
	a, errA := one.give(t, "bare", "a")
	b, errB := two.give(t, "bare", "b")
	if errA != nil || errB != nil || len(a.Addresses) != 0 || a.TunnelKey != 1 || b.TunnelKey != 65 || a.MAC.String() == b.MAC.String() || !strings.HasPrefix(a.MAC.String(), "0a:58:") {
		t.Errorf("%+v %v, %+v %v", a, errA, b, errB)
	}
	if _, err := one.give(t, "bare", "c", "10.0.0.1"); err == nil || !strings.Contains(err.Error(), "outside network bare's subnets") {
		t.Error(err)
	}
}

// TestSharedRest has a place rest for a minute after its pod, and the block return.
func TestSharedRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		net := layer2("flat", "10.2.0.0/29")
		one := onNetwork(t, s, "one", net)
		if _, err := one.give(t, "flat", "a"); err != nil {
			t.Fatal(err)
		}
		w, _ := one.networks.Named("flat")
		if !w.Addresses.Free("uid-a shop/flat") || w.Addresses.Free("uid-a shop/flat") {
			t.Error("freed never or twice")
		}
		one.networks.Clean(t.Context())
		if e := s.blocks["flat.0"].Entries; len(e) != 1 || e[0].Pod != "" || e[0].UID != "" {
			t.Errorf("%+v does not rest", e)
		}
		if g, err := one.give(t, "flat", "b", "10.2.0.1"); err == nil || !strings.Contains(err.Error(), "rests for a minute") {
			t.Errorf("%+v %v", g, err)
		}
		one = onNetwork(t, s, "one", net) // a restart begins the rest anew
		one.networks.Clean(t.Context())
		<-time.After(50 * time.Second)
		one.networks.Clean(t.Context())
		if e := s.blocks["flat.0"].Entries; len(e) != 1 {
			t.Errorf("%+v", e)
		}
		<-time.After(11 * time.Second)
		one.networks.Clean(t.Context())
		if e := s.blocks["flat.0"].Entries; len(e) != 0 {
			t.Errorf("%+v", e)
		}
		one.networks.Clean(t.Context())
		<-time.After(121 * time.Second)
		one.networks.Clean(t.Context())
		if len(s.blocks) != 0 {
			t.Errorf("%+v is not returned", s.blocks)
		}
	})
}
