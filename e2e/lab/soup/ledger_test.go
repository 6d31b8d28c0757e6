package soup_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/portolan-cni/portolan/e2e/lab/soup"
)

func TestLedger(t *testing.T) {
	addr := func(s string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(s)} }
	nothing := func() ([]soup.Listing, int) { return nil, 1 }
	lists := func(owner, a string) func() ([]soup.Listing, int) {
		return func() ([]soup.Listing, int) {
			return []soup.Listing{{Zone: "z", DB: "NB", Port: "ns_" + owner, Owner: owner, Addrs: addr(a)}}, 0
		}
	}
	l := soup.NewLedger()
	l.Given(soup.Holder{UID: "1", Name: "p1", Addrs: addr("10.0.0.3")}, nothing)
	l.Given(soup.Holder{UID: "2", Name: "p2", Addrs: addr("10.0.0.4")}, lists("2", "10.0.0.4"))
	l.Given(soup.Holder{UID: "1", Name: "p1", Addrs: addr("10.0.0.3")}, nothing) // told again
	if w := l.Wrong(); w != nil {
		t.Errorf("wrong: %q", w)
	}
	if n, silent := l.Looks(); n != 2 || silent != 1 {
		t.Errorf("%d looks, %d silent", n, silent)
	}
	for _, c := range []struct {
		h    soup.Holder
		look func() ([]soup.Listing, int)
		want string
	}{
		{soup.Holder{UID: "3", Name: "p3", Addrs: addr("10.0.0.3")}, nothing, "which pod p1 (1) has"},
		{soup.Holder{UID: "4", Name: "p4", Addrs: addr("10.0.0.9")}, lists("0", "10.0.0.9"), "lists for port ns_0 of pod 0"},
		{soup.Holder{UID: "2", Name: "p2", Addrs: addr("10.0.0.5")}, nothing, "had [10.0.0.4], and has [10.0.0.5] now"},
	} {
		before := len(l.Wrong())
		if l.Given(c.h, c.look); len(l.Wrong()) != before+1 || !strings.Contains(l.Wrong()[before], c.want) {
			t.Errorf("%+v: %q, want %q", c.h, l.Wrong()[before:], c.want)
		}
	}
	if l.Gone("1"); l.Has("p1") || !l.Has("p2") {
		t.Error("p1 is gone, and p2 is not")
	}
	l.Except([]string{"2"})
	before := len(l.Wrong())
	l.Given(soup.Holder{UID: "5", Name: "p5", Addrs: addr("10.0.0.3")}, nothing)
	l.Given(soup.Holder{UID: "6", Name: "p6", Addrs: addr("10.0.0.9")}, nothing)
	if w := l.Wrong()[before:]; len(w) > 0 {
		t.Errorf("the addresses of pods that are gone: %q", w)
	}
}
