package tour

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

// claim is a sentence about the cluster that a measurement proves or refutes.
type claim struct {
	what      string
	want, got string
	err       error // the measurement itself failed
}

func (c claim) holds() bool { return c.err == nil && c.got == c.want }

// String says what was found, and what should have been if that is another thing.
func (c claim) String() string {
	switch {
	case c.err != nil:
		return fmt.Sprintf("%s: want %s, got an error: %s", c.what, c.want, strings.TrimSpace(c.err.Error()))
	case !c.holds():
		return fmt.Sprintf("%s: want %s, got %s", c.what, c.want, c.got)
	}
	return fmt.Sprintf("%s: %s", c.what, c.got)
}

// equal claims that something has a value.
func equal(what string, want, got any, err error) claim {
	return claim{what: what, want: fmt.Sprint(want), got: fmt.Sprint(got), err: err}
}

// holds claims a fact; fact is how a reader calls it.
func holds(what, fact string, ok bool) claim {
	if ok {
		return claim{what: what, want: fact, got: fact}
	}
	return claim{what: what, want: fact, got: "that it is not so"}
}

// echoed claims that one reply came, from the address that was asked, with a ttl.
func echoed(what string, e packets.Echo, asked netip.Addr, ttl int, err error) claim {
	got := fmt.Sprintf("ttl=%d from %s", e.TTL, e.Source)
	if e.Copies > 1 {
		got += fmt.Sprintf(", %d times", e.Copies)
	}
	return claim{what: what, want: fmt.Sprintf("ttl=%d from %s", ttl, asked), got: got, err: err}
}

// tally is what the claims came to.
type tally struct {
	held   int
	failed []claim
}

func (t *tally) add(c claim) {
	if c.holds() {
		t.held++
	} else {
		t.failed = append(t.failed, c)
	}
}

// err is nil if every claim held.
func (t tally) err() error {
	if len(t.failed) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d claims do not hold", len(t.failed), t.held+len(t.failed))
}
