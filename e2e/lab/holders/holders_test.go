package holders

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func addrs(text string) []netip.Addr {
	var out []netip.Addr
	for _, s := range strings.Fields(text) {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestBookFindsAnAddressOfTwo(t *testing.T) {
	b := NewBook()
	b.Has("a", addrs("10.0.0.1 fd00::1"))
	b.Has("a", addrs("10.0.0.1 fd00::1"))
	b.Has("b", addrs("10.0.0.2"))
	b.Has("b", addrs("10.0.0.3")) // it has another now
	b.Has("c", addrs("10.0.0.2"))
	b.Gone("a")
	b.Has("d", addrs("10.0.0.1"))
	if w := b.Wrong(); w != nil {
		t.Fatalf("nothing was wrong, it says %q", w)
	}
	if n, again := b.Counts(); n != 4 || again != 2 {
		t.Errorf("%d addresses, %d given again; want 4 and 2", n, again)
	}
	b.Has("e", addrs("fd00::2 10.0.0.3"))
	if w := b.Wrong(); len(w) != 1 || w[0] != "10.0.0.3 is told of e, while b has it" {
		t.Errorf("it says %q", w)
	}
	if w := b.Wrong(); w != nil {
		t.Errorf("it says so again: %q", w)
	}
}

func TestBookForgetsWhoseEndItHasNotSeen(t *testing.T) {
	b := NewBook()
	b.Has("a", addrs("10.0.0.1"))
	b.Has("b", addrs("10.0.0.2"))
	b.Except([]string{"b"})
	b.Has("c", addrs("10.0.0.1"))
	if w := b.Wrong(); w != nil {
		t.Errorf("a was forgotten, it says %q", w)
	}
	b.Has("d", addrs("10.0.0.2"))
	if len(b.Wrong()) != 1 {
		t.Error("b was not forgotten, and d has its address")
	}
}

func TestTwiceReadsAgain(t *testing.T) {
	now := map[string]string{"x": "10.0.0.1 10.0.0.9", "y": "10.0.0.2", "z": "10.0.0.1"}
	if got := Twice([]string{"x", "y", "z"}, func(p string) []netip.Addr { return addrs(now[p]) }); !slices.Equal(got, []string{"10.0.0.1 is in x and in z"}) {
		t.Errorf("found %q", got)
	}
	reads := 0
	moving := func(p string) []netip.Addr { // the address leaves x after x was read, and then comes to z
		if p == "x" {
			if reads++; reads > 1 {
				return nil
			}
		}
		return addrs(now[p])
	}
	if got := Twice([]string{"x", "y", "z"}, moving); got != nil {
		t.Errorf("an address that moved: %q", got)
	}
	if reads != 2 {
		t.Errorf("x was read %d times", reads)
	}
}
