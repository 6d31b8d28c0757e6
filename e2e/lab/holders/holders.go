// Package holders answers whether an address was on two pods at one moment.
//
//	what is told, in order ──> Book: who has which, from one word to the next
//	places that are read ────> Twice: which address is in two of them at once
//
// A Book is given statements in the order in which they became true (a watch's), so an
// address that is told of two holders was on both. Places are read one after the other,
// so that an address was found in two of them says nothing yet: it may have moved
// meanwhile. Twice therefore reads the first once more, after the second: what is still
// there was in both when the second was read. It finds nothing that is not so; what
// lasts for less than a reading it may miss.
package holders

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
)

// Book holds who has which address now. It is safe for concurrent use.
type Book struct {
	mu      sync.Mutex // guards the rest
	of      map[string][]netip.Addr
	by      map[netip.Addr]string
	last    map[netip.Addr]string // who had an address last, or has it
	changed int
	wrong   []string
}

// NewBook is empty.
func NewBook() *Book {
	return &Book{of: map[string][]netip.Addr{}, by: map[netip.Addr]string{}, last: map[netip.Addr]string{}}
}

// Has takes that a holder has these addresses, and no other.
func (b *Book) Has(holder string, addrs []netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.of[holder] {
		if !slices.Contains(addrs, a) && b.by[a] == holder {
			delete(b.by, a)
		}
	}
	b.of[holder] = slices.Clone(addrs)
	for _, a := range addrs {
		if other := b.by[a]; other != "" && other != holder {
			b.wrong = append(b.wrong, fmt.Sprintf("%s is told of %s, while %s has it", a, holder, other))
		}
		if was := b.last[a]; was != "" && was != holder {
			b.changed++
		}
		b.by[a], b.last[a] = holder, holder
	}
}

// Gone takes that a holder is no more.
func (b *Book) Gone(holder string) {
	b.Has(holder, nil)
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.of, holder)
}

// Except forgets all holders but these: of the others the end was not seen.
func (b *Book) Except(holders []string) {
	b.mu.Lock()
	known := slices.Sorted(maps.Keys(b.of))
	b.mu.Unlock()
	for _, h := range known {
		if !slices.Contains(holders, h) {
			b.Gone(h)
		}
	}
}

// Wrong lists what must not be, once.
func (b *Book) Wrong() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.wrong
	b.wrong = nil
	return out
}

// Counts are how many addresses were ever told of, and how often one had another
// holder than before.
func (b *Book) Counts() (addresses, again int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.last), b.changed
}

// Twice reads places, and lists the addresses that were in two of them at one moment.
func Twice(places []string, read func(place string) []netip.Addr) []string {
	first := map[netip.Addr]string{}
	var out []string
	for _, p := range places {
		for _, a := range read(p) {
			before, there := first[a]
			if !there || before == p {
				first[a] = p
				continue
			}
			if slices.Contains(read(before), a) {
				out = append(out, fmt.Sprintf("%s is in %s and in %s", a, before, p))
			} else {
				first[a] = p
			}
		}
	}
	return out
}
