package soup

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Listing is what a zone's database says: these addresses are those of this pod.
type Listing struct {
	Zone  string
	DB    string
	Port  string
	Owner string // UID of the pod
	Addrs []netip.Addr
}

// Holder is a pod that was given addresses.
type Holder struct {
	UID   string
	Name  string
	Addrs []netip.Addr
}

// Ledger holds whose each address is, from one allocation to the next, and what was
// wrong about it.
type Ledger struct {
	mu      sync.Mutex // guards the rest
	holders map[string]Holder
	looks   int
	unseen  int
	wrong   []string
}

// NewLedger is empty.
func NewLedger() *Ledger { return &Ledger{holders: map[string]Holder{}} }

// Given notes that a pod has addresses. look says what zones list at that moment, and
// how many databases did not answer; it is asked once for each pod's addresses.
func (l *Ledger) Given(h Holder, look func() (list []Listing, silent int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, there := l.holders[h.UID]; there {
		if !slices.Equal(old.Addrs, h.Addrs) {
			l.say("pod %s (%s) had %v, and has %v now", h.Name, h.UID, old.Addrs, h.Addrs)
		}
		return
	}
	for _, o := range l.holders {
		for _, a := range h.Addrs {
			if slices.Contains(o.Addrs, a) {
				l.say("pod %s (%s) was given %s, which pod %s (%s) has", h.Name, h.UID, a, o.Name, o.UID)
			}
		}
	}
	l.holders[h.UID] = h
	list, silent := look()
	l.looks, l.unseen = l.looks+1, l.unseen+silent
	for _, z := range list {
		for _, a := range h.Addrs {
			if slices.Contains(z.Addrs, a) && z.Owner != h.UID {
				l.say("pod %s (%s) was given %s, which %s of zone %s lists for port %s of pod %s", h.Name, h.UID, a, z.DB, z.Zone, z.Port, z.Owner)
			}
		}
	}
}

// Gone notes that a pod is no more.
func (l *Ledger) Gone(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holders, uid)
}

// Has reports whether a pod of that name has been given addresses, and is not gone.
func (l *Ledger) Has(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.holders {
		if h.Name == name {
			return true
		}
	}
	return false
}

// Except notes every pod that is not among those listed as gone: a watch that begins
// anew does not tell of the end of what ended meanwhile.
func (l *Ledger) Except(uids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uid := range l.holders {
		if !slices.Contains(uids, uid) {
			delete(l.holders, uid)
		}
	}
}

// Wrong lists what was wrong so far.
func (l *Ledger) Wrong() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.wrong)
}

// Looks counts the allocations that zones were asked about, and the databases that
// did not answer.
func (l *Ledger) Looks() (allocations, silent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks, l.unseen
}

func (l *Ledger) say(format string, args ...any) {
	l.wrong = append(l.wrong, time.Now().UTC().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}
