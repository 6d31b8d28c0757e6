package tour

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/packets"
)

func TestClaims(t *testing.T) {
	a, b := netip.MustParseAddr("10.244.1.3"), netip.MustParseAddr("10.244.2.3")
	for _, c := range []struct {
		claim claim
		holds bool
		text  string
	}{
		{equal("source", a, a, nil), true, "source: 10.244.1.3"},
		{equal("source", a, b, nil), false, "source: want 10.244.1.3, got 10.244.2.3"},
		{equal("source", a, a, fmt.Errorf("refused%s", "\n")), false, "source: want 10.244.1.3, got an error: refused"},
		{holds("node", "Ready", true), true, "node: Ready"},
		{holds("node", "Ready", false), false, "node: want Ready, got that it is not so"},
		{echoed("ping", packets.Echo{TTL: 62, Source: b, Copies: 1}, b, 62, nil), true, "ping: ttl=62 from 10.244.2.3"},
		{echoed("ping", packets.Echo{TTL: 63, Source: b, Copies: 1}, b, 62, nil), false, "ping: want ttl=62 from 10.244.2.3, got ttl=63 from 10.244.2.3"},
		{echoed("ping", packets.Echo{TTL: 62, Source: a, Copies: 1}, b, 62, nil), false, "ping: want ttl=62 from 10.244.2.3, got ttl=62 from 10.244.1.3"},
		{echoed("ping", packets.Echo{TTL: 62, Source: b, Copies: 2}, b, 62, nil), false, "ping: want ttl=62 from 10.244.2.3, got ttl=62 from 10.244.2.3, 2 times"},
		{echoed("ping", packets.Echo{}, b, 62, packets.ErrNoEcho), false, "ping: want ttl=62 from 10.244.2.3, got an error: no echo reply"},
	} {
		if c.claim.holds() != c.holds || c.claim.String() != c.text {
			t.Errorf("%+v: holds %v, says %q; want %v, %q", c.claim, c.claim.holds(), c.claim, c.holds, c.text)
		}
	}
}

func TestOneClaimThatFailsIsAnError(t *testing.T) {
	var out strings.Builder
	p := printer{out: &out}
	p.claim(equal("first", 1, 1, nil))
	if err := p.tally.err(); err != nil {
		t.Errorf("all claims hold, but: %v", err)
	}
	p.claim(equal("second", 1, 2, nil))
	p.claim(equal("third", 3, 3, nil))
	if err := p.tally.err(); err == nil || err.Error() != "1 of 3 claims do not hold" {
		t.Errorf("got %v", err)
	}
	if want := "  ✓ first: 1\n  ✗ second: want 1, got 2\n  ✓ third: 3\n"; out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
