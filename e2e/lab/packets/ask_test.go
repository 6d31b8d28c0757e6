package packets

import (
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"
)

// TestEveryFamilyOverLoopback asks and answers over both families of one place,
// by each protocol: the kernel must accept what is sent, and the answer must say
// from whom it came.
func TestEveryFamilyOverLoopback(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("entering a network namespace, be it one's own, needs root")
	}
	both := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	here := Place{Name: "here", Path: "/proc/self/ns/net", Addr: both[0], Addrs: both}
	s, err := Serve(here, 18081)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, f := range []Family{IPv4, IPv6} {
		at := here.In(f)
		to := netip.AddrPortFrom(at.Addr, 18081)
		if FamilyOf(at.Addr) != f {
			t.Errorf("%s: the place is at %s", f, at.Addr)
		}
		for what, ask := range map[string]func() (netip.Addr, error){
			"TCP":               func() (netip.Addr, error) { a, err := TCP(at, to, 1<<16, time.Second); return a.Source, err },
			"UDP, whole":        func() (netip.Addr, error) { a, err := UDP(at, to, 1000, false, time.Second); return a.Source, err },
			"UDP, 40,000 bytes": func() (netip.Addr, error) { a, err := UDP(at, to, 40000, true, time.Second); return a.Source, err },
			"ping": func() (netip.Addr, error) {
				e, err := Ping(at, at.Addr, 56, true, time.Second)
				if err == nil && (e.TTL != 64 || e.Copies != 1) {
					err = fmt.Errorf("ttl %d, %d copies", e.TTL, e.Copies)
				}
				return e.Source, err
			},
		} {
			if source, err := ask(); err != nil || source != at.Addr {
				t.Errorf("%s %s: source %s, %v", f, what, source, err)
			}
		}
	}
}
