package alloc

import (
	"fmt"
	"time"
)

// slots hands out the numbers first..last, each to one owner. It is not safe for
// concurrent use: the types built on it lock.
type slots struct {
	first, last uint64
	used        map[uint64]string    // number → owner
	owned       map[string]uint64    // the inverse of used
	resting     map[uint64]time.Time // number → when it was released; never also in used
	high        uint64               // one more than the highest that was ever taken; 0: none was
	quiet       uint64               // what is free below this rests since quietSince
	quietSince  time.Time
}

func newSlots(first, last uint64) *slots {
	return &slots{
		first: first, last: last,
		used: make(map[uint64]string), owned: make(map[string]uint64), resting: make(map[uint64]time.Time),
	}
}

// size is how many numbers there are in all.
func (s *slots) size() uint64 { return s.last - s.first + 1 }

// next finds the first number at or after from, going round, that is neither
// used nor resting. Rests that ended before cutoff are forgotten on the way.
func (s *slots) next(from uint64, cutoff time.Time) (uint64, bool) {
	first := s.first
	if s.quietSince.After(cutoff) {
		first = max(first, s.quiet)
	}
	if first > s.last {
		return 0, false
	}
	if from < first || from > s.last {
		from = first
	}
	// Every busy number is skipped at most once, so the walk is bounded by them,
	// not by the size of an IPv6 subnet.
	n := from
	for range uint64(len(s.used)+len(s.resting)) + 1 {
		if s.free(n, cutoff) {
			return n, true
		}
		if n++; n > s.last {
			n = first
		}
		if n == from {
			break
		}
	}
	return 0, false
}

func (s *slots) free(n uint64, cutoff time.Time) bool {
	if _, ok := s.used[n]; ok {
		return false
	}
	since, ok := s.resting[n]
	if ok && since.After(cutoff) {
		return false
	}
	delete(s.resting, n)
	return true
}

// oldest is the number that has rested longest.
func (s *slots) oldest() (n uint64, since time.Time, ok bool) {
	for m, t := range s.resting {
		if !ok || t.Before(since) || t.Equal(since) && m < n {
			n, since, ok = m, t, true
		}
	}
	return n, since, ok
}

func (s *slots) take(owner string, n uint64) {
	delete(s.resting, n)
	s.used[n] = owner
	s.owned[owner] = n
	s.high = max(s.high, n+1)
}

// hush puts to rest whatever is free below a number: what was given in a time that
// nobody remembers.
func (s *slots) hush(below uint64, now time.Time) { s.quiet, s.quietSince = below, now }

// reserve takes a number that was given before; it may be outside first..last,
// for what was allocated under an older configuration.
func (s *slots) reserve(owner string, n uint64) error {
	if other, ok := s.used[n]; ok && other != owner {
		return fmt.Errorf("held by %s", other)
	}
	if old, ok := s.owned[owner]; ok && old != n {
		return fmt.Errorf("%s already holds another", owner)
	}
	s.take(owner, n)
	return nil
}

func (s *slots) release(owner string, now time.Time) bool {
	n, ok := s.owned[owner]
	if !ok {
		return false
	}
	delete(s.owned, owner)
	delete(s.used, n)
	s.resting[n] = now
	return true
}

// ExhaustedError says that nothing is left to allocate.
type ExhaustedError struct {
	What    string        // what was asked: "pod address", "node id", "node subnet"
	From    string        // where from: "10.244.1.0/24", "1..5000"
	Size    uint64        // how many there are in all
	Used    int           // held by owners
	Resting int           // released, and not yet to be given again
	Retry   time.Duration // when the first resting one is free; 0: none is resting
	Advice  string        // what to do about it
}

// Error names the range, its size and the way out. It has no time in it: who tells
// what changes would tell it each second.
func (e *ExhaustedError) Error() string {
	s := fmt.Sprintf("no %s left in %s: %d of %d in use", e.What, e.From, e.Used, e.Size)
	if e.Resting > 0 {
		s += fmt.Sprintf(", %d resting until it is safe to give them again", e.Resting)
	}
	return s + "; " + e.Advice
}
