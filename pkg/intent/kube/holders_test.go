package kube

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestHolders compares with a look at every node: subnets of several lengths, some of them
// had by two nodes, come and go.
func TestHolders(t *testing.T) {
	dice := rand.New(rand.NewPCG(5, 8))
	h := &holders{by: map[netip.Prefix][]string{}, lengths: map[length]int{}}
	has := map[string][]netip.Prefix{}
	subnet := func() netip.Prefix {
		if dice.IntN(4) == 0 {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(dice.IntN(16))}), 60+dice.IntN(3)*2).Masked()
		}
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(dice.IntN(32))}), 21+dice.IntN(4)).Masked()
	}
	found := 0
	for range 5000 {
		name := fmt.Sprint("n", dice.IntN(12))
		h.drop(name, has[name])
		delete(has, name)
		subnets := []netip.Prefix{subnet(), subnet()}
		first, which := "", netip.Prefix{}
		for other, theirs := range has {
			if first != "" && other > first {
				continue
			}
			for _, p := range subnets {
				if slices.ContainsFunc(theirs, p.Overlaps) {
					first, which = other, p
					break
				}
			}
		}
		if got, of := h.of(name, subnets); got != first || of != which {
			t.Fatalf("%v: got %q, %v, want %q, %v, of %v", subnets, got, of, first, which, has)
		}
		if first != "" {
			found++
		}
		if dice.IntN(3) > 0 {
			has[name] = subnets
			h.add(name, subnets)
		}
	}
	for name, subnets := range has {
		h.drop(name, subnets)
	}
	if len(h.by) != 0 || len(h.lengths) != 0 || found < 100 {
		t.Errorf("left %v %v; %d times another had one", h.by, h.lengths, found)
	}
}
