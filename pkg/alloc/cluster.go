package alloc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// DefaultRest is how long a node's id and subnets rest after the node is gone.
const DefaultRest = 5 * time.Minute

// The range of node ids: what the addressing arithmetic of join and transit
// networks has room for.
const (
	FirstNodeID = 2 // 1 is ovn_cluster_router's place on the join switch
	LastNodeID  = 5000
)

// RestConfig says how long what was released rests.
type RestConfig struct {
	Rest time.Duration    // 0: DefaultRest; negative: not at all
	Now  func() time.Time // the clock; nil: time.Now
}

func (c RestConfig) defaults() RestConfig {
	if c.Rest == 0 {
		c.Rest = DefaultRest
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// The range of the ids of networks; the default network has 0.
const (
	FirstNetworkID = 1
	LastNetworkID  = 65000 // the tunnel keys of OVN's global range have room for these
)

// IDs allocates ids of nodes or of networks, the lowest that is free.
type IDs struct {
	of     string // "node", "network"
	advice string // where there is none left
	rest   RestConfig

	mu    sync.Mutex // guards slots
	slots *slots
}

// NewIDs makes an allocator of the ids first..last.
func NewIDs(first, last int, rest RestConfig) (*IDs, error) {
	if first < 0 || last < first {
		return nil, fmt.Errorf("node ids %d..%d: not a range", first, last)
	}
	return &IDs{
		of: "node", advice: "this cluster has as many nodes as Portolan's addressing allows",
		rest: rest.defaults(), slots: newSlots(uint64(first), uint64(last)),
	}, nil
}

// NewNetworkIDs makes an allocator of networks' ids.
func NewNetworkIDs(rest RestConfig) *IDs {
	return &IDs{
		of: "network", advice: "delete network attachment definitions that nothing uses",
		rest: rest.defaults(), slots: newSlots(FirstNetworkID, LastNetworkID),
	}
}

// Allocate gives a node or network an id: the one it has, or the lowest free one. Its
// error is an *ExhaustedError.
func (a *IDs) Allocate(owner string) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := a.slots.owned[owner]; ok {
		return int(n), nil
	}
	now := a.rest.Now()
	n, ok := a.slots.next(a.slots.first, now.Add(-a.rest.Rest))
	if !ok {
		e := exhausted(a.slots, a.of+" id", now, a.rest.Rest)
		e.From = fmt.Sprintf("%d..%d", a.slots.first, a.slots.last)
		e.Advice = a.advice
		return 0, e
	}
	a.slots.take(owner, n)
	return int(n), nil
}

// Reserve records an id that was given before.
func (a *IDs) Reserve(owner string, id int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if id < int(a.slots.first) || id > int(a.slots.last) {
		return fmt.Errorf("%s %s has id %d, outside %d..%d", a.of, owner, id, a.slots.first, a.slots.last)
	}
	if err := a.slots.reserve(owner, uint64(id)); err != nil {
		return fmt.Errorf("%s %s has id %d: %w", a.of, owner, id, err)
	}
	return nil
}

// Release puts the owner's id to rest; false when it has none.
func (a *IDs) Release(owner string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slots.release(owner, a.rest.Now())
}

// High is one more than the highest id that was ever given, as far as is known;
// 0: none was.
func (a *IDs) High() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slots.high
}

// Hush puts to rest what is free below an id: who had it, and until when, is not
// known.
func (a *IDs) Hush(below uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.slots.hush(below, a.rest.Now())
}

// ClusterSubnet is one of the prefixes that node subnets are carved from.
type ClusterSubnet struct {
	Prefix     netip.Prefix // 10.244.0.0/16
	HostPrefix int          // length of a node's subnet: 24
}

// Subnets allocates each node one subnet per IP family.
type Subnets struct {
	rest RestConfig

	mu       sync.Mutex // guards clusters
	clusters []*carving
}

type carving struct {
	ClusterSubnet
	slots *slots
}

// NewSubnets makes an allocator. Several cluster subnets of one family are used
// in their order, the next when the one before is full.
func NewSubnets(clusters []ClusterSubnet, rest RestConfig) (*Subnets, error) {
	if len(clusters) == 0 {
		return nil, errors.New("no cluster subnet to carve node subnets from")
	}
	s := &Subnets{rest: rest.defaults()}
	for i, c := range clusters {
		c.Prefix = c.Prefix.Masked()
		bits := c.HostPrefix - c.Prefix.Bits()
		if !c.Prefix.IsValid() || bits < 0 || c.Prefix.Addr().BitLen()-c.HostPrefix < 3 {
			return nil, fmt.Errorf("cluster subnet %s: host prefix /%d leaves no node a usable subnet", c.Prefix, c.HostPrefix)
		}
		if c.Prefix.Addr().Is6() && c.HostPrefix > 64 {
			return nil, fmt.Errorf("cluster subnet %s: host prefix /%d is longer than /64", c.Prefix, c.HostPrefix)
		}
		for _, d := range clusters[:i] {
			if c.Prefix.Overlaps(d.Prefix) {
				return nil, fmt.Errorf("cluster subnets %s and %s overlap", d.Prefix, c.Prefix)
			}
		}
		s.clusters = append(s.clusters, &carving{c, newSlots(0, 1<<min(bits, 20)-1)})
	}
	return s, nil
}

// Allocate gives the node a subnet of each family: those it has, or the lowest
// free ones. Its error is an *ExhaustedError.
func (s *Subnets) Allocate(node string) ([]netip.Prefix, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var picks []pick
	for _, is4 := range s.families() {
		p, err := s.pick(node, is4)
		if err != nil {
			return nil, err // nothing has been taken yet: all families or none
		}
		picks = append(picks, p)
	}
	out := make([]netip.Prefix, len(picks))
	for i, p := range picks {
		p.from.slots.take(node, p.n)
		out[i] = p.from.subnet(p.n)
	}
	return out, nil
}

type pick struct {
	from *carving
	n    uint64
}

func (s *Subnets) pick(node string, is4 bool) (pick, error) {
	now := s.rest.Now()
	total := &ExhaustedError{
		What: "node subnet", Advice: "add a cluster subnet, or use a longer host prefix for a new cluster",
	}
	for _, c := range s.clusters {
		if n, ok := c.slots.owned[node]; ok && c.Prefix.Addr().Is4() == is4 {
			return pick{c, n}, nil
		}
	}
	for _, c := range s.clusters {
		if c.Prefix.Addr().Is4() != is4 {
			continue
		}
		if n, ok := c.slots.next(0, now.Add(-s.rest.Rest)); ok {
			return pick{c, n}, nil
		}
		total.add(c, exhausted(c.slots, total.What, now, s.rest.Rest))
	}
	return pick{}, total
}

// families lists which there are, in the order of the configuration; true is IPv4.
func (s *Subnets) families() []bool {
	var out []bool
	for _, c := range s.clusters {
		if is4 := c.Prefix.Addr().Is4(); !slices.Contains(out, is4) {
			out = append(out, is4)
		}
	}
	return out
}

// Reserve records subnets that a node was given before. It fails, changing
// nothing, when one is not such a subnet or is another node's.
func (s *Subnets) Reserve(node string, subnets []netip.Prefix) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var picks []pick
	for _, sub := range subnets {
		p, ok := s.find(sub)
		if !ok {
			return fmt.Errorf("node %s has subnet %s, which is no part of the cluster's subnets", node, sub)
		}
		if other, ok := p.from.slots.used[p.n]; ok && other != node {
			return fmt.Errorf("node %s has subnet %s, which is node %s's", node, sub, other)
		}
		if old, ok := p.from.slots.owned[node]; ok && old != p.n {
			return fmt.Errorf("node %s has subnet %s, but also %s", node, sub, p.from.subnet(old))
		}
		picks = append(picks, p)
	}
	for _, p := range picks {
		p.from.slots.take(node, p.n)
	}
	return nil
}

func (s *Subnets) find(sub netip.Prefix) (pick, bool) {
	for _, c := range s.clusters {
		if !c.Prefix.Contains(sub.Addr()) || sub.Bits() != c.HostPrefix || sub.Masked() != sub {
			continue
		}
		return pick{c, c.index(sub.Addr())}, true
	}
	return pick{}, false
}

// Release puts the node's subnets to rest; false when it has none.
func (s *Subnets) Release(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, had := s.rest.Now(), false
	for _, c := range s.clusters {
		had = c.slots.release(node, now) || had
	}
	return had
}

// High is, for each cluster subnet, one more than the highest of its node subnets
// that was ever given, counted from 0.
func (s *Subnets) High() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]uint64, len(s.clusters))
	for i, c := range s.clusters {
		out[i] = c.slots.high
	}
	return out
}

// Hush puts to rest what is free below, for each cluster subnet: see IDs.Hush.
func (s *Subnets) Hush(below []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.clusters {
		if i < len(below) {
			c.slots.hush(below[i], s.rest.Now())
		}
	}
}

// subnet is the n-th of the cluster subnet. Node subnets are at most 64 bits
// long, so the arithmetic is in the address's first 64 bits (IPv4: its 32).
func (c *carving) subnet(n uint64) netip.Prefix {
	addr := c.Prefix.Addr()
	if addr.Is4() {
		return netip.PrefixFrom(offset(addr, n<<(32-c.HostPrefix)), c.HostPrefix)
	}
	b := addr.As16()
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+n<<(64-c.HostPrefix))
	return netip.PrefixFrom(netip.AddrFrom16(b), c.HostPrefix)
}

func (c *carving) index(addr netip.Addr) uint64 {
	if addr.Is4() {
		a, b := addr.As4(), c.Prefix.Addr().As4()
		return uint64(binary.BigEndian.Uint32(a[:])-binary.BigEndian.Uint32(b[:])) >> (32 - c.HostPrefix)
	}
	a, b := addr.As16(), c.Prefix.Addr().As16()
	return (binary.BigEndian.Uint64(a[:8]) - binary.BigEndian.Uint64(b[:8])) >> (64 - c.HostPrefix)
}

func exhausted(s *slots, what string, now time.Time, rest time.Duration) *ExhaustedError {
	e := &ExhaustedError{What: what, Size: s.size(), Used: len(s.used), Resting: len(s.resting)}
	if _, since, ok := s.oldest(); ok {
		e.Retry = since.Add(rest).Sub(now)
	}
	return e
}

func (e *ExhaustedError) add(c *carving, o *ExhaustedError) {
	if e.From != "" {
		e.From += ", "
	}
	e.From += fmt.Sprintf("%s by /%d", c.Prefix, c.HostPrefix)
	if o.Resting > 0 && (e.Resting == 0 || o.Retry < e.Retry) {
		e.Retry = o.Retry
	}
	e.Size, e.Used, e.Resting = e.Size+o.Size, e.Used+o.Used, e.Resting+o.Resting
}
