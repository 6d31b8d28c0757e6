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

// DefaultQuarantine is how long a pod's address rests while others are free.
const DefaultQuarantine = 60 * time.Second

// firstPod is the offset of the first pod address in a node's subnet: .0 names
// the subnet, .1 is the gateway, .2 the management port.
const firstPod = 3

// maxHosts bounds what is handed out of one subnet, so that an offset in an
// IPv6 subnet stays a small number and addresses stay readable.
const maxHosts = 1 << 20

// PoolConfig describes a node's pool.
type PoolConfig struct {
	Subnets    []netip.Prefix   // the node's subnets, one per IP family
	Quarantine time.Duration    // how long a released address rests; 0: DefaultQuarantine; negative: not at all
	Now        func() time.Time // the clock; nil: time.Now
}

// Pool allocates pod addresses from a node's subnets, one per family, by pod UID.
type Pool struct {
	rest time.Duration
	now  func() time.Time

	mu       sync.Mutex // guards families
	families []*family
}

type family struct {
	subnet netip.Prefix
	slots  *slots
	cursor uint64 // where the next search begins: next-fit
}

// NewPool makes a pool with nothing allocated. It fails on a subnet without room
// for a pod and on two subnets of one family.
func NewPool(c PoolConfig) (*Pool, error) {
	p := &Pool{rest: c.Quarantine, now: c.Now}
	if p.rest == 0 {
		p.rest = DefaultQuarantine
	}
	if p.now == nil {
		p.now = time.Now
	}
	if len(c.Subnets) == 0 {
		return nil, errors.New("no node subnet to allocate pod addresses from")
	}
	for _, s := range c.Subnets {
		f, err := newFamily(s)
		if err != nil {
			return nil, err
		}
		for _, g := range p.families {
			if g.subnet.Addr().Is4() == s.Addr().Is4() {
				return nil, fmt.Errorf("node subnets %s and %s are of one family", g.subnet, s)
			}
		}
		p.families = append(p.families, f)
	}
	return p, nil
}

func newFamily(subnet netip.Prefix) (*family, error) {
	subnet = subnet.Masked()
	bits := subnet.Addr().BitLen() - subnet.Bits()
	if !subnet.IsValid() || bits < 3 {
		return nil, fmt.Errorf("node subnet %s is too small: at least 8 addresses are needed", subnet)
	}
	last := uint64(maxHosts)
	if bits < 20 {
		last = 1<<bits - 1
		if subnet.Addr().Is4() {
			last-- // the broadcast address
		}
	}
	return &family{subnet: subnet, slots: newSlots(firstPod, last), cursor: firstPod}, nil
}

// Allocate gives the pod an address of each family, with the subnet's length:
// those it already has, or new ones. Its error is an *ExhaustedError.
func (p *Pool) Allocate(uid string) ([]netip.Prefix, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	picks := make([]uint64, len(p.families))
	for i, f := range p.families {
		n, err := f.pick(uid, now, p.rest)
		if err != nil {
			return nil, err // nothing has been taken yet: all families or none
		}
		picks[i] = n
	}
	out := make([]netip.Prefix, len(picks))
	for i, f := range p.families {
		if _, had := f.slots.owned[uid]; !had {
			f.slots.take(uid, picks[i])
			f.cursor = picks[i] + 1
		}
		out[i] = f.address(picks[i])
	}
	return out, nil
}

func (f *family) pick(uid string, now time.Time, rest time.Duration) (uint64, error) {
	if n, ok := f.slots.owned[uid]; ok {
		return n, nil
	}
	if n, ok := f.slots.next(f.cursor, now.Add(-rest)); ok {
		return n, nil
	}
	// No room left: the quarantine is a courtesy to slow zones, not a reason to
	// refuse a pod.
	if n, _, ok := f.slots.oldest(); ok {
		return n, nil
	}
	return 0, &ExhaustedError{
		What: "pod address", From: f.subnet.String(), Size: f.slots.size(), Used: len(f.slots.used),
		Advice: "lower the kubelet's maxPods, or give nodes larger subnets (cluster network hostPrefix)",
	}
}

// AllocateOf is Allocate for an owner that asks for addresses of its own: one of a
// family at most; of the other it gets any. The prefixes' length is not regarded.
func (p *Pool) AllocateOf(owner string, asked []netip.Prefix) ([]netip.Prefix, error) {
	if len(asked) == 0 {
		return p.Allocate(owner)
	}
	p.mu.Lock()
	picks := make(map[*family]uint64, len(asked))
	for _, a := range asked {
		if err := p.ask(owner, a.Addr(), picks); err != nil {
			p.mu.Unlock()
			return nil, err
		}
	}
	for f, n := range picks {
		f.slots.take(owner, n)
	}
	p.mu.Unlock()
	return p.Allocate(owner)
}

// ask finds whether an owner may have an address; p.mu is held.
func (p *Pool) ask(owner string, a netip.Addr, picks map[*family]uint64) error {
	f := p.familyOf(a)
	if f == nil {
		return fmt.Errorf("the address %s that is asked for is outside this node's subnets %s", a, p.subnets())
	}
	n := f.offset(a)
	if n < firstPod {
		return fmt.Errorf("the address %s that is asked for is the network's own", a)
	}
	if other, ok := f.slots.used[n]; ok && other != owner {
		return &TakenError{Address: a, Owner: other}
	}
	if old, ok := f.slots.owned[owner]; ok && old != n {
		return fmt.Errorf("the address %s is asked for, and the interface has %s already", a, f.address(old).Addr())
	}
	if _, twice := picks[f]; twice {
		return fmt.Errorf("two addresses of subnet %s are asked for", f.subnet)
	}
	picks[f] = n
	return nil
}

// TakenError says that an address that was asked for is somebody else's.
type TakenError struct {
	Address netip.Addr
	Owner   string
}

// Error names both.
func (e *TakenError) Error() string {
	return fmt.Sprintf("the address %s that is asked for is held by %s: ask for another, or delete that first", e.Address, e.Owner)
}

// Reserve records what a pod was given before a restart. It fails, changing
// nothing, when an address is outside the node's subnets or another pod's.
func (p *Pool) Reserve(uid string, addresses []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	picks := make(map[*family]uint64)
	for _, a := range addresses {
		f := p.familyOf(a.Addr())
		if f == nil {
			return fmt.Errorf("address %s of pod %s is outside this node's subnets %s", a, uid, p.subnets())
		}
		n := f.offset(a.Addr())
		if n < firstPod {
			return fmt.Errorf("address %s of pod %s is the node's own", a, uid)
		}
		if other, ok := f.slots.used[n]; ok && other != uid {
			return fmt.Errorf("address %s of pod %s is already pod %s's", a, uid, other)
		}
		if old, ok := f.slots.owned[uid]; ok && old != n {
			return fmt.Errorf("address %s of pod %s: it already holds %s", a, uid, f.address(old))
		}
		picks[f] = n
	}
	for f, n := range picks {
		f.slots.take(uid, n)
		if n >= f.cursor {
			f.cursor = n + 1 // a restart must not hand out what was released just before it
		}
	}
	return nil
}

// Release puts the pod's addresses to rest; false when it has none.
func (p *Pool) Release(uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, had := p.now(), false
	for _, f := range p.families {
		had = f.slots.release(uid, now) || had
	}
	return had
}

// Lookup returns the pod's addresses, nil when it has none.
func (p *Pool) Lookup(uid string) []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []netip.Prefix
	for _, f := range p.families {
		if n, ok := f.slots.owned[uid]; ok {
			out = append(out, f.address(n))
		}
	}
	return out
}

// Owners lists the pods that hold addresses, sorted.
func (p *Pool) Owners() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, f := range p.families {
		for uid := range f.slots.owned {
			out = append(out, uid)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Subnets returns the node's subnets.
func (p *Pool) Subnets() []netip.Prefix { return p.subnets() }

func (p *Pool) subnets() []netip.Prefix {
	out := make([]netip.Prefix, len(p.families))
	for i, f := range p.families {
		out[i] = f.subnet
	}
	return out
}

func (p *Pool) familyOf(ip netip.Addr) *family {
	for _, f := range p.families {
		if f.subnet.Contains(ip) && f.offset(ip) <= f.slots.last {
			return f
		}
	}
	return nil
}

// Usage is how full one family of a pool is.
type Usage struct {
	Subnet  netip.Prefix
	Size    uint64 // addresses that pods may have
	Used    int
	Resting int // may be larger than what still rests: rests end when someone looks
}

// Usage reports each family, for metrics.
func (p *Pool) Usage() []Usage {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]Usage, len(p.families))
	for i, f := range p.families {
		out[i] = Usage{Subnet: f.subnet, Size: f.slots.size(), Used: len(f.slots.used), Resting: len(f.slots.resting)}
	}
	return out
}

func (f *family) address(n uint64) netip.Prefix {
	return netip.PrefixFrom(offset(f.subnet.Addr(), n), f.subnet.Bits())
}

// offset is how far ip is into the subnet; MaxUint64 when it is beyond 2^64.
func (f *family) offset(ip netip.Addr) uint64 {
	if ip.Is4() {
		a, b := ip.As4(), f.subnet.Addr().As4()
		return uint64(binary.BigEndian.Uint32(a[:]) - binary.BigEndian.Uint32(b[:]))
	}
	a, b := ip.As16(), f.subnet.Addr().As16()
	if binary.BigEndian.Uint64(a[:8]) != binary.BigEndian.Uint64(b[:8]) {
		return ^uint64(0)
	}
	return binary.BigEndian.Uint64(a[8:]) - binary.BigEndian.Uint64(b[8:])
}

// offset returns base + n, in the low 64 bits: base is a masked prefix.
func offset(base netip.Addr, n uint64) netip.Addr {
	if base.Is4() {
		b := base.As4()
		binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
		return netip.AddrFrom4(b)
	}
	b := base.As16()
	binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
	return netip.AddrFrom16(b)
}

// Gateway is the address of the logical router in a node's subnet: the first.
func Gateway(subnet netip.Prefix) netip.Addr { return offset(subnet.Masked().Addr(), 1) }

// Management is the address of the node's management port in its subnet: the second.
func Management(subnet netip.Prefix) netip.Addr { return offset(subnet.Masked().Addr(), 2) }

// Nth is the n-th part of a prefix that has a longer length.
func Nth(p netip.Prefix, length, n int) netip.Prefix {
	a := p.Masked().Addr().AsSlice()
	// The number is added at the bit where a part ends.
	shift := uint(p.Addr().BitLen()-length) % 8
	carry := uint64(n) << shift
	for i := (length+7)/8 - 1; i >= 0 && carry > 0; i-- {
		carry += uint64(a[i])
		a[i] = byte(carry)
		carry >>= 8
	}
	addr, _ := netip.AddrFromSlice(a)
	return netip.PrefixFrom(addr, length)
}

// At is the n-th address of a prefix, from 0; in the low 64 bits.
func At(p netip.Prefix, n uint64) netip.Prefix {
	return netip.PrefixFrom(offset(p.Masked().Addr(), n), p.Bits())
}

// Index is which address of a prefix a is; false where it is none, or beyond 2^64.
func Index(p netip.Prefix, a netip.Addr) (uint64, bool) {
	f := family{subnet: p.Masked()}
	if !f.subnet.Contains(a) {
		return 0, false
	}
	n := f.offset(a)
	return n, n != ^uint64(0)
}
