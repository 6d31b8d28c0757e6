package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock is a synthetic clock.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newClock() *clock { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func prefixes(ss ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

func pool(t *testing.T, c *clock, subnets ...string) *Pool {
	t.Helper()
	p, err := NewPool(PoolConfig{Subnets: prefixes(subnets...), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func allocate(t *testing.T, p *Pool, uid string) string {
	t.Helper()
	got, err := p.Allocate(uid)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(got)
}

func TestPoolNextFit(t *testing.T) {
	c := newClock()
	p := pool(t, c, "10.244.1.0/24")
	if got := allocate(t, p, "a"); got != "[10.244.1.3/24]" {
		t.Fatalf("first address %s", got)
	}
	if again := allocate(t, p, "a"); again != "[10.244.1.3/24]" {
		t.Fatalf("asking twice gave %s", again)
	}
	allocate(t, p, "b")
	if !p.Release("a") || p.Release("a") {
		t.Fatal("release: want true, then false")
	}
	c.t = c.t.Add(time.Hour)
	if got := allocate(t, p, "c"); got != "[10.244.1.5/24]" {
		t.Fatalf("next-fit gave %s, not the address after the last", got)
	}
	if got := p.Lookup("a"); got != nil {
		t.Fatalf("a released pod holds %v", got)
	}
}

func TestPoolQuarantine(t *testing.T) {
	c := newClock()
	p := pool(t, c, "10.0.0.0/29") // .3 to .6
	for _, uid := range []string{"a", "b", "c"} {
		allocate(t, p, uid)
	}
	p.Release("b")
	if got := allocate(t, p, "d"); got != "[10.0.0.6/29]" {
		t.Fatalf("with room left, %s was given", got)
	}
	c.t = c.t.Add(time.Second)
	p.Release("a")
	// No room: the longest rested goes first, its quarantine notwithstanding.
	if got := allocate(t, p, "e"); got != "[10.0.0.4/29]" {
		t.Fatalf("without room, %s was given", got)
	}
	if got := allocate(t, p, "f"); got != "[10.0.0.3/29]" {
		t.Fatalf("without room, %s was given", got)
	}
	_, err := p.Allocate("g")
	var full *ExhaustedError
	if !errors.As(err, &full) {
		t.Fatalf("a full pool answered %v", err)
	}
	for _, want := range []string{"10.0.0.0/29", "4 of 4", "maxPods"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestPoolQuarantineEnds(t *testing.T) {
	c := newClock()
	p := pool(t, c, "10.0.0.0/29")
	allocate(t, p, "a")
	p.Release("a")
	for _, uid := range []string{"b", "c", "d"} {
		allocate(t, p, uid)
	}
	c.t = c.t.Add(DefaultQuarantine)
	if got := allocate(t, p, "e"); got != "[10.0.0.3/29]" {
		t.Fatalf("after the quarantine, %s was given", got)
	}
	if u := p.Usage()[0]; u.Resting != 0 || u.Used != 4 || u.Size != 4 {
		t.Fatalf("usage %+v", u)
	}
}

func TestPoolReserve(t *testing.T) {
	p := pool(t, newClock(), "10.244.1.0/24", "fd00:1::/64")
	if err := p.Reserve("old", prefixes("10.244.1.9/24", "fd00:1::9/64")); err != nil {
		t.Fatal(err)
	}
	if err := p.Reserve("old", prefixes("10.244.1.9/24")); err != nil {
		t.Fatalf("reserving twice: %v", err)
	}
	for name, c := range map[string]struct{ uid, addr string }{
		"taken": {"x", "10.244.1.9/24"}, "outside": {"x", "10.244.2.9/24"}, "second": {"old", "10.244.1.10/24"},
		"gateway": {"x", "10.244.1.1/24"}, "broadcast": {"x", "10.244.1.255/24"}, "beyond": {"x", "fd00:1::ffff:ffff:9/64"},
	} {
		if err := p.Reserve(c.uid, prefixes(c.addr)); err == nil {
			t.Errorf("%s: reserving %s for %s succeeded", name, c.addr, c.uid)
		}
	}
	if got := p.Lookup("x"); got != nil {
		t.Fatalf("a refused reservation left %v", got)
	}
	if got := allocate(t, p, "old"); got != "[10.244.1.9/24 fd00:1::9/64]" {
		t.Fatalf("reserved pod was given %s", got)
	}
	if got := allocate(t, p, "new"); got != "[10.244.1.10/24 fd00:1::a/64]" {
		t.Fatalf("a new pod was given %s", got)
	}
	if diff := cmp.Diff([]string{"new", "old"}, p.Owners()); diff != "" {
		t.Fatal(diff)
	}
}

func TestPoolDualStackAllOrNothing(t *testing.T) {
	p := pool(t, newClock(), "10.0.0.0/29", "fd00::/64")
	for i := range 4 {
		allocate(t, p, fmt.Sprint(i))
	}
	if _, err := p.Allocate("x"); err == nil {
		t.Fatal("a fifth pod in a /29")
	}
	if u := p.Usage()[1]; u.Used != 4 {
		t.Fatalf("the refused pod holds an IPv6 address: %+v", u)
	}
}

func TestPoolRefuses(t *testing.T) {
	for _, subnets := range [][]netip.Prefix{nil, prefixes("10.0.0.0/30"), prefixes("10.0.0.0/24", "10.0.1.0/24")} {
		if _, err := NewPool(PoolConfig{Subnets: subnets}); err == nil {
			t.Errorf("%v accepted", subnets)
		}
	}
}

func TestMAC(t *testing.T) {
	for ip, want := range map[string]string{
		"10.244.1.5": "0a:58:0a:f4:01:05", "::ffff:10.244.1.5": "0a:58:0a:f4:01:05",
	} {
		if got := MAC(netip.MustParseAddr(ip)).String(); got != want {
			t.Errorf("MAC(%s) = %s, want %s", ip, got, want)
		}
	}
	six := MAC(netip.MustParseAddr("fd00::5"))
	if six[0] != 0x0a || six[1] != 0x58 || six.String() == MAC(netip.MustParseAddr("fd00::6")).String() {
		t.Errorf("MAC(fd00::5) = %s", six)
	}
	if got := MACOf(prefixes("fd00::5/64", "10.0.0.5/24")).String(); got != "0a:58:0a:00:00:05" {
		t.Errorf("MACOf a dual-stack interface = %s", got)
	}
	if MACOf(nil) != nil {
		t.Error("MACOf nothing is something")
	}
}

func TestGateway(t *testing.T) {
	s := netip.MustParsePrefix("10.244.1.0/24")
	if g, m := Gateway(s), Management(s); g.String() != "10.244.1.1" || m.String() != "10.244.1.2" {
		t.Fatalf("gateway %s, management %s", g, m)
	}
}
